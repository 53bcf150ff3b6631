"""Headless Chromium, and a page in it."""

import contextlib
import shutil

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait


def start():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for switch in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1100,1250"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


@contextlib.contextmanager
def opened(screenshots):
    """A browser; after an exception its window is in SCREENSHOTS-failed.png."""
    driver = start()
    try:
        yield driver
    except BaseException:
        driver.save_screenshot(f"{screenshots}-failed.png")
        raise
    finally:
        driver.quit()


class Page:
    def __init__(self, driver, address):
        self.driver, self.address = driver, address
        driver.get(address)

    def find(self, css):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def until(self, what, condition):
        def tolerant(_):
            try:
                return condition()
            except Exception:  # parts are drawn anew every second: an element may be gone under our hands
                return False

        WebDriverWait(self.driver, 30).until(tolerant, f"never: {what}")

    def was_quiet(self):
        """Everything came from the address, and the console has no warning."""
        names = self.driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
        assert names and all(name.startswith(self.address) for name in names), names
        errors = [entry for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]
        assert not errors, errors
