"""What lies around the class: the stand-in, documentation, other libraries, a server behind a cache."""

import asyncio
import doctest
import importlib
import os
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ucache

DOCS = Path(__file__).parents[2] / "src" / "docs" / "python.md"


@pytest.mark.parametrize("module", ["ucache", "ucache.cache", "ucache.cachetools", "ucache.locks"])
def test_examples_in_docstrings(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 3
    assert result.failed == 0


def test_examples_in_the_recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(DOCS), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 30
    assert result.failed == 0


def test_help_is_readable():
    shown = subprocess.run(
        [sys.executable, "-c", "import ucache; help(ucache.Cache)"], capture_output=True, text=True
    )
    for text in [
        "get_or_set(self, key",
        "get(self, /, key, *, default=None",
        "Of all callers in all threads",
    ]:
        assert text in shown.stdout
    undocumented = [
        name
        for name in dir(ucache.Cache)
        if not name.startswith(("_", "a")) and not getattr(ucache.Cache, name).__doc__
    ]
    assert undocumented == []


def test_modules_import_on_their_own():
    for module in pkgutil.iter_modules(ucache.__path__, "ucache."):
        if module.name.rsplit(".")[-1] not in ("django", "flask", "cachelib", "dogpile"):
            subprocess.run([sys.executable, "-c", f"import {module.name}"], check=True)


def test_a_library_of_an_older_version_is_refused(tmp_path):
    """A plugin that the process has loaded, without a function that the package needs."""
    older = tmp_path / "older.so"
    source = "int ucache_get(void) { return 0; }"
    compiler = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(older)]
    subprocess.run(compiler, input=source, text=True, check=True)
    ran = subprocess.run(
        [sys.executable, "-c", "import ucache"],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_PRELOAD": str(older)},
    )
    assert ran.returncode == 1
    assert "ImportError: the libucache that this process has loaded" in ran.stderr
    assert "install the version of the plugin that belongs to this package" in ran.stderr


def test_the_stand_in(uwsgi):
    import uwsgi as found

    assert found is uwsgi
    assert [found.cache_set("k", "v"), found.cache_set("k", "w")] == [True, None]
    assert [found.cache_get("k"), found.cache_get("none")] == [b"v", None]
    assert [found.cache_update("k", b"w", 60, "mycache"), found.cache_get("k", "mycache")] == [
        True,
        b"w",
    ]
    assert [found.cache_exists("k"), found.cache_exists("none")] == [True, None]
    assert [
        found.cache_inc("n"),
        found.cache_inc("n", 9),
        found.cache_dec("n"),
        found.cache_num("n"),
    ] == [True] * 3 + [9]
    assert [found.cache_mul("n", 3), found.cache_div("n", 2), found.cache_num("n")] == [
        True,
        True,
        13,
    ]
    assert sorted(found.cache_keys()) == [b"k", b"n"]
    assert [found.cache_del("k"), found.cache_del("k")] == [True, None]
    assert [found.cache_set("empty", ""), found.cache_set("k", "v", 0, "unknown")] == [None, None]
    assert [
        found.cache_get("k", "unknown"),
        found.cache_exists("k", "unknown"),
        found.cache_num("k", "unknown"),
    ] == [None, None, 0]
    with pytest.raises(ValueError, match="no local uWSGI cache"):
        found.cache_keys("unknown")
    found.configure("name=other,items=2")
    assert found.cache_set("k", "v", 0, "other")
    assert found.cache_set("k2", "v", 0, "other") is None
    assert found.cache_clear() is True
    assert found.cache_keys() == []


STORES = ["cache_set", "cache_update"]
MATHS = ["cache_inc", "cache_dec", "cache_mul", "cache_div"]
READS = ["cache_get", "cache_exists", "cache_del", "cache_num"]


@pytest.mark.parametrize("function", STORES + MATHS + READS + ["cache_clear", "cache_keys"])
def test_the_stand_in_refuses_what_uwsgi_refuses(uwsgi, function):
    """What uWSGI 2.0.21 with Python 3.11 answered."""
    call = getattr(uwsgi, function)
    value = {**dict.fromkeys(STORES, ["v"]), **dict.fromkeys(MATHS, [1])}.get(function)
    named = [] if value is None else [*value, 0]
    if function not in ("cache_clear", "cache_keys"):
        for key in (12, None, bytearray(b"k"), memoryview(b"k")):
            with pytest.raises(TypeError):
                call(key, *value or [])
        with pytest.raises(UnicodeEncodeError):
            call("\ud800", *value or [])
        with pytest.raises(TypeError):
            call()
        named = ["k", *named]
    for cache in (None, b"mycache", 12):
        with pytest.raises(TypeError):
            call(*named, cache)
    with pytest.raises(ValueError, match="null"):
        call(*named, "a\0b")
    with pytest.raises(TypeError):
        call(*named, cache="mycache")
    call(*named, "")
    call(*named, "mycache")


