"""Every method of Cache, its results and its refusals."""

import copy
import datetime
import math
import pickle
import sys
import threading
import time
import tracemalloc

import pytest
from conftest import forked

import ucache


class Text(str):
    pass


def test_get_and_set_mean_what_uwsgiconf_means(cache):
    assert cache.set("k", "v") is True
    assert not cache.set("k", "other")
    assert cache["k"] == cache.get("k") == "v"
    assert cache.get("k", preserve_bytes=True) == b"v"
    cache["k"] = "other"
    assert cache["k"] == "v"
    assert cache["missing"] is None
    assert cache.get("missing", default=7) == 7
    assert cache.get("missing", setter=lambda key: f"made from {key}") == "made from missing"
    assert (
        cache.get("missing", setter=lambda key: pytest.fail("never called")) == "made from missing"
    )
    assert cache.get("none", setter=lambda key: None, default="d") == "d"
    assert "none" not in cache
    assert "k" in cache
    del cache["k"]
    del cache["k"]
    assert "k" not in cache
    assert ucache.Cache("c").timeout == 300
    assert ucache.Cache("c", timeout=0).timeout == 0


def test_stores(cache):
    cache.update("k", "1")
    cache.update("k", b"2")
    assert cache.get("k") == "2"
    assert not cache.add("k", "3")
    assert cache.add("new", 1.5)
    assert cache.get("new") == "1.5"
    assert cache.replace("k", bytearray(b"4"))
    assert not cache.replace("absent", "5")
    assert cache.append("k", memoryview(b"56")) == 3
    assert cache.prepend("k", "0") == 4
    assert cache.append("absent", "x") is None
    assert cache.get("k") == "0456"
    assert cache.cas("k", "0456", "new")
    assert not cache.cas("k", "0456", "newer")
    assert cache.take("k") == "new"
    assert cache.take("k") is None
    assert cache.take("k", "default") == "default"
    assert cache.delete("new") is True
    assert cache.delete("new") is False


