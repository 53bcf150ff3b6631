"""Django's own cache tests, with the backend `ucache.django.UCache`."""

import os
import sys
from pathlib import Path

import pytest

django = pytest.importorskip("django")
SOURCES = Path(os.environ.get("UCACHE_DJANGO_TESTS", "/none"))
if not (SOURCES / "cache" / "tests.py").exists():
    pytest.skip("UCACHE_DJANGO_TESTS names no tests of Django", allow_module_level=True)
sys.path.insert(0, str(SOURCES))

from django.conf import settings  # noqa: E402

settings.configure(
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.sessions", "cache"],
    SECRET_KEY="key",
    ROOT_URLCONF="",
    USE_TZ=False,
)
django.setup()

from cache.tests import BaseCacheTests, RequestFactory, caches_setting_for_tests  # noqa: E402
from django.core.cache import cache, caches  # noqa: E402
from django.test import TestCase, override_settings  # noqa: E402
from django.test.runner import DiscoverRunner  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def database():
    runner = DiscoverRunner(verbosity=0, interactive=False)
    runner.setup_test_environment()
    databases = runner.setup_databases()
    yield
    runner.teardown_databases(databases)
    runner.teardown_test_environment()


OPTIONS = {"items": 5000, "blocksize": "2m"}


@override_settings(
    CACHES=caches_setting_for_tests(
        BACKEND="ucache.django.UCache", LOCATION="django", OPTIONS=OPTIONS
    )
)
class UCacheTests(BaseCacheTests, TestCase):
    factory = RequestFactory()
    # The cache evicts by itself, as memcached does; Django's tests of its memcached backend do this, too.
    test_cull = test_zero_cull = None

    def test_a_number_and_an_object_of_eight_bytes(self):
        cache.set("n", 5)
        assert cache.incr("n", 3) == 8
        cache.set("n", "text")
        with self.assertRaises(TypeError):
            cache.incr("n")

    def test_what_does_not_fit_is_not_stored(self):
        cache.set("k", "v")
        cache.set("k", os.urandom(3_000_000))
        assert cache.get("k") is None
        assert cache.set_many({"a": 1, "b": os.urandom(3_000_000)}) == ["b"]
        assert cache.get_many(["a", "b"]) == {"a": 1}

    def test_an_expired_time(self):
        cache.set("k", "v", timeout=0)
        assert cache.get("k") is None
        assert cache.add("k", "v", timeout=-1)
        assert cache.get("k") is None
        cache.set("k", "v", timeout=None)
        assert caches["default"]._cache.ttl(caches["default"].make_key("k")) == float("inf")
