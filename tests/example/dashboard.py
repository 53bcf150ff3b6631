"""The example's page in headless Chromium: a person's clicks, and what must be seen after each.

    dashboard.py ADDRESS FLAVOR DIRECTORY

Ends with an exception at the first thing that is not as it should be; leaves screenshots in the directory.
"""

import re
import sys

import browser
from selenium.webdriver.common.by import By

HOSTILE = "<img src=x onerror=document.title='taken'>"


class Page(browser.Page):
    def rows(self):
        """Size and time to live by key, as shown."""
        script = "return [...document.querySelectorAll('#items tr')].map(r => [...r.cells].slice(0, 3).map(c => c.textContent))"
        return {key: (size, ttl) for key, size, ttl in self.driver.execute_script(script)}

    def fill(self, form, **fields):
        for name, text in fields.items():
            field = self.find(f"#{form} [name={name}]")
            field.clear()
            field.send_keys(text)

    def store(self, key, value, timeout=""):
        self.fill("set", key=key, value=value, timeout=timeout)
        self.find("#set button").click()
        self.until(f"{key} in the table", lambda: key in self.rows())

    def ask(self, what, key, answer):
        self.fill("ask", key=key)
        self.find(f"#ask button[value={what}]").click()
        self.until(f"{what} {key}: {answer}", lambda: self.find("#answer").text == answer)

    def points(self):
        return [len(one.get_attribute("points").split()) for one in self.driver.find_elements(By.TAG_NAME, "polyline")]


def tour(page, flavor):
    known = flavor == "Ucache"  # uWSGI's own cache does not tell sizes and times
    caches = 3 if known else 2
    page.until("all tiles", lambda: len(page.driver.find_elements(By.CSS_SELECTOR, "#tiles .box")) == caches)
    page.until("the visits' counter", lambda: page.rows()["visits"][0] == ("8 B" if known else "-"))

    page.store("greeting", "hello", "90")
    size, left = page.rows()["greeting"]
    if known:
        assert size == "5 B" and re.fullmatch(r"(8\d|90) s", left), (size, left)
        page.until("time passes", lambda: page.rows()["greeting"][1] != left)
    page.ask("get", "greeting", "hello")
    page.ask("incr", "clicks", "1")
    page.ask("incr", "clicks", "2")
    page.ask("get", "no such key", "no such key")

    page.store(HOSTILE, HOSTILE)
    page.ask("get", HOSTILE, HOSTILE)
    assert page.driver.title == "ucache at work"

    page.find("#match").send_keys("greet")
    page.until("the filter works", lambda: list(page.rows()) == ["greeting"])
    page.until("its button is clicked", lambda: [page.find('[aria-label="delete greeting"]').click()])
    page.until("it is deleted", lambda: page.rows() == {})
    page.find("#match").send_keys("\b" * 5)
    page.until("the filter is gone", lambda: "clicks" in page.rows())
    page.ask("delete", "clicks", "deleted")
    page.ask("delete", "clicks", "no such key")

    page.find("#traffic").click()
    tile = "#tiles .box:nth-child(2)"
    page.until("the small cache is full", lambda: "63 / 63 items" in page.find(tile).text)
    page.until("hits", lambda: float(re.search(r"([\d.]+) % hits", page.find(tile).text)[1]) > 10)
    page.until("two lines of five seconds", lambda: len(page.points()) == caches and sorted(page.points())[-2] >= 5)

    responses(page, known)


def responses(page, known):
    """The section of the route `ucache:`, which uWSGI's own cache does not have."""
    section = page.find("#responses")
    if not known:
        assert not section.is_displayed()
        return
    page.until("the section is there", section.is_displayed)

    def figure(name, column=1):
        return page.find(f"#counts [data-figure={name}]").find_elements(By.TAG_NAME, "td")[column].text

    def burst():
        page.find("#burst").click()
        page.until("20 answers", lambda: page.find("#answers").text != "")
        told = dict(reversed(one.split(" ")) for one in page.find("#answers").text.split(", "))
        assert sum(map(int, told.values())) == 20, told
        return told

    told = burst()
    assert told.get("MISS") == "1" and int(told.get("COALESCED", 0)) + int(told.get("HIT", 0)) == 19, told
    page.until("one was computed", lambda: figure("misses") == "1")
    waited = int(told.get("COALESCED", 0))
    page.until("the others are counted", lambda: int(figure("hits")) + int(figure("coalesced")) == 19)
    assert int(figure("coalesced")) == waited
    page.until("time is saved", lambda: float(figure("micros")) > 5)
    # Past the three seconds: old answers, and one refresh.
    page.until("it is old", lambda: "STALE" in burst())
    page.until("it is refreshed", lambda: int(figure("refreshed")) >= 1 and int(figure("stale")) >= 1)
    # A request that the cache must not answer.
    page.driver.execute_script("return fetch('/slow', { headers: { Authorization: 'x' } }).then(a => a.text())")
    page.until("the reason is shown", lambda: figure("bypassed", 2) == "1 authorization")


def main(address, flavor, directory):
    with browser.opened(f"{directory}/{flavor}") as driver:
        page = Page(driver, address)
        tour(page, flavor)
        driver.save_screenshot(f"{directory}/{flavor}.png")

        page.find("#traffic").click()
        driver.set_window_size(500, 900)
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 1600, "deviceScaleFactor": 1, "mobile": True}
        )
        page.until("no scrolling sideways", lambda: driver.execute_script("return document.body.scrollWidth <= 360"))
        driver.save_screenshot(f"{directory}/{flavor}-narrow.png")

        page.find("#clear").click()
        page.until("the cache is empty", lambda: page.rows() == {})

        page.was_quiet()


main(*sys.argv[1:])