def test_values_longer_than_the_first_buffer(make):
    cache = make(blocksize="1m", serializer="bytes")
    for length in [1, 4095, 4096, 4097, 100_000, 1 << 20]:
        value = bytes(range(256)) * (length // 256) + b"x" * (length % 256)
        cache.update("long", value)
        assert cache.get("long") == value
        assert cache.get_many(["long"]) == {"long": value}
    assert len(cache.take("long")) == 1 << 20


@pytest.mark.parametrize("serializer", ["text", "bytes", "json", "pickle"])
def test_long_values_of_every_serializer(make, serializer):
    cache = make(blocksize="1m", serializer=serializer)
    value = b"\xff" * 50_000 if serializer == "bytes" else "\u00e4" * 50_000
    cache.update("long", value)
    assert cache.get("long") == cache["long"] == cache.mapping["long"] == value
    assert isinstance(cache.get("long", preserve_bytes=True), bytes)
    assert cache.get_or_set("long", lambda: "computed") == value
    assert cache.take("long") == value
    assert cache.get("long") is None


def test_a_long_value_that_changes_while_it_is_read(make):
    """A reader asks for the length first: the value may have another one when it is copied."""
    cache = make(blocksize="1m", serializer="bytes")
    lengths = [5000, 300_000, 20_000, 700, 90_000]
    values = [bytes([number]) * length for number, length in enumerate(lengths)]
    cache.update("k", values[0])
    ended = forked.Event()

    def write():
        while not ended.is_set():
            for value in values:
                cache.update("k", value)

    writer = forked.Process(target=write)
    writer.start()
    try:
        seen, deadline = set(), time.monotonic() + 30
        while len(seen) < len(values) or time.monotonic() < deadline - 29.5:
            value = cache.get("k")
            assert value in values
            seen.add(value[0])
            assert time.monotonic() < deadline, seen
    finally:
        ended.set()
        writer.join(30)
    assert writer.exitcode == 0


def test_numbers(cache):
    assert [cache.incr("n"), cache.incr("n", 10), cache.incr("n", delta=-1)] == [1, 11, 10]
    assert [cache.decr("n"), cache.mul("n"), cache.mul("n", value=5), cache.div("n", 4)] == [
        9,
        18,
        90,
        22,
    ]
    assert cache.number("n") == cache.get("n", as_int=True) == 22
    assert cache.number("absent") is None
    assert cache.number("absent", 5) == 5
    assert cache.get("absent", as_int=True) == 0
    assert cache.div("n", 0) == 0
    cache.update("text", "hello")
    assert cache.get("text", as_int=True) == 0
    for change in (cache.incr, cache.mul, cache.number):
        with pytest.raises(ucache.NotANumber):
            change("text")
    assert cache.incr("large", 2**63 - 1) == 2**63 - 1
    assert cache.incr("large") == -(2**63)
    with pytest.raises(OverflowError):
        cache.incr("n", 2**63)
    with pytest.raises(OverflowError):
        cache.decr("n", -(2**63))
    with pytest.raises(TypeError):
        cache.incr("n", 1.5)


def test_times_to_live(cache):
    assert cache.ttl("k") is None
    cache.update("k", "v", ttl=0)
    assert cache.ttl("k") == math.inf
    cache.update("k", "v", ttl=100)
    assert 98 < cache.ttl("k") <= 100
    cache.update("k", "w", ttl=ucache.KEEP)
    assert 98 < cache.ttl("k") <= 100
    cache.update("k", "w", ttl=datetime.timedelta(minutes=5))
    assert 298 < cache.ttl("k") <= 300
    assert cache.touch("k", 90.25)
    assert 80 < cache.ttl("k") <= 90.25
    assert cache.cas("k", "w", "x")
    assert 80 < cache.ttl("k") <= 90.25
    assert cache.touch("k")
    assert 298 < cache.ttl("k") <= 300
    assert not cache.touch("absent", 5)
    cache.update("brief", "v", ttl=0.25)
    while "brief" in cache:
        time.sleep(0.02)
    assert cache.get("brief") is None


@pytest.mark.parametrize("ttl", [-1, -0.5, math.nan, datetime.timedelta(seconds=-1)])
@pytest.mark.parametrize("method", ["update", "add", "replace"])
def test_a_negative_ttl_is_refused(cache, method, ttl):
    with pytest.raises(ValueError, match="time to live"):
        getattr(cache, method)("k", "v", ttl=ttl)
    assert "k" not in cache


def test_absurd_ttls_are_refused(cache):
    for ttl in [2**41, 2**80, math.inf, 1e300]:
        with pytest.raises(OverflowError):
            cache.update("k", "v", ttl=ttl)
    for ttl in ["60", b"60", object(), [60]]:
        with pytest.raises(TypeError):
            cache.update("k", "v", ttl=ttl)
    for refused in (
        lambda: cache.add("k", "v", ttl=ucache.KEEP),
        lambda: cache.touch("k", ucache.KEEP),
    ):
        with pytest.raises(TypeError):
            refused()
    with pytest.raises(ValueError, match="time to live"):
        ucache.Cache("c", timeout=-1)


@pytest.mark.parametrize("key", [1, None, 1.5, ["k"], object()])
def test_keys_of_a_wrong_type(cache, key):
    for call in (
        cache.get,
        cache.delete,
        cache.incr,
        cache.take,
        cache.ttl,
        cache.__contains__,
        cache.__getitem__,
    ):
        with pytest.raises(TypeError, match="a key is str or bytes"):
            call(key)
    for call in (cache.get_many, cache.delete_many):
        with pytest.raises(TypeError, match="a key is str or bytes"):
            call([key])
    with pytest.raises(TypeError):
        cache.update(key, "v")


def test_keys_that_are_too_long_or_empty(make):
    cache = make(keysize=64)
    cache.update("k" * 64, "v")
    for key in ["", "k" * 65, "k" * 100_000, "é" * 33]:
        for call in (
            cache.get,
            cache.delete,
            cache.incr,
            cache.ttl,
            lambda key: cache.get_or_set(key, str),
        ):
            with pytest.raises(ucache.InvalidKey) as caught:
                call(key)
        assert isinstance(caught.value, (ucache.Error, ValueError))
        with pytest.raises(ucache.InvalidKey):
            cache.update(key, "v")
        with pytest.raises(ucache.InvalidKey):
            cache.get_many(["fine", key])


@pytest.mark.parametrize("value", [None, [1], {}, object(), datetime.date(2026, 1, 1)])
def test_values_of_a_wrong_type(cache, value):
    for store in (cache.set, cache.update, cache.add, cache.replace):
        with pytest.raises(TypeError, match="choose a serializer"):
            store("k", value)
    with pytest.raises(TypeError):
        cache.set_many({"first": "v", "k": value})
    with pytest.raises(TypeError):
        cache.get_or_set("k", lambda: value)
    assert list(cache) == []
    assert cache.get_or_set("k", lambda: "the lease was given up") == "the lease was given up"


def test_values_that_are_too_long_or_empty(cache):
    for value in ["", b"", "v" * 65537]:
        with pytest.raises(ucache.InvalidValue):
            cache.update("k", value)
    cache.update("bytes", b"\xff")
    with pytest.raises(UnicodeDecodeError):
        cache.get("bytes")
    with pytest.raises(ucache.InvalidValue):
        cache.append("bytes", "v" * 65536)


def test_arguments(cache):
    for call in [
        lambda: cache.get(),
        lambda: cache.get("k", "default"),
        lambda: cache.get("k", defualt=1),
        lambda: cache.get(key="k", default=1, key2=3),
        lambda: cache.set("k"),
        lambda: cache.set("k", "v", 5),
        lambda: cache.set("k", "v", ttl=5),
        lambda: cache.update("k", "v", key="k"),
        lambda: cache.get_many("text"),
        lambda: cache.get_many(5),
        lambda: cache.set_many(["k"]),
        lambda: cache.delete_many("text"),
        lambda: ucache.Cache(5),
        lambda: ucache.Cache("c", serializer="yaml"),
    ]:
        with pytest.raises((TypeError, AttributeError)):
            call()
    assert cache.get(key="k", default=1) == 1


def test_many(cache):
    assert cache.set_many({f"k{n}": str(n) for n in range(50)}) == []
    keys = [f"k{n}" for n in range(60)]
    assert cache.get_many(iter(keys)) == {f"k{n}": str(n) for n in range(50)}
    assert cache.get_many([b"k1", "k1", "k2"]) == {b"k1": "1", "k1": "1", "k2": "2"}
    assert cache.get_many(()) == cache.get_many([]) == cache.get_many({}) == {}
    cache.update("\udcff", "not UTF-8")
    unusual = [bytearray(b"k1"), memoryview(b"k2")]
    found = cache.get_many([b"\xff", "\udcff", Text("k3"), "absent"])
    assert found == {b"\xff": "not UTF-8", "\udcff": "not UTF-8", "k3": "3"}
    with pytest.raises(TypeError):  # as keys of a dict
        cache.get_many(unusual)
    assert [cache.get(key) for key in unusual] == ["1", "2"]
    for wrong in ["k1", ["k1", 5], [None], 7, None]:
        with pytest.raises(TypeError):
            cache.get_many(wrong)
    assert cache.delete("\udcff")
    assert cache.delete_many(keys) == 50
    assert cache.get_many(keys) == {}
    assert cache.stats()["items"] == 0


def test_many_long_values_do_not_fit_the_first_buffer(make):
    cache = make(serializer="bytes")
    values = {f"k{n}": bytes([n]) * (n * 1300) for n in range(1, 50)}
    cache.set_many(values)
    assert cache.get_many(values) == values


def test_what_the_memory_is_used_for(make, tmp_path):
    for options in ({}, {"store": tmp_path / "store"}):
        cache = make(**options)
        cache.set_many({"short": "x" * 1000, "long": "x" * 20000})
        memory = cache.memory()
        assert memory["payload"] == 5 + 1000 + 4 + 20000
        assert memory["entries"] > memory["payload"]
        used = memory["extents"] + memory["large_blocks"] + memory["leaving"]
        assert used == memory["entries"] + memory["fragmentation"]
        assert memory["resident"] == memory["payload"] + memory["overhead"]
        assert (memory["disk"] > used) == ("store" in options)
        assert memory["sampled"] == 0


def test_a_full_cache(make):
    cache = make(items=3)
    assert cache.set_many({str(n): "v" for n in range(5)}) == ["3", "4"]
    with pytest.raises(ucache.Full) as caught:
        cache.update("more", "v")
    assert isinstance(caught.value, MemoryError)
    assert cache.get_or_set("more", lambda: "computed") == "computed"
    assert "more" not in cache


def test_keys_items_and_length(cache):
    assert cache
    assert cache.keys == []
    cache.set_many({"user:1": "a", "user:2": "b", "page:1": "c"})
    cache.update(b"\xff\x00", "d")
    assert sorted(cache.keys("user:")) == ["user:1", "user:2"]
    assert cache.keys("none") == []
    assert cache.keys("k" * 10_000) == []
    assert len(cache) == len(cache.keys) == 4
    assert dict(cache.items("user:")) == {"user:1": "a", "user:2": "b"}
    assert "\udcff\x00" in list(cache)
    assert cache.get("\udcff\x00") == "d"
    keys = cache.keys
    cache.clear()
    assert keys == []
    assert list(cache) == []


def test_the_mapping_is_a_dict(cache):
    mapping = cache.mapping
    mapping["k"] = "1"
    mapping["k"] = "2"
    assert mapping["k"] == "2"
    assert dict(mapping) == {"k": "2"}
    assert mapping.setdefault("k", "3") == "2"
    assert mapping.pop("k") == "2"
    for missing in (
        lambda: mapping["k"],
        lambda: mapping.__delitem__("k"),
        lambda: mapping.pop("k"),
    ):
        with pytest.raises(KeyError):
            missing()
    mapping.update({"a": "1"}, b="2")
    assert len(mapping) == 2
    assert 5 not in mapping
    mapping.clear()
    assert not mapping


@pytest.mark.parametrize("serializer", ["json", "pickle", ucache.Pickle(protocol=2)])
def test_serializers(make, serializer):
    cache = make(serializer=serializer)
    for value in [
        "text",
        [1, "x"],
        {"a": None},
        5,
        -1,
        2**62,
        2**80,
        True,
        1.5,
        None,
        "",
        "123456",
        "\u00e9" * 100,
    ]:
        cache.update("k", value)
        assert cache.get("k", default="missing") == value
        assert type(cache["k"]) is type(value)
        assert cache.get_many(["k"]) == {"k": value}
        assert cache.cas("k", value, "next")
        assert cache.take("k") == "next"
    # An int is a number, and values of eight bytes are none.
    cache.update("n", 41)
    assert cache.incr("n") == cache.get("n") == 42
    for length in range(1, 12):
        cache.update("k", "x" * length)
        assert cache.get("k") == "x" * length
    assert cache.get_or_set("made", lambda: [1, 2]) == [1, 2]


def test_a_serializer_that_changes_its_cache(make):
    """Its functions run while the cache uses them."""
    cache = make()

    class Again:
        def dumps(self, value):
            cache.__init__(cache.name, serializer=self)
            return value

        def loads(self, data):
            cache.__init__(cache.name, serializer="bytes")
            return "loaded"

    cache.__init__(cache.name, serializer=Again())
    cache.update("k", b"v")
    assert [cache.get("k"), cache.get("k")] == ["loaded", b"v"]


def test_nothing_is_unpickled_unless_asked(make):
    cache = make()
    cache.update("k", pickle.dumps(print))
    assert cache.get("k", preserve_bytes=True) == pickle.dumps(print)
    with pytest.raises(UnicodeDecodeError):
        cache.get("k")


def test_errors_of_a_serializer_are_passed_on(make):
    class Broken:
        def dumps(self, value):
            return value if isinstance(value, bytes) else 5

        def loads(self, data):
            raise KeyError(data)

    cache = make(serializer=Broken())
    with pytest.raises(TypeError, match="dumps returned int"):
        cache.update("k", "v")
    cache.update("k", b"v")
    for read in (lambda: cache.get("k"), lambda: cache.get_many(["k"]), lambda: cache.take("k")):
        with pytest.raises(KeyError):
            read()


def test_finding_and_opening(cache, make):
    cache.update("k", "v")
    assert ucache.Cache(cache.name).get("k") == "v"
    with pytest.raises(ucache.NameInUse):
        ucache.open(cache.name)
    early = ucache.Cache("opened later")
    with pytest.raises(ucache.NoSuchCache, match="no cache 'opened later'"):
        early.get("k")
    assert issubclass(ucache.NoSuchCache, LookupError)
    later = ucache.open("opened later", items=5)
    assert early.get("k") is None
    assert later.stats()["capacity"] == 5
    later.close()
    with pytest.raises(ucache.NoSuchCache):
        later.get("k")
    # An object that has used it keeps its memory.
    assert early.get("k") is None
    for options in [
        {"item": 5},
        {"evict": "random"},
        {"blocksize": "x"},
        {"items": 0},
        {"backend": "x"},
    ]:
        with pytest.raises(ValueError):  # noqa: PT011
            make(**options)
    for again in (copy.copy(cache), pickle.loads(pickle.dumps(cache))):
        assert again.get("k") == "v"
    assert cache.name in repr(cache)


def test_stores_of_files(make, tmp_path):
    path = tmp_path / "a,file\\of.ucache"
    store = make(store=path)
    store.update("k", "v", ttl=0)
    store.sync()
    attached = ucache.attach(path)
    attached.update("k2", "v2")
    assert store.get("k2") == "v2"
    with pytest.raises(ucache.NameInUse):
        ucache.attach(path)
    attached.close()
    store.close()
    with pytest.raises(ucache.StoreError) as caught:
        ucache.attach(tmp_path / "none")
    assert isinstance(caught.value, OSError)
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"of another program" * 1000)
    for refused in (lambda: ucache.attach(foreign), lambda: make(store=foreign)):
        with pytest.raises(ucache.StoreError):
            refused()
    assert foreign.read_bytes() == b"of another program" * 1000
    again = ucache.attach(path, name="again")
    assert again.get("k") == "v"
    again.close()


