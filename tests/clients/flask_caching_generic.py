"""Flask-Caching's tests for every back end, on the one that they leave out."""

import time

import pytest
from flask_caching.contrib.uwsgicache import UWSGICache
from test_backend_cache import GenericCacheTests


class TestUWSGICache(GenericCacheTests):
    @pytest.fixture
    def make_cache(self):
        return lambda: UWSGICache(cache="c")

    @pytest.fixture
    def sleep(self):
        return time.sleep
