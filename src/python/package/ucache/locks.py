"""A lock and a rate limiter that all processes share."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Union

from .errors import LockLost
from .filling import LONGEST, SHORTEST, _gevent_sleep

if TYPE_CHECKING:
    from .cache import Cache

_Seconds = Union[float, timedelta]


class Lock:
    """A lock with a name, for all threads and processes that use the cache.

    It ends after ``ttl`` seconds even if its owner does not release it, because the owner may have
    died: choose more than the work takes, or call ``extend``. A child forked while the lock is held
    does not own it. Not reentrant.

    >>> import ucache
    >>> cache = ucache.open("lock example", items=10)
    >>> with ucache.Lock(cache, "nightly", ttl=60):
    ...     "nightly" in cache
    True
    >>> cache.close()
    """

    def __init__(self, cache: Cache, name: str, *, ttl: _Seconds = 30) -> None:
        self.cache, self.name = cache, name
        self.ttl = cache._seconds(ttl)
        if self.ttl == 0:
            raise ValueError("a lock without an end would stay for ever if its owner dies")
        self._token: str | None = None
        self._owner = 0

    def _try(self) -> bool:
        token = secrets.token_hex(16)
        if not self.cache.add(self.name, token, ttl=self.ttl):
            return False
        self._token, self._owner = token, os.getpid()
        return True

    def _mine(self) -> str | None:
        return self._token if self._owner == os.getpid() else None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Takes the lock; waits for it, for ``timeout`` seconds at most (-1 = any time). Returns
        whether it was taken."""
        deadline = None if timeout < 0 else time.monotonic() + timeout
        pause = SHORTEST
        while not self._try():
            if not blocking or (deadline is not None and time.monotonic() >= deadline):
                return False
            pause = min(pause * 1.5, LONGEST)
            (_gevent_sleep() or time.sleep)(pause)
        return True

    async def aacquire(self, timeout: float = -1) -> bool:
        """:meth:`acquire` for asyncio."""
        deadline = None if timeout < 0 else time.monotonic() + timeout
        pause = SHORTEST
        while not await self.cache._away(self._try):
            if deadline is not None and time.monotonic() >= deadline:
                return False
            pause = min(pause * 1.5, LONGEST)
            await asyncio.sleep(pause)
        return True

    def release(self) -> None:
        """Releases the lock. LockLost: it was not held (any more), perhaps by another owner."""
        token = self._mine()
        self._token = None
        if token is None or not self.cache._delete_if(self.name, token):
            raise LockLost(f"the lock {self.name!r} is not held by this owner")

    def extend(self, ttl: _Seconds | None = None) -> bool:
        """Gives the lock another ``ttl`` seconds from now; False: it is not held any more."""
        token = self._mine()
        if token is None:
            return False
        return self.cache.cas(self.name, token, token, ttl=self.ttl if ttl is None else ttl)

    def locked(self) -> bool:
        """Whether anybody holds the lock."""
        return self.name in self.cache

    def _leave(self) -> None:
        # A child that was forked inside the block leaves it, too, and owns nothing.
        if self._token is not None and self._mine() is None:
            return
        self.release()

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    async def __aenter__(self) -> Lock:
        await self.aacquire()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.cache._away(self._leave)


class RateLimiter:
    """At most ``limit`` calls in ``per`` seconds for each caller, counted for all processes.

    The window slides: of the calls in the previous period those count in part that are younger than
    ``per`` seconds, as if they had been spread evenly. Refused calls do not count.

    >>> import ucache
    >>> cache = ucache.open("limiter example", items=100)
    >>> limiter = ucache.RateLimiter(cache, "login", limit=2, per=3600)
    >>> [limiter.allow("10.0.0.1") for _ in range(3)]
    [True, True, False]
    >>> cache.close()
    """

    def __init__(self, cache: Cache, name: str, *, limit: int, per: _Seconds) -> None:
        self.cache, self.name, self.limit = cache, name, limit
        self.per = cache._seconds(per)
        if self.per == 0 or limit < 1:
            raise ValueError("a limit is at least 1 call in at least 1 second")

    def _keys(self, who: object, now: float) -> tuple[str, str, float]:
        """The counters of this period and the one before, and the weight of the latter."""
        period = int(now // self.per)
        key = f"{self.name}:{who}:"
        return f"{key}{period}", f"{key}{period - 1}", 1 - now % self.per / self.per

    def allow(self, who: object = "", cost: int = 1) -> bool:
        """Counts a call of ``who``; returns whether it is within the limit."""
        this, before, weight = self._keys(who, time.time())
        earlier: int = self.cache.number(before, 0)
        if self.cache.incr(this, cost, ttl=2 * self.per) + earlier * weight <= self.limit:
            return True
        self.cache.decr(this, cost, ttl=2 * self.per)
        return False

    def remaining(self, who: object = "") -> int:
        """How many calls of ``who`` are within the limit now."""
        this, before, weight = self._keys(who, time.time())
        counted = self.cache.number(this, 0) + self.cache.number(before, 0) * weight
        return max(0, int(self.limit - counted))
