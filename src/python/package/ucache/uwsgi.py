"""A stand-in for the cache functions of uWSGI's module ``uwsgi``, for tests and programs that run
without uWSGI.

    from ucache import uwsgi
    uwsgi.configure("name=mycache,items=100")
    uwsgi.install()  # import uwsgi finds it from here on

The functions answer as uWSGI's do. ``configure`` takes what ``cache2`` takes; calls without a name
use the first cache. The pytest fixture ``uwsgi`` does all this for one test."""

from __future__ import annotations

import operator
import sys
import time
from typing import Any

from . import _ucache
from .cache import Cache, RemoteCache
from .errors import Error, NameInUse

#: As uWSGI's module has it.
version = b"2.0 (ucache)"
opt: dict[str, bytes] = {}

_caches: dict[str, Cache] = {}
#: The longest time that a cache takes, seconds.
_LONGEST = 1 << 40


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


def _data(value: Any) -> bytes:
    """A key or value, of which uWSGI takes ``str`` and ``bytes`` only."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise TypeError(f"a read-only bytes-like object is required, not {type(value).__name__!r}")


def _long(value: Any) -> int:
    """A C ``long``."""
    number = operator.index(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise OverflowError("Python int too large to convert to C long")
    return number


def _time(expires: Any) -> tuple[int, bool]:
    """Seconds, and whether they end at once. For uWSGI a time has no sign: a small negative one is
    so large that the sum with the present is a time that has passed."""
    seconds = _long(expires)
    if seconds < 0:
        return 0, seconds >= -int(time.time())
    return min(seconds, _LONGEST), False


def _find(name: Any) -> Cache | None:
    if not isinstance(name, str):
        raise TypeError(f"the name of a cache must be str, not {type(name).__name__}")
    if "\0" in name:
        raise ValueError("embedded null character")
    if not name:
        return next(iter(_caches.values()), None)
    return RemoteCache(name, serializer="bytes") if "@" in name else _caches.get(name)


def cache_get(key: Any, cache: Any = "", /) -> bytes | None:
    key, found = _data(key), _find(cache)
    try:
        value: bytes | None = found.get(key) if found is not None else None
    except Error:
        return None
    return value


def cache_exists(key: Any, cache: Any = "", /) -> bool | None:
    key, found = _data(key), _find(cache)
    try:
        return True if found is not None and key in found else None
    except Error:
        return None


def _store(replace: bool, key: Any, value: Any, expires: Any, cache: Any) -> bool | None:
    key, value = _data(key), _data(value)
    (seconds, at_once), found = _time(expires), _find(cache)
    try:
        if found is None:
            return None
        if isinstance(found, RemoteCache):
            stored = _ucache.remote_set(found.name, key, value, seconds, replace)
        elif replace:
            found.update(key, value, ttl=seconds)
            stored = True
        else:
            stored = found.set(key, value, timeout=seconds)
        if stored and at_once:
            found.delete(key)
        return stored or None
    except Error:
        return None


def cache_set(key: Any, value: Any, expires: Any = 0, cache: Any = "", /) -> bool | None:
    return _store(False, key, value, expires, cache)


def cache_update(key: Any, value: Any, expires: Any = 0, cache: Any = "", /) -> bool | None:
    return _store(True, key, value, expires, cache)


def cache_del(key: Any, cache: Any = "", /) -> bool | None:
    key, found = _data(key), _find(cache)
    try:
        return True if found is not None and found.delete(key) else None
    except Error:
        return None


def cache_clear(cache: Any = "", /) -> bool | None:
    found = _find(cache)
    if found is None:
        return None
    if isinstance(found, RemoteCache):
        return _ucache.remote_clear(found.name) or None
    found.clear()
    return True


def cache_keys(cache: Any = "", /) -> list[bytes]:
    found = _find(cache)
    if found is None or isinstance(found, RemoteCache):
        raise ValueError("no local uWSGI cache available")
    return [key.encode("utf-8", "surrogateescape") for key in found]


def cache_num(key: Any, cache: Any = "", /) -> int:
    key, found = _data(key), _find(cache)
    try:
        number: int = found.get(key, as_int=True) if found is not None else 0
    except Error:
        return 0
    return number


def _math(method: str, key: Any, operand: Any, expires: Any, cache: Any) -> bool | None:
    key, operand = _data(key), _long(operand)
    (seconds, at_once), found = _time(expires), _find(cache)
    if method == "decr" and operand == -(1 << 63):
        # Its negative is itself, in a long.
        method = "incr"
    try:
        if found is None:
            return None
        getattr(found, method)(key, operand, ttl=seconds)
        if at_once:
            found.delete(key)
    except Error:
        return None
    return True


def cache_inc(key: Any, delta: Any = 1, expires: Any = 0, cache: Any = "", /) -> bool | None:
    return _math("incr", key, delta, expires, cache)


def cache_dec(key: Any, delta: Any = 1, expires: Any = 0, cache: Any = "", /) -> bool | None:
    return _math("decr", key, delta, expires, cache)


def cache_mul(key: Any, value: Any = 2, expires: Any = 0, cache: Any = "", /) -> bool | None:
    return _math("mul", key, value, expires, cache)


def cache_div(key: Any, value: Any = 2, expires: Any = 0, cache: Any = "", /) -> bool | None:
    return _math("div", key, value, expires, cache)
