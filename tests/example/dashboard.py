"""The example's page in headless Chromium: a person's clicks, and what must be seen after each.

    dashboard.py ADDRESS FLAVOR DIRECTORY

Ends with an exception at the first thing that is not as it should be; leaves screenshots in the directory.
"""

import re
import shutil
import sys

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

HOSTILE = "<img src=x onerror=document.title='taken'>"


def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for switch in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1100,1250"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


class Page:
    def __init__(self, driver, address):
        self.driver = driver
        driver.get(address)

    def find(self, css):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def until(self, what, condition):
        def tolerant(_):
            try:
                return condition()
            except Exception:  # rows are drawn anew every second: an element may be gone under our hands
                return False

        WebDriverWait(self.driver, 30).until(tolerant, f"never: {what}")

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
    page.until("two tiles", lambda: len(page.driver.find_elements(By.CSS_SELECTOR, "#tiles .box")) == 2)
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
    page.ask("delete", "clicks", "there was none")

    page.find("#traffic").click()
    tile = "#tiles .box:nth-child(2)"
    page.until("the small cache is full", lambda: "63 / 63 items" in page.find(tile).text)
    page.until("hits", lambda: float(re.search(r"([\d.]+) % hits", page.find(tile).text)[1]) > 10)
    page.until("two lines of five seconds", lambda: len(page.points()) == 2 and min(page.points()) >= 5)


def main(address, flavor, directory):
    driver = browser()
    try:
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

        names = driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
        assert names and all(name.startswith(address) for name in names), names
        errors = [entry for entry in driver.get_log("browser") if entry["level"] != "INFO"]
        assert not errors, errors
    except BaseException:
        driver.save_screenshot(f"{directory}/{flavor}-failed.png")
        raise
    finally:
        driver.quit()


main(*sys.argv[1:])