def test_a_store_with_an_at_sign_in_its_path(make, tmp_path):
    folder = tmp_path / "run@1"
    folder.mkdir()
    path = folder / "c"
    store = make(store=path)
    store.update("k", "v", ttl=0)
    attached = ucache.attach(path)
    assert [type(attached), attached.get("k")] == [ucache.Cache, "v"]
    assert ucache.Cache(str(path)).get("k") == "v"
    again = pickle.loads(pickle.dumps(attached))
    assert [type(again), again.get("k")] == [ucache.Cache, "v"]
    pickled = pickle.dumps(attached)
    attached.close()
    with pytest.raises(ucache.NoSuchCache):
        pickle.loads(pickled).get("k")
    assert type(ucache.Cache("c@127.0.0.1:1")) is ucache.RemoteCache


def test_a_store_of_another_format(make, tmp_path):
    path = tmp_path / "newer"
    store = make(store=path)
    store.update("k", "v", ttl=0)
    store.close()
    ours = path.read_bytes()
    newer = ours[:8] + (99).to_bytes(8, sys.byteorder) + ours[16:]
    path.write_bytes(newer)
    for refused in (lambda: ucache.attach(path), lambda: make(store=path)):
        with pytest.raises(ucache.StoreError, match="99"):
            refused()
    assert path.read_bytes() == newer
    path.write_bytes(ours)
    assert ucache.attach(path, name="ours").get("k") == "v"
    ucache.Cache("ours").close()


