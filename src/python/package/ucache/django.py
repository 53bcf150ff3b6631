"""A cache backend for Django.

    CACHES = {
        "default": {
            "BACKEND": "ucache.django.UCache",
            "LOCATION": "pages",
            "OPTIONS": {"items": 10_000, "store": "/run/app/pages"},
        }
    }

LOCATION is the name of a cache. Inside uWSGI it is one of the server's, and the OPTIONS of
``ucache.open`` are not needed; outside, the OPTIONS open it. Values are pickled, as in Django's
own backends; ``OPTIONS["serializer"]`` chooses another way. Values that are too long, or for which
there is no room, are not stored, as in Django's memcached backends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from django.core.cache.backends.base import (  # type: ignore[import-untyped]
    DEFAULT_TIMEOUT,
    BaseCache,
)

from .cache import Cache, open
from .errors import Full, InvalidValue, NoSuchCache, NotANumber

_UNSTORED = (Full, InvalidValue)


class UCache(BaseCache):  # type: ignore[misc]
    """See the module."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        options = dict(params.get("OPTIONS", {}))
        options.pop("MAX_ENTRIES", None)
        options.pop("CULL_FREQUENCY", None)
        serializer = options.pop("serializer", "pickle")
        self._cache = Cache(location, serializer=serializer)
        if options:
            try:
                self._cache.stats()
            except NoSuchCache:
                open(location, **options)

    def _ttl(self, timeout: Any) -> int | None:
        """Seconds; 0 = never, None = expired at once."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None:
            return 0
        return math.ceil(timeout) if timeout > 0 else None

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> bool:
        key, ttl = self.make_and_validate_key(key, version), self._ttl(timeout)
        if ttl is None:
            return key not in self._cache
        try:
            return self._cache.add(key, value, ttl=ttl)
        except _UNSTORED:
            return False

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return self._cache.get(self.make_and_validate_key(key, version), default=default)

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> None:
        key, ttl = self.make_and_validate_key(key, version), self._ttl(timeout)
        if ttl is None:
            self._cache.delete(key)
            return
        try:
            self._cache.update(key, value, ttl=ttl)
        except _UNSTORED:
            self._cache.delete(key)

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        key, ttl = self.make_and_validate_key(key, version), self._ttl(timeout)
        return self._cache.delete(key) if ttl is None else self._cache.touch(key, ttl)

    def delete(self, key: Any, version: Any = None) -> bool:
        return self._cache.delete(self.make_and_validate_key(key, version))

    def has_key(self, key: Any, version: Any = None) -> bool:
        return self.make_and_validate_key(key, version) in self._cache

    def incr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        where = self.make_and_validate_key(key, version)
        # Not Cache.incr: it would make a key that is missing.
        while True:
            try:
                number = self._cache.number(where, self)
            except NotANumber:
                number = self._cache.get(where, default=self)
            if number is self:
                raise ValueError(f"Key '{key}' not found")
            if self._cache.cas(where, number, number + delta):
                return number + delta  # type: ignore[no-any-return]

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        names = {self.make_and_validate_key(key, version): key for key in keys}
        return {names[key]: value for key, value in self._cache.get_many(names).items()}

    def set_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[Any]:
        names = {self.make_and_validate_key(key, version): key for key in data}
        ttl = self._ttl(timeout)
        if ttl is None:
            self._cache.delete_many(names)
            return []
        values = {name: data[key] for name, key in names.items()}
        try:
            refused = self._cache.set_many(values, ttl=ttl)
        except InvalidValue:
            refused = [name for name, value in values.items() if not self._store(name, value, ttl)]
        self._cache.delete_many(refused)
        return [names[name] for name in refused]

    def _store(self, name: str, value: Any, ttl: int) -> bool:
        try:
            self._cache.update(name, value, ttl=ttl)
        except _UNSTORED:
            return False
        return True

    def delete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        self._cache.delete_many([self.make_and_validate_key(key, version) for key in keys])

    def clear(self) -> bool:
        self._cache.clear()
        return True
