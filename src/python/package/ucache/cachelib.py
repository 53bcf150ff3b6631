"""A cache of cachelib, as Werkzeug and Flask-Session use it.

    from ucache.cachelib import UCache
    cache = UCache("sessions")

The cache is one of uWSGI's, or was opened with ``ucache.open``. Values are pickled, as by the other
caches of cachelib, unless ``serializer`` says otherwise."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, Union

from cachelib.base import BaseCache

from .cache import Cache
from .errors import Full, InvalidValue
from .serializers import Choice

_Timeout = Union[int, timedelta, None]
_UNSTORED = (Full, InvalidValue)


class UCache(BaseCache):
    """See the module. ``default_timeout``: seconds, 0 = for ever."""

    def __init__(
        self,
        name: str,
        default_timeout: int = 300,
        *,
        serializer: Choice = "pickle",
        **options: Any,
    ) -> None:
        super().__init__(default_timeout, **options)
        self._cache = Cache(name, timeout=default_timeout, serializer=serializer)

    def _ttl(self, timeout: Any) -> int | None:
        """Seconds; 0 = never, None = expired at once."""
        timeout = self.default_timeout if timeout is None else timeout
        if isinstance(timeout, timedelta):
            timeout = timeout.total_seconds()
        return math.ceil(timeout) if timeout >= 0 else None

    def get(self, key: str) -> Any:
        return self._cache.get(key)

    def get_many(self, *keys: str) -> list[Any]:
        found = self._cache.get_many(keys)
        return [found.get(key) for key in keys]

    def get_dict(self, *keys: str) -> dict[str, Any]:
        found = self._cache.get_many(keys)
        return {key: found.get(key) for key in keys}

    def set(self, key: str, value: Any, timeout: _Timeout = None) -> bool | None:
        ttl = self._ttl(timeout)
        if ttl is None:
            self._cache.delete(key)
            return True
        try:
            self._cache.update(key, value, ttl=ttl)
        except _UNSTORED:
            self._cache.delete(key)
            return False
        return True

    def add(self, key: str, value: Any, timeout: _Timeout = None) -> bool:
        ttl = self._ttl(timeout)
        try:
            return ttl is not None and self._cache.add(key, value, ttl=ttl)
        except _UNSTORED:
            return False

    def set_many(self, mapping: dict[str, Any], timeout: _Timeout = None) -> list[Any]:
        return [key for key, value in mapping.items() if self.set(key, value, timeout)]

    def delete(self, key: str) -> bool:
        return self._cache.delete(key)

    def delete_many(self, *keys: str) -> list[Any]:
        return [key for key in keys if self._cache.delete(key)]

    def has(self, key: str) -> bool:
        return key in self._cache

    def clear(self) -> bool:
        self._cache.clear()
        return True

    def inc(self, key: str, delta: int = 1) -> int | None:
        return self._cache.incr(key, delta)

    def dec(self, key: str, delta: int = 1) -> int | None:
        return self._cache.decr(key, delta)