@pytest.mark.parametrize("function", STORES)
def test_the_stand_in_stores_text_and_bytes_only(uwsgi, function):
    call = getattr(uwsgi, function)
    for value in (12, 1.5, None, bytearray(b"x"), memoryview(b"x")):
        with pytest.raises(TypeError):
            call("k", value)
    assert [call("k", b"x\0"), uwsgi.cache_get(b"k")] == [True, b"x\0"]
    assert call("", "v") is call("k2", "") is None
    assert [getattr(uwsgi, read)("") for read in READS] == [None, None, None, 0]
    assert call("k3", "v", 0, "none@127.0.0.1:1") is None


@pytest.mark.parametrize("function", STORES + MATHS)
def test_the_stand_in_takes_the_times_of_uwsgi(uwsgi, function):
    def call(*expires):
        return getattr(uwsgi, function)("k", "1" if function in STORES else 1, *expires)

    class Index:
        def __index__(self):
            return 3

    for expires in (None, 1.5, "1"):
        with pytest.raises(TypeError):
            call(expires)
    for expires in (1 << 63, 1 << 70, -(1 << 63) - 1):
        with pytest.raises(OverflowError):
            call(expires)
    assert uwsgi.cache_exists("k") is None
    for expires in (0, True, Index(), 1 << 62, -(1 << 63)):
        assert [call(expires), uwsgi.cache_del("k")] == [True, True]
    # At once.
    assert [call(-1), uwsgi.cache_exists("k")] == [True, None]


@pytest.mark.parametrize("function", MATHS)
def test_the_stand_in_counts_with_a_long(uwsgi, function):
    call = getattr(uwsgi, function)
    for operand in (None, 1.5, "1"):
        with pytest.raises(TypeError):
            call("n", operand)
    for operand in (1 << 63, -(1 << 63) - 1):
        with pytest.raises(OverflowError):
            call("n", operand)
    for operand in (-1, True, (1 << 63) - 1, -(1 << 63), 0):
        assert call("n", operand) is True


def test_uwsgiconf_runs_on_the_stand_in(uwsgi):
    sys.modules.pop("uwsgiconf.runtime", None)
    conf = pytest.importorskip("uwsgiconf.runtime.caching") if sys.version_info >= (3, 10) else None
    if conf is None:
        return
    cache = conf.Cache("mycache")
    cache.set("k", "v")
    assert cache.get("k") == "v"


def test_the_fixture_is_gone_after_the_test():
    assert "uwsgi" not in sys.modules
    with pytest.raises(ucache.NoSuchCache):
        ucache.Cache("mycache").get("k")


def test_the_cache_fixture(ucache_cache):
    ucache_cache.update("k", "v")
    assert list(ucache_cache) == ["k"]


def test_remote_caches_that_are_not_there(tmp_path):
    cache = ucache.Cache(f"name@{tmp_path}/none.sock")
    assert isinstance(cache, ucache.Cache)
    assert cache.get("k") is None
    assert cache.get("k", default="d") == "d"
    assert "k" not in cache
    assert not cache.set("k", "v")
    assert not cache.delete("k")
    with pytest.raises(ucache.NotSupported):
        cache.incr("n")
    with pytest.raises(NotImplementedError):
        cache.update("k", "v", ttl=ucache.KEEP)


@pytest.fixture
def server(tmp_path):
    program = os.environ.get("UCACHE_TEST_SERVER")
    if not program:
        pytest.skip("UCACHE_TEST_SERVER names no Valkey server")
    path = tmp_path / "server.sock"
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(path), "--save", ""], stdout=subprocess.DEVNULL
    )
    while not path.exists():
        time.sleep(0.02)
    yield f"redis+unix://{path}", process
    process.terminate()
    process.wait(30)


@pytest.mark.parametrize("numbers", ["binary", "decimal"])
def test_a_cache_with_a_backend(make, server, numbers):
    url, process = server
    cache = make(backend=url, serializer="json", numbers=numbers)
    assert cache.server.endswith("server.sock")
    cache.update("k", {"a": [1]})
    assert cache.get("k") == {"a": [1]}
    cache.update("n", 41)
    assert [cache.incr("n"), cache.get("n"), cache.number("n")] == [42, 42, 42]
    cache.set_many({str(n): n for n in range(30)})
    assert cache.get_many([str(n) for n in range(40)]) == {str(n): n for n in range(30)}
    assert cache.get_or_set("made", lambda: "v", 60) == "v"
    assert 58 < cache.ttl("made") <= 61

    async def main():
        results = await asyncio.gather(
            *(cache.aget_or_set("a", lambda: asyncio.sleep(0.1, "v")) for _ in range(5))
        )
        assert results == ["v"] * 5
        assert await cache.aget("k") == {"a": [1]}

    asyncio.run(main())
    # The server stops: an exception for writes, as documented in backend.md; nothing hangs.
    process.terminate()
    process.wait(30)
    with pytest.raises(ucache.BackendError) as caught:
        cache.update("k", 1)
    assert isinstance(caught.value, ConnectionError)
    assert cache.get_or_set("new", lambda: "computed") == "computed"
