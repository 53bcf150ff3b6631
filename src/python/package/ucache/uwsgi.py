"""A stand-in for the cache functions of uWSGI's module ``uwsgi``, for tests and programs that run
without uWSGI.

    from ucache import uwsgi
    uwsgi.configure("name=mycache,items=100")
    uwsgi.install()  # import uwsgi finds it from here on

The functions answer as uWSGI's do. ``configure`` takes what ``cache2`` takes; calls without a name
use the first cache. The pytest fixture ``uwsgi`` does all this for one test."""

from __future__ import annotations

import sys
from typing import Any

from . import _ucache
from .cache import Cache
from .errors import Error, NameInUse

#: As uWSGI's module has it.
version = b"2.0 (ucache)"
opt: dict[str, bytes] = {}

_caches: dict[str, Cache] = {}


def configure(definition: str) -> None:
    """Creates a cache from the text of ``cache2``, such as ``name=mycache,items=100``."""
    names = [part[5:] for part in definition.split(",") if part.startswith("name=")]
    if not names:
        raise ValueError(f"{definition!r} has no name=")
    if not _ucache.open(names[-1], definition):
        raise NameInUse(f"a cache {names[-1]!r} is open in this process")
    _caches[names[-1]] = Cache(names[-1], timeout=0, serializer="bytes")


def install() -> None:
    """Makes ``import uwsgi`` find this module, unless the process is a uWSGI."""
    if not _ucache.is_uwsgi():
        sys.modules["uwsgi"] = sys.modules[__name__]


def uninstall() -> None:
    """Closes the caches and takes :func:`install` back."""
    for cache in _caches.values():
        cache.close()
    _caches.clear()
    if sys.modules.get("uwsgi") is sys.modules[__name__]:
        del sys.modules["uwsgi"]


def _find(name: Any) -> Cache | None:
    if name is None or name in ("", b""):
        return next(iter(_caches.values()), None)
    name = name.decode() if isinstance(name, bytes) else name
    return Cache(name, serializer="bytes") if "@" in name else _caches.get(name)


def cache_get(key: Any, cache: Any = None) -> bytes | None:
    found = _find(cache)
    value: bytes | None = found.get(key) if found is not None else None
    return value


def cache_exists(key: Any, cache: Any = None) -> bool | None:
    found = _find(cache)
    return True if found is not None and key in found else None


def _store(replace: bool, key: Any, value: Any, expires: int, cache: Any) -> bool | None:
    found = _find(cache)
    try:
        if found is None:
            return None
        if replace:
            found.update(key, value, ttl=expires)
            return True
        return found.set(key, value, timeout=expires) or None
    except Error:
        return None


def cache_set(key: Any, value: Any, expires: int = 0, cache: Any = None) -> bool | None:
    return _store(False, key, value, expires, cache)


def cache_update(key: Any, value: Any, expires: int = 0, cache: Any = None) -> bool | None:
    return _store(True, key, value, expires, cache)


def cache_del(key: Any, cache: Any = None) -> bool | None:
    found = _find(cache)
    return True if found is not None and found.delete(key) else None


def cache_clear(cache: Any = None) -> bool | None:
    found = _find(cache)
    if found is None:
        return None
    found.clear()
    return True


def cache_keys(cache: Any = None) -> list[bytes]:
    found = _find(cache)
    if found is None:
        raise ValueError("no local uWSGI cache available")
    return [key.encode("utf-8", "surrogateescape") for key in found]


def cache_num(key: Any, cache: Any = None) -> int:
    found = _find(cache)
    number: int = found.get(key, as_int=True) if found is not None else 0
    return number


def _math(method: str, key: Any, operand: int, expires: int, cache: Any) -> bool | None:
    found = _find(cache)
    try:
        if found is None:
            return None
        getattr(found, method)(key, operand, ttl=expires)
    except Error:
        return None
    return True


def cache_inc(key: Any, delta: int = 1, expires: int = 0, cache: Any = None) -> bool | None:
    return _math("incr", key, delta, expires, cache)


def cache_dec(key: Any, delta: int = 1, expires: int = 0, cache: Any = None) -> bool | None:
    return _math("decr", key, delta, expires, cache)


def cache_mul(key: Any, value: int = 2, expires: int = 0, cache: Any = None) -> bool | None:
    return _math("mul", key, value, expires, cache)


def cache_div(key: Any, value: int = 2, expires: int = 0, cache: Any = None) -> bool | None:
    return _math("div", key, value, expires, cache)
