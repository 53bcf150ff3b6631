"""get_or_set, memoize, locks and the rate limiter: threads, processes, deaths, tasks."""

import asyncio
import os
import signal
import threading
import time

import pytest
from conftest import forked

import ucache


def test_one_thread_computes(cache):
    calls = []

    def compute():
        calls.append(1)
        time.sleep(0.2)
        return "v"

    results = []
    threads = [
        threading.Thread(target=lambda: results.append(cache.get_or_set("k", compute, 60)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == ["v"] * 8
    assert calls == [1]
    assert 58 < cache.ttl("k") <= 60


def test_one_process_computes(cache):
    def compute():
        cache.incr("computed")
        time.sleep(0.3)
        return "v"

    children = [
        forked.Process(target=lambda: os._exit(cache.get_or_set("k", compute) != "v"))
        for _ in range(4)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0] * 4
    assert cache.number("computed") == 1


def test_an_exception_is_passed_on_and_the_next_caller_computes(cache):
    class Own(Exception):
        pass

    def fail():
        raise Own

    with pytest.raises(Own):
        cache.get_or_set("k", fail)
    started = time.monotonic()
    assert cache.get_or_set("k", lambda: "v") == "v"
    assert time.monotonic() - started < 20


def test_a_killed_process_is_replaced(cache):
    def die():
        cache.update("started", "1")
        time.sleep(60)

    child = forked.Process(target=lambda: cache.get_or_set("k", die))
    child.start()
    while "started" not in cache:
        time.sleep(0.01)
    threading.Timer(0.2, child.kill).start()
    started = time.monotonic()
    assert cache.get_or_set("k", lambda: "v", limit=600) == "v"
    assert time.monotonic() - started < 30
    child.join(30)


def test_processes_that_compute_are_killed_under_load(cache):
    """No caller waits for the dead, and all get a value that one computed."""

    def work():
        while True:
            for n in range(5):
                value = cache.get_or_set(f"k{n}", lambda: f"{time.sleep(0.003)}{'v' * 200}", 60)
                assert value == "None" + "v" * 200
                cache.incr("rounds")
                cache.delete(f"k{n}")

    children = [forked.Process(target=work) for _ in range(3)]
    for child in children:
        child.start()
    for _ in range(20):
        time.sleep(0.05)
        victim = children.pop(0)
        assert victim.exitcode is None
        victim.kill()
        victim.join(30)
        children.append(forked.Process(target=work))
        children[-1].start()
    before = cache.number("rounds")
    deadline = time.monotonic() + 30
    while cache.number("rounds") < before + 50:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for child in children:
        child.kill()
        child.join(30)
    assert cache.get_or_set("k0", lambda: "None" + "v" * 200) == "None" + "v" * 200


def test_a_fork_inside_the_callable(cache):
    """The child neither stores the value nor ends its parent's lease."""

    def fork():
        child = os.fork()
        if child == 0:
            return "of the child"
        assert os.waitpid(child, 0)[1] == 0
        assert "k" not in cache
        return "of the parent"

    parent = os.getpid()
    value = cache.get_or_set("k", fork)
    if os.getpid() != parent:
        os._exit(value != "of the child")
    assert value == cache.get("k") == "of the parent"


def test_a_keyboard_interrupt_while_waiting(cache):
    child = forked.Process(target=lambda: cache.get_or_set("k", lambda: time.sleep(60)))
    child.start()
    while cache.stats()["misses"] == 0:
        time.sleep(0.01)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        cache.get_or_set("k", lambda: pytest.fail("another one computes"), limit=600)
    assert time.monotonic() - started < 30
    child.kill()
    child.join(30)
    assert cache.get_or_set("k", lambda: "nothing is held") == "nothing is held"


def test_a_keyboard_interrupt_while_computing(cache):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get_or_set("k", interrupted)
    assert cache.get_or_set("k", lambda: "v") == "v"


def test_a_callable_that_asks_for_its_own_key(cache):
    with pytest.raises(ucache.Deadlock) as caught:
        cache.get_or_set("k", lambda: cache.get_or_set("k", lambda: "v"))
    assert isinstance(caught.value, RuntimeError)
    assert cache.get_or_set("k", lambda: cache.get_or_set("other", lambda: "v")) == "v"


def test_the_wait_has_a_limit(cache):
    child = forked.Process(target=lambda: cache.get_or_set("k", lambda: time.sleep(60), limit=60))
    child.start()
    while cache.stats()["misses"] == 0:
        time.sleep(0.01)
    assert cache.get_or_set("k", lambda: "own", limit=0.2) == "own"
    assert "k" not in cache
    child.kill()
    child.join(30)


def test_a_wrong_time_is_noticed_before_the_computation(cache):
    for options in [{"ttl": -1}, {"ttl": 5, "stale": -1}, {"limit": 0}, {"limit": -3}]:
        with pytest.raises(ValueError):  # noqa: PT011
            cache.get_or_set("k", lambda: pytest.fail("computed"), **options)
    assert cache.get_or_set("k", lambda: "v") == "v"


def test_stale_values_are_served_while_one_computes(cache):
    assert cache.get_or_set("k", lambda: "old", ttl=1, stale=100) == "old"
    assert 99 < cache.ttl("k") <= 101
    while cache.ttl("k") > 99.9:
        time.sleep(0.02)
    started, release = threading.Event(), threading.Event()
    results = []

    def compute():
        started.set()
        release.wait(30)
        return "new"

    refresher = threading.Thread(
        target=lambda: results.append(cache.get_or_set("k", compute, 50, stale=100))
    )
    refresher.start()
    assert started.wait(30)
    assert cache.get_or_set("k", lambda: pytest.fail("one computes"), 50, stale=100) == "old"
    release.set()
    refresher.join(30)
    assert results == ["new"]
    assert cache.get_or_set("k", lambda: pytest.fail("it is fresh"), 50, stale=100) == "new"


def test_a_failed_refresh_leaves_the_old_value(cache):
    cache.get_or_set("k", lambda: "old", ttl=1, stale=100)
    while cache.ttl("k") > 99.9:
        time.sleep(0.02)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_set("k", lambda: 1 / 0, ttl=1, stale=100)
    assert cache.get("k") == "old"
    assert cache.get_or_set("k", lambda: "new", ttl=1, stale=100) == "new"


def test_memoize(make):
    cache = make(serializer="json")
    calls = []

    @cache.memoize(60)
    def add(a, b=1):
        "Adds."
        calls.append((a, b))
        return a + b

    assert [add(1), add(1), add(1, b=2), add("x", "y"), add(1.0)] == [2, 2, 3, "xy", 2.0]
    assert calls == [(1, 1), (1, 2), ("x", "y"), (1.0, 1)]
    assert add.__doc__ == "Adds."
    assert add.forget(1)
    assert not add.forget(1)
    assert add(1) == 2
    assert len(calls) == 5
    with pytest.raises(TypeError, match="memoize"):
        add(object())
    assert len(add.cache_key("x" * 5000)) < 200
    assert add("x" * 5000, "y") == "x" * 5000 + "y"
    keyed = cache.memoize(key=lambda thing: f"thing {id(thing)}")(
        lambda thing: calls.append(thing) or 1
    )
    thing = object()
    assert [keyed(thing), keyed(thing)] == [1, 1]
    assert calls.count(thing) == 1


def test_memoized_coroutines(cache):
    calls = []

    @cache.memoize(60)
    async def slow(n):
        calls.append(n)
        await asyncio.sleep(0.1)
        return f"value {n}"

    async def main():
        return await asyncio.gather(*(slow(n % 2) for n in range(6)))

    assert asyncio.run(main()) == ["value 0", "value 1"] * 3
    assert sorted(calls) == [0, 1]


def test_tasks(cache):
    calls = []

    async def compute():
        calls.append(1)
        await asyncio.sleep(0.2)
        return "v"

    async def main():
        results = await asyncio.gather(*(cache.aget_or_set("k", compute, 60) for _ in range(10)))
        assert results == ["v"] * 10
        assert await cache.aget_or_set("sync", lambda: "w") == "w"
        # A synchronous call would wait for a task that cannot run meanwhile.
        held = asyncio.ensure_future(cache.aget_or_set("held", lambda: asyncio.sleep(0.2, "x")))
        await asyncio.sleep(0.05)
        with pytest.raises(ucache.Deadlock, match="aget_or_set"):
            cache.get_or_set("held", lambda: "y")
        assert await held == "x"
        with pytest.raises(ucache.Deadlock):
            await cache.aget_or_set("own", lambda: cache.aget_or_set("own", lambda: "v"))
        # A cancelled task gives its lease up.
        task = asyncio.ensure_future(cache.aget_or_set("cancelled", lambda: asyncio.sleep(60)))
        await asyncio.sleep(0.05)
        task.cancel()
        assert await cache.aget_or_set("cancelled", lambda: "next") == "next"
        await cache.aupdate("a", "1")
        assert await cache.aget("a") == "1"
        assert await cache.aget_many(["a", "b"]) == {"a": "1"}
        assert await cache.aset_many({"b": "2"}) == []
        assert [await cache.aadd("b", "3"), await cache.aset("c", "4")] == [False, True]
        assert [await cache.aincr("n"), await cache.atake("a"), await cache.atouch("b", 9)] == [
            1,
            "1",
            True,
        ]
        assert [await cache.adelete("b"), await cache.adelete_many(["c", "d"])] == [True, 1]

    asyncio.run(main())
    assert calls == [1]


def test_a_lock(cache):
    lock, other = ucache.Lock(cache, "lock", ttl=60), ucache.Lock(cache, "lock", ttl=60)
    with lock:
        assert lock.locked()
        assert not other.acquire(blocking=False)
        assert not other.acquire(timeout=0.05)
        assert lock.extend(100)
        assert 98 < cache.ttl("lock") <= 100
        assert not other.extend()
        with pytest.raises(ucache.LockLost):
            other.release()
    assert not lock.locked()
    assert other.acquire(timeout=5)
    cache.delete("lock")
    assert lock.acquire(blocking=False)
    with pytest.raises(ucache.LockLost):
        other.release()
    assert lock.locked()
    lock.release()
    with pytest.raises(ucache.LockLost), lock:
        cache.delete("lock")
    for ttl in (0, -1):
        with pytest.raises(ValueError):  # noqa: PT011
            ucache.Lock(cache, "lock", ttl=ttl)


def test_a_lock_excludes_processes(cache):
    def work():
        for _ in range(20):
            with ucache.Lock(cache, "lock"):
                before = int(cache.get("value", default="0"))
                time.sleep(0.001)
                cache.update("value", before + 1)

    children = [forked.Process(target=work) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 3
    assert cache.get("value") == "60"


def test_a_child_does_not_own_the_lock(cache):
    lock = ucache.Lock(cache, "lock")
    parent = os.getpid()
    with lock:
        child = os.fork()
        if child == 0:
            # leaves the block
            pass
        else:
            assert os.waitpid(child, 0)[1] == 0
            assert lock.locked()
    if os.getpid() != parent:
        os._exit(0)
    assert not lock.locked()


def test_a_lock_of_tasks(cache):
    async def main():
        order = []

        async def work(n):
            async with ucache.Lock(cache, "lock"):
                order.append(n)
                await asyncio.sleep(0.01)
                order.append(n)

        await asyncio.gather(*(work(n) for n in range(5)))
        assert order[::2] == order[1::2]
        async with ucache.Lock(cache, "lock"):
            assert not await ucache.Lock(cache, "lock").aacquire(timeout=0.05)

    asyncio.run(main())


def test_a_rate_limiter(cache, monkeypatch):
    limiter = ucache.RateLimiter(cache, "login", limit=10, per=60)
    now = 60_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    assert [limiter.allow("a") for _ in range(12)] == [True] * 10 + [False] * 2
    assert limiter.allow("b")
    assert limiter.remaining("a") == 0
    assert limiter.remaining("b") == 9
    now += 60
    assert not limiter.allow("a"), "the previous period counts in full at the start of this one"
    now += 30
    assert [limiter.allow("a") for _ in range(6)] == [True] * 5 + [False]
    now += 200
    assert limiter.remaining("a") == 10
    assert not limiter.allow("a", cost=11)
    for wrong in ({"limit": 0, "per": 1}, {"limit": 1, "per": 0}, {"limit": 1, "per": -5}):
        with pytest.raises(ValueError):  # noqa: PT011
            ucache.RateLimiter(cache, "x", **wrong)
