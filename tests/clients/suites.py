"""Runs the pytest suite of a library in a uWSGI worker, on uWSGI's cache."""

import os

import pytest
import uwsgi


class Outcomes:
    """Starts each test with empty caches and remembers what became of it."""

    def __init__(self):
        self.lines = {}

    def pytest_collection_modifyitems(self, items):
        # these turn the clock of cachelib's SimpleCache, which is not the cache here
        items[:] = [item for item in items if "clock" not in item.fixturenames]

    def pytest_runtest_setup(self, item):
        for name in ("first", "c"):
            uwsgi.cache_clear(name)

    def pytest_runtest_logreport(self, report):
        # an error while a test is set up or torn down counts as the test's
        if report.when == "call" or report.outcome != "passed":
            self.lines[report.nodeid] = report.outcome


class FlaskCachingOnUwsgi:
    """The fixture `app` of Flask-Caching's tests, with its uWSGI back end."""

    @pytest.fixture(autouse=True)
    def on_uwsgi(self, request):
        if "app" in request.fixturenames:
            config = request.getfixturevalue("app").config
            config.update(CACHE_TYPE="flask_caching.contrib.uwsgicache.UWSGICache", CACHE_UWSGI_NAME="c")

    def pytest_collection_modifyitems(self, items):
        """Skips what is about another back end, whose server all runs would share."""
        for item in items:
            if "redis_server" in item.fixturenames:
                item.add_marker(pytest.mark.skip(reason="about Redis"))


def run(directory, scratch, *arguments, plugins=()):
    """Runs the tests in `directory`; their outcomes as lines of `name outcome`."""
    os.environ["TMPDIR"] = scratch  # where cachelib leaves its exit code
    outcomes = Outcomes()
    where = ["--rootdir", directory, "-o", f"cache_dir={scratch}", "-o", "addopts="]
    quiet = ["-q", "-s", "-rfE", "-p", "no:faulthandler"]
    pytest.main([*where, *quiet, *arguments], plugins=[outcomes, *plugins])
    with open(f"{scratch}/unfinished", "w") as file:
        file.writelines(f"{name} {outcome}\n" for name, outcome in outcomes.lines.items())
    os.rename(f"{scratch}/unfinished", f"{scratch}/outcomes")
