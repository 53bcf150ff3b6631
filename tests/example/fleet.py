"""The page of `make fleet` in headless Chromium: a person's clicks, and what must be seen after each.

    fleet.py ADDRESS DIRECTORY

Ends with an exception at the first thing that is not as it should be; leaves screenshots in the directory.
"""

import re
import sys

import browser

# One key in the slots of each of the nodes 1, 2 and 3.
APPLE, LEMON, PEACH = KEYS = ("apple", "lemon", "peach")
MACHINES = (1, 2, 3)
MISS = "(a miss)"


class Page(browser.Page):
    def text(self, css):
        """In one step: the page draws its parts anew again and again."""
        return self.driver.execute_script("return document.querySelector(arguments[0]).innerText.trim()", css)

    def values(self, key):
        """What each machine reads."""
        return [self.machine(number, f'[data-key="{key}"]') for number in MACHINES]

    def machine(self, number, css):
        return self.text(f'[data-machine="{number}"] {css}')

    def state(self, number):
        """Whether all its copies are in use, and whether it reaches all primaries."""
        return [self.machine(number, css) for css in (".state", ".reached")]

    def number(self, number, css):
        """A figure of a machine."""
        return float(re.sub("[^0-9.]", "", self.machine(number, css)))

    def node(self, number):
        """Role, keys and state of a node."""
        return [self.text(f'[data-node="{number}"] .{css}') for css in ("role", "keys", "state")]

    def click(self, css, what, seen):
        """Clicks until something is seen: a button that is just drawn anew takes no click."""
        self.until(f"{css} is clicked", lambda: [self.find(css).click()])
        self.until(what, seen)

    def stop(self, number):
        self.click(f"#node-{number}", f"node {number} is stopped", lambda: "stopped" in self.node(number)[2])

    def go_on(self, number):
        self.click(f"#node-{number}", f"node {number} goes on", lambda: self.node(number)[2] == "up")

    def try_write(self, key, value, machine):
        """What the page says to it."""
        field = self.find("#write [name=value]")
        field.clear()
        field.send_keys(value)
        self.find("#write [name=key]").send_keys(key)
        self.find("#write [name=machine]").send_keys(str(machine))
        self.find("#write button").click()
        self.until("an answer", lambda: key in self.text("#answer"))
        return self.text("#answer")

    def write(self, key, value, machine):
        """Writes until it is stored; then all machines that are connected read it."""
        self.until(f"{key} is written", lambda: "is written on" in self.try_write(key, value, machine))

    def write_seen(self, key, value, machine):
        self.write(key, value, machine)
        self.until("all machines read it", lambda: self.values(key) == [value] * 3)

    def all_is_well(self):
        for machine in MACHINES:
            self.until("all is well", lambda: self.state(machine) == ["kept up to date", "reached"])
            self.until("a new beat", lambda: self.number(machine, ".beat") < 1000)


def use(page):
    """Three machines at work."""
    page.until("three machines", lambda: [page.values(key) for key in KEYS] == [[MISS] * 3] * 3)
    for number, key in enumerate(KEYS, 1):
        page.until("a primary", lambda: page.node(number) == ["primary", key, "up"])
        page.until("its replica", lambda: page.node(number + 3) == [f"replica of {number}", "", "up"])
        page.write_seen(key, "hello", number)
    page.click("#traffic", "traffic", lambda: page.text("#traffic") == "stop traffic")
    for machine in MACHINES:
        page.until("reads from copies", lambda: page.number(machine, ".ratio") > 50)
        page.until("messages", lambda: page.number(machine, ".invalidated") > 0)
        page.until("copies", lambda: page.number(machine, ".fills") > 0)
    page.all_is_well()


def cut_off(page):
    page.click("#cut-2", "machine 2 is cut off", lambda: page.machine(2, "b") == "cut off")
    page.until("an old beat", lambda: page.number(2, ".beat.bad") > 1000)
    page.until("it says why", lambda: page.state(2) == ["not all in use", "not all reached"])
    page.write(LEMON, "goodbye", 3)
    page.until("the others read it, and machine 2 nothing", lambda: page.values(LEMON) == ["goodbye", MISS, "goodbye"])
    page.click("#cut-2", "machine 2 reads it, too", lambda: page.values(LEMON) == ["goodbye"] * 3)
    page.all_is_well()


def failover(page):
    """Node 1 is stopped, and node 4 takes over."""
    failed = [page.number(machine, ".errors") for machine in MACHINES]
    page.stop(1)
    for machine in MACHINES:
        page.until("calls fail", lambda: page.number(machine, ".errors") > failed[machine - 1])
    page.until("the replica takes over", lambda: page.node(4) == ["primary", APPLE, "up"])
    page.until("the page says why", lambda: "node 1 has failed" in page.text("#events"))
    for machine in MACHINES:
        page.write_seen(APPLE, f"after {machine}", machine)
    page.all_is_well()
    page.driver.save_screenshot(f"{sys.argv[2]}/fleet-failover.png")
    page.go_on(1)
    page.until("it is a replica now", lambda: page.node(1) == ["replica of 4", "", "up"])
    page.write_seen(APPLE, "at node 4", 2)


def without_replica(page):
    """Nobody can take over from node 4, until its replica goes on."""
    page.stop(1)
    page.stop(4)
    page.until("the others know", lambda: page.node(4)[2] == "stopped, failed")
    page.until("misses", lambda: page.values(APPLE) == [MISS] * 3)
    assert "is not written" in page.try_write(APPLE, "lost", 1)
    page.write_seen(PEACH, "all the same", 1)
    page.until("the page says why", lambda: page.state(1) == ["not all in use", "not all reached"])
    page.go_on(1)
    page.until("it takes over", lambda: page.node(1) == ["primary", APPLE, "up"])
    page.write_seen(APPLE, "again", 3)
    page.go_on(4)
    # It may hear first that node 1 has failed, which is long ago, and win an election.
    primary = ["primary", APPLE, "up"]
    either = [primary, ["replica of 1", "", "up"]], [["replica of 4", "", "up"], primary]
    page.until("one is the replica of the other", lambda: [page.node(1), page.node(4)] in either)
    page.write_seen(APPLE, "at last", 2)
    page.all_is_well()


def main(address, directory):
    with browser.opened(f"{directory}/fleet") as driver:
        page = Page(driver, address)
        for part in (use, cut_off, failover, without_replica):
            part(page)
        driver.save_screenshot(f"{directory}/fleet.png")
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 1600, "deviceScaleFactor": 1, "mobile": True}
        )
        page.until("no scrolling sideways", lambda: driver.execute_script("return document.body.scrollWidth <= 360"))
        driver.save_screenshot(f"{directory}/fleet-narrow.png")
        page.was_quiet()


main(*sys.argv[1:])
