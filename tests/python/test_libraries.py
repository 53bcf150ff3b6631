"""cachelib, Flask-Caching, dogpile.cache and cachetools on ucache."""

import pytest

import ucache


def test_cachelib(make):
    cachelib = pytest.importorskip("ucache.cachelib")
    name = make().name
    cache = cachelib.UCache(name)
    assert cache.set("k", {"a": 1})
    assert cache.get("k") == {"a": 1}
    assert [cache.add("k", 1), cache.add("new", 1), cache.has("new"), cache.has("none")] == [
        False,
        True,
        True,
        False,
    ]
    assert [cache.get_many("k", "none"), cache.get_dict("new", "none")] == [
        [{"a": 1}, None],
        {"new": 1, "none": None},
    ]
    assert cache.set_many({"x": 1, "y": [2]}) == ["x", "y"]
    assert [cache.inc("x"), cache.inc("x", 5), cache.dec("x"), cache.get("x")] == [2, 7, 6, 6]
    assert cache.delete_many("x", "none") == ["x"]
    assert [cache.delete("y"), cache.delete("y")] == [True, False]
    assert cache.set("k", "expired", timeout=-1)
    assert cache.get("k") is None
    assert cache.set("long", "v" * 100_000) is False
    assert cache.clear()
    assert cache.get("new") is None


def test_flask_caching(make):
    flask, caching = pytest.importorskip("flask"), pytest.importorskip("flask_caching")
    cache = make()
    app = flask.Flask("app")
    app.config.update(
        CACHE_TYPE="ucache.flask.UCache", CACHE_UCACHE_NAME=cache.name, CACHE_DEFAULT_TIMEOUT=60
    )
    extension, calls = caching.Cache(app), []

    @app.route("/page")
    @extension.cached()
    def page():
        calls.append(1)
        return "page"

    @extension.memoize()
    def double(n):
        calls.append(n)
        return 2 * n

    client = app.test_client()
    assert [client.get("/page").data for _ in range(3)] == [b"page"] * 3
    with app.app_context():
        assert [double(5), double(5)] == [10, 10]
        extension.delete_memoized(double)
        assert double(5) == 10
    assert calls == [1, 5, 5]
    assert 0 < min(cache.ttl(key) for key in cache) <= 60


def test_dogpile(make):
    dogpile = pytest.importorskip("dogpile.cache")
    import ucache.dogpile  # noqa: F401

    cache = make()
    region = dogpile.make_region().configure(
        "ucache", arguments={"name": cache.name}, expiration_time=60
    )
    calls = []
    for _ in range(3):
        assert region.get_or_create("k", lambda: calls.append(1) or {"a": 1}) == {"a": 1}
    assert calls == [1]
    region.set_multi({"x": 1, "y": 2})
    assert region.get_multi(["x", "y", "z"])[:2] == [1, 2]
    region.delete_multi(["x", "y"])
    region.delete("k")
    assert list(cache) == []
    assert ucache.Cache(cache.name).stats()["items"] == 0


def test_cachetools(make):
    cachetools, keys = pytest.importorskip("cachetools"), pytest.importorskip("cachetools.keys")
    from ucache.cachetools import UCache

    cache, calls = make(items=20, keysize=256), []

    @cachetools.cached(UCache(cache.name, prefix="f:"), info=True)
    def report(*args, **kwargs):
        calls.append((args, kwargs))
        return {"args": args, "kwargs": kwargs}

    asked = [((2026,), {}), (("2026",), {}), ((), {"year": 2026}), ((("a", 1), None, b"b"), {"x": "y"})]
    for _ in range(2):
        for args, kwargs in asked:
            assert report(*args, **kwargs) == {"args": args, "kwargs": kwargs}
    assert calls == asked
    assert report.cache_info()[:2] == (4, 4)
    assert report.cache_info().currsize == len(cache) == 4
    with pytest.raises(TypeError, match="type object cannot be part"):
        report(object())
    # Of typed keys 1 and True are two; names and values do not run into each other.
    typed = UCache(cache, prefix="typed:")
    assert len({typed._key(keys.typedkey(one)) for one in (1, True, 1.0, "1", b"1")}) == 5
    assert typed._key(keys.hashkey("a", b="c")) != typed._key(keys.hashkey("a", "b", "c"))
    # What another process has stored under a prefix is not another function's.
    cache.update("other", "kept")
    report.cache_clear()
    assert [len(report.cache), dict(cache.mapping)] == [0, {"other": "kept"}]

    class Shop:
        def __init__(self, cache):
            self.cache = cache

        @cachetools.cachedmethod(lambda self: self.cache, key=keys.methodkey)
        def price(self, name, currency="EUR"):
            calls.append(name)
            return f"{len(calls)} {currency}"

    shop = Shop(UCache(cache.name, prefix="price:", ttl=60))
    first = shop.price("hat", currency="USD")
    assert [shop.price("hat", currency="USD"), shop.price("hat") == first] == [first, False]
    assert 0 < min(cache.ttl(key) for key in cache.keys("price:")) <= 60

    mapping = UCache(cache.name, prefix="m:")
    mapping["long" * 100] = 1
    assert [mapping["long" * 100], len(next(iter(mapping))), mapping.pop("long" * 100)] == [1, 64, 1]
    with pytest.raises(KeyError):
        del mapping["gone"]
    # Results that cannot be kept are returned all the same.
    assert cachetools.cached(mapping)(lambda: "v" * 1_000_000)() == "v" * 1_000_000
    full = UCache(make(items=2).name)
    assert [cachetools.cached(full)(str)(n) for n in range(4)] == ["0", "1", "2", "3"]
    with pytest.raises(ValueError, match="full"):
        full["more"] = 1
    assert len(full) == 2