def test_methods_are_those_of_the_class(make):
    """The interpreter has a short way to call a method of an object whose class has it itself."""
    public = [name for name in vars(ucache._ucache.Core) if not name.startswith("_")]
    assert {"get", "update", "get_many"} < set(public)
    for name in public:
        assert vars(ucache.Cache)[name].__objclass__ is ucache.Cache, name

    class Loud(ucache.Cache):
        def get(self, key, **options):
            return f"{super().get(key, **options)}!"

    cache = make()
    cache.update("k", "v")
    assert Loud(cache.name).get("k") == "v!"
    assert ucache.Cache.get(cache, "k") == ucache._ucache.Core.get(cache, "k") == "v"
    with pytest.raises(TypeError):
        ucache.Cache.get(ucache._ucache.Core(), "k")
    for wrong in [int, object, 5, type(None)]:
        with pytest.raises(TypeError):
            ucache._ucache._own_methods(wrong)


def test_all_exceptions_have_a_builtin_base():
    own = [e for e in vars(ucache).values() if isinstance(e, type) and issubclass(e, ucache.Error)]
    assert len(own) > 15
    for error in own:
        others = [base for base in error.__mro__ if base.__module__ == "builtins"]
        assert error is ucache.Error or set(others) - {Exception, BaseException, object}, error


