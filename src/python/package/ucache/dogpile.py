"""A backend for dogpile.cache.

    from dogpile.cache import make_region
    region = make_region().configure("ucache", arguments={"name": "pages"})

Import this module once, so that the name is known. dogpile's own lock is one of the cache: one
caller of all processes computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dogpile.cache import register_backend
from dogpile.cache.api import NO_VALUE, BytesBackend, CacheMutex

from .cache import Cache
from .locks import Lock


class _Mutex(CacheMutex):
    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def acquire(self, wait: bool = True) -> bool:
        return self._lock.acquire(blocking=wait)

    def release(self) -> None:
        self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()


class UCacheBackend(BytesBackend):
    """Arguments: ``name``; ``expiration`` (seconds, 0 = for ever); ``lock_seconds``."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._cache = Cache(
            arguments["name"], timeout=arguments.get("expiration", 0), serializer="bytes"
        )
        self._lock_seconds = arguments.get("lock_seconds", 30)

    def get_mutex(self, key: str) -> CacheMutex:
        return _Mutex(Lock(self._cache, f"_lock:{key}", ttl=self._lock_seconds))

    def get_serialized(self, key: str) -> Any:
        return self._cache.get(key, default=NO_VALUE)

    def get_serialized_multi(self, keys: Iterable[str]) -> list[Any]:
        keys = list(keys)
        found = self._cache.get_many(keys)
        return [found.get(key, NO_VALUE) for key in keys]

    def set_serialized(self, key: str, value: bytes) -> None:
        self._cache.update(key, value)

    def set_serialized_multi(self, mapping: Mapping[str, bytes]) -> None:
        self._cache.set_many(mapping)

    def delete(self, key: str) -> None:
        self._cache.delete(key)

    def delete_multi(self, keys: Iterable[str]) -> None:
        self._cache.delete_many(keys)


register_backend("ucache", "ucache.dogpile", "UCacheBackend")  # type: ignore[no-untyped-call]
