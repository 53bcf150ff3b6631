"""The page of `make fleet` in headless Chromium: a person's clicks, and what must be seen after each.

    fleet.py ADDRESS DIRECTORY

Ends with an exception at the first thing that is not as it should be; leaves screenshots in the directory.
"""

import re
import sys

import browser


class Page(browser.Page):
    def greetings(self):
        """What each machine reads."""
        return [self.machine(number, ".greeting") for number in (1, 2, 3)]

    def machine(self, number, css):
        return self.find(f'[data-machine="{number}"] {css}').text

    def state(self, number):
        """Whether its copies are in use, and whether it reaches the server."""
        return [self.machine(number, css) for css in (".state", ".reached")]

    def number(self, number, css):
        """A figure of a machine."""
        return float(re.sub("[^0-9.]", "", self.machine(number, css)))

    def click(self, css, what, seen):
        """Clicks until something is seen: a button that is just drawn anew takes no click."""
        self.until(f"{css} is clicked", lambda: [self.find(css).click()])
        self.until(what, seen)

    def write(self, value, machine, answer):
        field = self.find("#write [name=value]")
        field.clear()
        field.send_keys(value)
        self.find("#write [name=machine]").send_keys(str(machine))
        self.find("#write button").click()
        self.until(answer, lambda: answer in self.find("#answer").text)


def tour(page):
    page.until("three machines", lambda: page.greetings() == ["(a miss)"] * 3)
    page.write("hello", 1, "written on machine 1")
    page.until("all machines read it", lambda: page.greetings() == ["hello"] * 3)
    page.click("#traffic", "traffic", lambda: page.find("#traffic").text == "stop traffic")
    for machine in (1, 2, 3):
        page.until("reads from copies", lambda: page.number(machine, ".ratio") > 50)
        page.until("a new beat", lambda: page.number(machine, ".beat") < 1000)
        page.until("messages", lambda: page.number(machine, ".invalidated") > 0)
        page.until("copies", lambda: page.number(machine, ".fills") > 0)
        page.until("all is well", lambda: page.state(machine) == ["kept up to date", "reached"])

    page.click('[data-cut="2"]', "machine 2 is cut off", lambda: page.machine(2, "b") == "cut off")
    page.until("an old beat", lambda: page.number(2, ".beat.bad") > 1000)
    page.write("goodbye", 3, "written on machine 3")
    page.until("the others read it, and machine 2 nothing", lambda: page.greetings() == ["goodbye", "(a miss)", "goodbye"])
    page.click('[data-cut="2"]', "machine 2 reads it, too", lambda: page.greetings() == ["goodbye"] * 3)

    page.click("#stop", "the server is stopped", lambda: page.find("#running").text == "stopped")
    page.until("misses", lambda: page.greetings() == ["(a miss)"] * 3)
    page.until("the page says why", lambda: page.state(1) == ["not used", "not reached"])
    page.write("lost", 1, "not written")
    page.click("#stop", "the server runs", lambda: page.find("#running").text == "running")
    page.click("#restart", "nothing is there", lambda: page.greetings() == ["(a miss)"] * 3)
    page.write("again", 2, "written on machine 2")
    page.until("all machines read it", lambda: page.greetings() == ["again"] * 3)


def main(address, directory):
    with browser.opened(f"{directory}/fleet") as driver:
        page = Page(driver, address)
        tour(page)
        driver.save_screenshot(f"{directory}/fleet.png")
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 1600, "deviceScaleFactor": 1, "mobile": True}
        )
        page.until("no scrolling sideways", lambda: driver.execute_script("return document.body.scrollWidth <= 360"))
        driver.save_screenshot(f"{directory}/fleet-narrow.png")
        page.was_quiet()


main(*sys.argv[1:])