def test_a_read_holds_the_gil_and_a_waiting_caller_does_not(cache):
    started, release = threading.Event(), threading.Event()

    def compute():
        started.set()
        release.wait(30)
        return "v"

    results = []
    threads = [
        threading.Thread(target=lambda: results.append(cache.get_or_set("k", compute)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    started.wait(30)
    # This thread runs although two threads wait inside the library.
    before = time.monotonic()
    for _ in range(1000):
        cache.get("other")
    assert time.monotonic() - before < 20
    release.set()
    for thread in threads:
        thread.join(30)
    assert results == ["v"] * 3


def test_threads(cache):
    def work():
        for n in range(300):
            cache.incr("n")
            cache.update(f"k{n % 7}", "v" * (n + 1))
            assert set(cache.get(f"k{n % 7}")) == {"v"}
            cache.get_many(["k1", "k2"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert cache.number("n") == 1200


def test_nothing_leaks(make):
    cache = make(serializer="pickle")
    value, key = ["v"] * 10, "a key"
    cache.update(key, value)

    def everything():
        cache.update(key, value)
        cache.get(key)
        cache.get_many([key, "absent"])
        cache.set_many({key: value})
        cache.get_or_set(key, list)
        list(cache.items())
        cache.ttl(key)
        cache.incr("n")
        cache.stats()
        cache.memory()
        for wrong in (
            lambda: cache.get(5),
            lambda: cache.update(key, value, ttl=-1),
            lambda: cache.incr(key),
        ):
            with pytest.raises((TypeError, ValueError)):
                wrong()

    everything()
    before = sys.getrefcount(key), sys.getrefcount(value), sys.getrefcount(ucache.Cache)
    for _ in range(200):
        everything()
    after = sys.getrefcount(key), sys.getrefcount(value), sys.getrefcount(ucache.Cache)
    assert all(abs(a - b) < 50 for a, b in zip(after, before))


def test_long_values_do_not_leak(make):
    cache = make(blocksize="1m", serializer="bytes")
    cache.update("k", b"v" * 200_000)

    def everything():
        cache.get("k")
        cache.get_many(["k"])
        cache.get_or_set("k", bytes)
        cache.update("taken", b"v" * 200_000)
        cache.take("taken")

    everything()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            everything()
        assert tracemalloc.get_traced_memory()[0] - before < 200_000
    finally:
        tracemalloc.stop()
