"""One caller computes a missing value, the others wait: across threads, greenlets, tasks and
processes. The right to compute is a lease in the cache; see ``ucache_lease_begin`` in ucache.h."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable

from ._ucache import Lease
from .errors import Deadlock

if TYPE_CHECKING:
    from .cache import Cache

#: Stands for "another caller computes the value".
BUSY: object = object()
#: Milliseconds of one wait in the library; signals are handled between two.
SLICE = 100
#: Seconds between two looks of a greenlet or task.
SHORTEST, LONGEST = 0.001, 0.05

_Who = tuple[int, object, object]

#: Who computes which key of which cache in this process.
_computing: dict[tuple[str, bytes], _Who] = {}


def _greenlet() -> object:
    module = sys.modules.get("greenlet")
    return module.getcurrent() if module else None


def _task() -> object:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _who() -> _Who:
    return threading.get_ident(), _greenlet(), _task()


def _gevent_sleep() -> Callable[[float], object] | None:
    """gevent's sleep, if this thread runs its loop."""
    hub = sys.modules.get("gevent._hub_local")
    if hub is None or hub.get_hub_if_exists() is None:
        return None
    sleep: Callable[[float], object] = sys.modules["gevent"].sleep
    return sleep


class _Fill:
    """One call that has missed: its key, its times, how long it has waited."""

    def __init__(self, cache: Cache, key: Any, ttl: Any, stale: int, limit: int) -> None:
        self.cache, self.key = cache, key
        # Before the value is computed: a wrong time must not be noticed after.
        cache._seconds(ttl)
        self.ttl, self.stale, self.limit = ttl, stale, limit
        self.deadline: float | None = None
        self.pause = SHORTEST

    @property
    def ident(self) -> tuple[str, bytes]:
        key = self.key.encode("utf-8", "surrogateescape") if isinstance(self.key, str) else self.key
        return self.cache.name, bytes(key)

    def begin(self, wait: int) -> Any:
        return _begin(self.cache, self.key, self.stale, self.limit, wait)

    def is_late(self) -> bool:
        now = time.monotonic()
        if self.deadline is None:
            self.deadline = now + self.limit / 1000
        return now >= self.deadline

    def next_pause(self) -> float:
        self.pause = min(self.pause * 1.5, LONGEST)
        return self.pause


def _begin(cache: Cache, key: Any, stale: int, limit: int, wait: int) -> Any:
    """The value, a lease, or BUSY."""
    try:
        return cache._lease(key, stale, limit, wait)
    except Deadlock:
        # The library knows threads only; a greenlet or a task may wait for another one.
        return BUSY


def _times(cache: Cache, stale: Any, limit: float) -> tuple[int, int]:
    """stale in seconds, limit in milliseconds."""
    if not 0 < limit < 1e9:
        raise ValueError(f"a limit of {limit} seconds: it is positive")
    return cache._seconds(stale) if stale else 0, max(1, int(limit * 1000))


def _refuse(fill: _Fill, reason: str) -> Deadlock:
    return Deadlock(f"the value of {fill.key!r} is being computed by {reason}")


def get_or_set(
    cache: Cache, key: Any, make: Callable[[], Any], ttl: Any, stale_for: Any, within: float
) -> Any:
    stale, limit = _times(cache, stale_for, within)
    found = _begin(cache, key, stale, limit, 0)
    if found is not BUSY and type(found) is not Lease:
        return found
    fill = _Fill(cache, key, ttl, stale, limit)
    while True:
        if type(found) is Lease:
            ident = fill.ident
            _computing[ident] = _who()
            try:
                return cache._finish(found, make(), fill.ttl)
            finally:
                _computing.pop(ident, None)
                found.drop()
        if found is not BUSY:
            return found
        sleep = _gevent_sleep()
        holder, me = _computing.get(fill.ident), _who()
        if holder == me:
            raise _refuse(fill, "this caller itself")
        if holder is not None and holder[0] == me[0] and (sleep is None or holder[1] is me[1]):
            raise _refuse(fill, "another task of this thread: use aget_or_set")
        if fill.is_late():
            return cache._decode(cache._encode(make()))
        if sleep:
            sleep(fill.next_pause())
        found = fill.begin(0 if sleep else SLICE)


async def aget_or_set(
    cache: Cache, key: Any, make: Callable[[], Any], ttl: Any, stale_for: Any, within: float
) -> Any:
    stale, limit = _times(cache, stale_for, within)
    fill = _Fill(cache, key, ttl, stale, limit)

    async def value() -> Any:
        made = make()
        return await made if inspect.isawaitable(made) else made

    while True:
        found = await cache._away(fill.begin, 0)
        if type(found) is Lease:
            ident = fill.ident
            _computing[ident] = _who()
            try:
                return await cache._away(cache._finish, found, await value(), fill.ttl)
            finally:
                _computing.pop(ident, None)
                found.drop()
        if found is not BUSY:
            return found
        if _computing.get(fill.ident) == _who():
            raise _refuse(fill, "this task itself")
        if fill.is_late():
            return cache._decode(cache._encode(await value()))
        await asyncio.sleep(fill.next_pause())
