"""The class Cache, and how caches are opened."""

from __future__ import annotations

import asyncio
import atexit
import enum
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import timedelta
from typing import Any, Callable, TypeVar, Union, overload

from . import _ucache, filling, memo, serializers
from ._ucache import Core, Lease
from .errors import BY_STATUS, NameInUse, NotSupported

_Key = Union[str, bytes, bytearray, memoryview]
_Ttl = Union[float, timedelta, None]
_Function = TypeVar("_Function", bound=Callable[..., Any])
_T = TypeVar("_T")

#: Items that are read at once by a walk.
_BATCH = 200


class _Keep(enum.Enum):
    KEEP = "KEEP"

    def __repr__(self) -> str:
        return "ucache.KEEP"


#: As ``ttl``: an existing key keeps its time to live.
KEEP = _Keep.KEEP

# What the native part looks up on the class: exceptions, sentinels.
Core._errors = BY_STATUS
Core._keep = KEEP
Core._busy = filling.BUSY
Core._Lease = Lease
_ucache._errors = BY_STATUS


class Keys(Sequence[str]):
    """The keys of a cache: a sequence, which is read when it is first used. Called with a prefix,
    it returns a list of the keys that begin with it."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._read: list[str] | None = None

    def __call__(self, prefix: _Key = "") -> list[str]:
        return self._cache._keys(prefix)

    @property
    def _list(self) -> list[str]:
        if self._read is None:
            self._read = self._cache._keys("")
        return self._read

    def __len__(self) -> int:
        return len(self._list)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self._list[index]

    def __eq__(self, other: object) -> bool:
        return self._list == (other._list if isinstance(other, Keys) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._list)


class Cache(Core):
    """A cache, by its name: one of uWSGI's (``cache2 = name=...``), one that this process opened
    with :func:`ucache.open` or :func:`ucache.attach`, or with ``name@host:port`` one of another
    server.

    It replaces ``uwsgiconf.runtime.caching.Cache``: the methods that both have mean the same. So
    ``set`` and ``cache[key] = value`` keep an existing value, and ``cache[key]`` is None for a
    missing key. Everything else that stores replaces; :attr:`mapping` is the same cache as a dict.

    :param timeout: seconds for which values are kept; None = 300, 0 = for ever.
    :param serializer: ``"text"`` (the default: str, bytes and numbers are stored, str is read),
        ``"bytes"`` (the same, bytes are read), ``"json"``, ``"pickle"``, or an object with
        ``dumps`` and ``loads``.

    The first call that uses the cache looks it up, and raises NoSuchCache if there is none.
    Objects may be used by all threads and by children of a fork. A time to live is kept to the
    millisecond; of other times, such as ``timeout``, part of a second counts as one.

    >>> import ucache
    >>> cache = ucache.open("cache example", items=100)
    >>> cache.update("greeting", "hello", ttl=60)
    >>> cache.get("greeting"), cache.get("missing"), "greeting" in cache
    ('hello', None, True)
    >>> cache.incr("visits"), cache.incr("visits", 10)
    (1, 11)
    >>> cache.get_or_set("page", lambda: "<h1>computed once</h1>", ttl=60)
    '<h1>computed once</h1>'
    >>> sorted(cache.keys("p"))
    ['page']
    >>> cache.close()
    """

    def __new__(cls, name: str, *_: Any, **__: Any) -> Cache:
        # A store that is attached by its path may have an @ in it.
        remote = cls is Cache and "@" in name and name not in _ucache.opened()
        return super().__new__(RemoteCache if remote else cls)

    def __init__(
        self, name: str, *, timeout: _Ttl = None, serializer: serializers.Choice = "text"
    ) -> None:
        dumps, loads, numbers = serializers.functions(serializer)
        self._serializer = serializer
        self._setup(name, 300 if timeout is None else timeout, dumps, loads, numbers)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _again, (type(self), self.name, self.timeout, self._serializer)

    def __repr__(self) -> str:
        return f"<ucache.{type(self).__name__} {self.name!r}>"

    @property
    def name(self) -> str:
        """The name of the cache."""
        return self._name()

    @property
    def timeout(self) -> int:
        """Seconds for which values are kept if a call says nothing else; 0 = for ever."""
        return self._timeout()

    @property
    def keys(self) -> Keys:
        """The keys: ``cache.keys`` is a sequence, ``cache.keys("user:")`` a list of those with a
        prefix. Keys that are no UTF-8 have lone surrogates, as file names do."""
        return Keys(self)

    def items(self, prefix: _Key = "") -> Iterator[tuple[str, Any]]:
        """Keys and values, of those with a prefix. The cache may change meanwhile."""
        keys = self._keys(prefix)
        for at in range(0, len(keys), _BATCH):
            yield from self.get_many(keys[at : at + _BATCH]).items()

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys(""))

    def __len__(self) -> int:
        """The number of items; expired ones count until they are swept."""
        return self._stats()["items"]

    def __bool__(self) -> bool:
        return True

    @property
    def mapping(self) -> MutableMapping[str, Any]:
        """The cache as a ``MutableMapping``: a missing key is a KeyError, assignment replaces."""
        return _Mapping(self)

    def ttl(self, key: _Key) -> float | None:
        """Seconds until a key expires; ``math.inf`` = never, None = it is not stored."""
        left = self._left(key)
        if left is None:
            return None
        return left / 1000 if left else math.inf

    def get_or_set(
        self,
        key: _Key,
        callable: Callable[[], Any],
        ttl: _Ttl = None,
        stale: _Ttl = None,
        *,
        limit: float = 30,
    ) -> Any:
        """Returns the value of a key. If it is missing, ``callable`` computes it and it is stored
        for ``ttl`` seconds. Of all callers in all threads and processes one computes, the others
        wait for its value.

        If the caller that computes dies, or its callable raises (the exception is passed on), the
        next one computes. After ``limit`` seconds the others do not wait any longer.

        stale: seconds for which the value is kept after its ttl. During them one caller computes
        the new value, and all others get the old one at once. For other methods the key then lives
        for both times.

        The value that is returned has gone through the serializer, so all callers get the same. A
        value that cannot be stored (too long, no room) is returned, too. Deadlock: the callable
        asks for its own key.
        """
        return filling.get_or_set(self, key, callable, ttl, stale, limit)

    async def aget_or_set(
        self,
        key: _Key,
        callable: Callable[[], Any],
        ttl: _Ttl = None,
        stale: _Ttl = None,
        *,
        limit: float = 30,
    ) -> Any:
        """:meth:`get_or_set` for asyncio. The callable may be a coroutine function."""
        return await filling.aget_or_set(self, key, callable, ttl, stale, limit)

    def memoize(
        self,
        ttl: _Ttl = None,
        stale: _Ttl = None,
        *,
        limit: float = 30,
        key: Callable[..., str] | None = None,
    ) -> Callable[[_Function], _Function]:
        """A decorator: results of a function (or coroutine function) are kept, as by
        :meth:`get_or_set`. The key is made of the function's name and its arguments, which are str,
        bytes, numbers, None, or tuples and lists of them; ``key=`` makes it of others.

        The function gets two methods: ``forget(...)`` removes the result of these arguments,
        ``cache_key(...)`` is its key.
        """
        decorate: Any = memo.memoize(self, ttl, stale, limit, key)
        return decorate  # type: ignore[no-any-return]

    def stats(self) -> dict[str, int]:
        """The statistics: items, capacity, hits, misses, evicted and so on, the fields of ``struct
        ucache_stats``."""
        return self._stats()

    def memory(self) -> dict[str, int]:
        """What the memory is used for, in bytes: payload, resident, overhead, fragmentation, disk
        and so on, the fields of ``struct ucache_memory``. A large cache is sampled, which takes
        some milliseconds; ``sampled`` is 1 then."""
        return self._memory()

    @property
    def server(self) -> str | None:
        """The address of the server behind the cache (``backend=``), or None."""
        return self._server()

    def close(self) -> None:
        """Ends the use of a cache that this process opened. Its memory is freed with the last
        object that has used it; a store stays. One of uWSGI's is only forgotten."""
        _ucache.close(self.name)
        self._forget()

    async def _away(self, call: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Calls a method that waits only where the values are at a server: then in a thread."""
        if self._server() is None:
            return call(*args, **kwargs)
        return await asyncio.to_thread(call, *args, **kwargs)

    async def aget(self, key: _Key, **options: Any) -> Any:
        """``get`` for asyncio. It, and the methods below, run in a thread if there is a backend."""
        return await self._away(self.get, key, **options)

    async def aget_many(self, keys: Iterable[_Key]) -> dict[Any, Any]:
        return await self._away(self.get_many, keys)

    async def aset(self, key: _Key, value: Any, *, timeout: _Ttl = None) -> bool:
        return await self._away(self.set, key, value, timeout=timeout)

    async def aadd(self, key: _Key, value: Any, *, ttl: _Ttl = None) -> bool:
        return await self._away(self.add, key, value, ttl=ttl)

    async def aupdate(self, key: _Key, value: Any, *, ttl: _Ttl | _Keep = None) -> None:
        await self._away(self.update, key, value, ttl=ttl)

    async def aset_many(self, mapping: Mapping[Any, Any], *, ttl: _Ttl = None) -> list[Any]:
        return await self._away(self.set_many, mapping, ttl=ttl)

    async def adelete(self, key: _Key) -> bool:
        return await self._away(self.delete, key)

    async def adelete_many(self, keys: Iterable[_Key]) -> int:
        return await self._away(self.delete_many, keys)

    async def aincr(self, key: _Key, delta: int = 1, *, ttl: _Ttl = None) -> int:
        return await self._away(self.incr, key, delta, ttl=ttl)

    async def atake(self, key: _Key, default: Any = None) -> Any:
        return await self._away(self.take, key, default)

    async def atouch(self, key: _Key, ttl: _Ttl = None) -> bool:
        return await self._away(self.touch, key, ttl)


_ucache._own_methods(Cache)


def _again(cls: type[Cache], name: str, timeout: int, serializer: serializers.Choice) -> Cache:
    # The class is known: the name is not asked for it, as the store may not be attached yet.
    cache = Core.__new__(cls)
    cache.__init__(name, timeout=timeout, serializer=serializer)  # type: ignore[misc]
    return cache


class _Mapping(MutableMapping[str, Any]):
    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def __getitem__(self, key: str) -> Any:
        value = self._cache.get(key, default=self)
        if value is self:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self._cache.update(key, value)

    def __delitem__(self, key: str) -> None:
        if not self._cache.delete(key):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, (str, bytes)) and key in self._cache

    def __iter__(self) -> Iterator[str]:
        return iter(self._cache)

    def __len__(self) -> int:
        return len(self._cache._keys(""))

    def clear(self) -> None:
        self._cache.clear()


class RemoteCache(Cache):
    """A cache of another server, ``name@host:port`` or ``name@/path/of.socket``, by uWSGI's own
    protocol: get, set, update, delete, in, clear. Everything else is NotSupported. A server that
    cannot be reached is a miss."""

    def __getattribute__(self, name: str) -> Any:
        if name in _LOCAL_ONLY:
            raise NotSupported(f"{name} of a cache of another server; use a backend or the command")
        return super().__getattribute__(name)

    def get(
        self,
        key: _Key,
        *,
        default: Any = None,
        as_int: bool = False,
        setter: Callable[[Any], Any] | None = None,
        preserve_bytes: bool = False,
    ) -> Any:
        found = _ucache.remote_get(self.name, key)
        if as_int:
            return (
                int.from_bytes(found, _BYTE_ORDER, signed=True) if found and len(found) == 8 else 0
            )
        if found is not None:
            return found if preserve_bytes else self._decode(found)
        made = setter(key) if setter else None
        if made is None:
            return default
        self.set(key, made)
        return made

    def __getitem__(self, key: _Key) -> Any:
        return self.get(key)

    def __contains__(self, key: _Key) -> bool:
        return _ucache.remote_exists(self.name, key)

    def set(self, key: _Key, value: Any, *, timeout: _Ttl = None) -> bool:
        return _ucache.remote_set(
            self.name, key, self._encode(value), self._seconds(timeout), False
        )

    def __setitem__(self, key: _Key, value: Any) -> None:
        self.set(key, value)

    def update(self, key: _Key, value: Any, *, ttl: _Ttl | _Keep = None) -> None:
        if isinstance(ttl, _Keep):
            raise NotSupported("ttl=KEEP of a cache of another server")
        _ucache.remote_set(self.name, key, self._encode(value), self._seconds(ttl), True)

    def delete(self, key: _Key) -> bool:
        return _ucache.remote_delete(self.name, key)

    def __delitem__(self, key: _Key) -> None:
        self.delete(key)

    def clear(self) -> None:
        _ucache.remote_clear(self.name)


_BYTE_ORDER = sys.byteorder
_LOCAL_ONLY = frozenset(
    """number take get_many add replace cas append prepend touch incr decr mul div set_many
    delete_many sweep sync keys items ttl get_or_set aget_or_set memoize stats memory
    server""".split()  # noqa: SIM905
)


def _definition(name: str, options: Mapping[str, object]) -> str:
    """The text of ``cache2`` for these options."""
    parts = []
    for option, value in {"name": name, **options}.items():
        if value is None or value is False:
            continue
        text = (
            "1" if value is True else os.fspath(value) if isinstance(value, os.PathLike) else value
        )
        text = str(text).replace("\\", "\\\\").replace(",", "\\,")
        parts.append(f"{option}={text}")
    return ",".join(parts)


def open(
    name: str,
    *,
    items: int = 1000,
    timeout: _Ttl = None,
    serializer: serializers.Choice = "text",
    **options: object,
) -> Cache:
    """Opens a cache that is in no uWSGI, under a name. ``Cache(name)`` then is the same cache.

    Without ``store`` it is in memory, for this process and the children it forks from here on. With
    ``store=path`` it is in a file that any number of processes can open, and stays.

    :param items: how many items it holds.
    :param options: the other options of uWSGI's ``cache2``: ``keysize``, ``blocksize``, ``store``,
        ``evict="lru"``, ``backend="redis://..."`` and so on; True is 1.

    NameInUse, InvalidDefinition, StoreError say what is wrong.

    >>> import ucache
    >>> pages = ucache.open("pages", items=500, evict="lru", blocksize="1m")
    >>> pages.stats()["capacity"]
    500
    >>> pages.close()
    """
    if items < 1:
        raise ValueError(f"items={items}: a cache holds at least 1")
    # As in uWSGI, a definition with items=N holds N-1.
    if not _ucache.open(name, _definition(name, {"items": items + 1, **options})):
        raise NameInUse(f"a cache {name!r} is open in this process: use ucache.Cache({name!r})")
    return Cache(name, timeout=timeout, serializer=serializer)


def attach(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    timeout: _Ttl = None,
    serializer: serializers.Choice = "text",
) -> Cache:
    """Opens an existing store with its own limits, for example that of a running uWSGI. ``name``
    is by default the path."""
    path = os.fspath(path)
    name = path if name is None else name
    if not _ucache.attach(name, path):
        raise NameInUse(f"a cache {name!r} is open in this process: use ucache.Cache({name!r})")
    return Cache(name, timeout=timeout, serializer=serializer)


@atexit.register
def _close_all() -> None:
    """A store that is not closed is checked by its next user."""
    for name in _ucache.opened():
        _ucache.close(name)
