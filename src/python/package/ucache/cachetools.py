"""A cache as the mapping that the decorators of cachetools take.

    from cachetools import cached
    from ucache.cachetools import UCache

    @cached(UCache("pages", prefix="report:", ttl=60))
    def report(year): ...

The cache is one of uWSGI's, or was opened with ``ucache.open``: all processes share the results. A
function that takes long had better use :meth:`ucache.Cache.memoize`, where one caller of all
computes; ``cached(..., lock=ucache.Lock(...))`` lets one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, MutableMapping
from typing import Any

from .cache import Cache, _Ttl
from .errors import Full
from .memo import LONGEST_KEY, PLAIN
from .serializers import Choice

_MISSING = object()


def _shown(key: object) -> str:
    """A key, or a part of one, as text. cachetools puts classes into keys: between positional and
    named arguments, and for typed keys."""
    if type(key) in PLAIN:
        return repr(key)
    if isinstance(key, (tuple, list)):
        return f"({','.join(map(_shown, key))})"
    if isinstance(key, type):
        return f"<{key.__module__}.{key.__qualname__}>"
    raise TypeError(
        f"an object of type {type(key).__name__} cannot be part of a key: use cached(key=...) with "
        "a function that makes a str of the arguments"
    )


class UCache(MutableMapping[Any, Any]):
    """See the module. A key is a str, or what cachetools' key functions make of arguments: str,
    bytes, numbers, None, classes, and tuples and lists of them. Iteration gives their texts, which
    are keys, too.

    :param cache: a name, or a Cache, whose serializer and ttl then count.
    :param prefix: what all keys begin with. Functions that share a cache need different ones;
        ``clear`` removes, ``len`` counts and iteration gives the keys with this prefix only.
    :param ttl: seconds or a timedelta; None = 300, 0 = for ever.
    :param serializer: by default results are pickled.

    A result for which there is no room is a ValueError, which cachetools takes for "not kept".

    >>> import ucache, ucache.cachetools
    >>> cache = ucache.open("cachetools example", items=100)
    >>> kept = ucache.cachetools.UCache("cachetools example", prefix="square:")
    >>> kept[3] = {"square": 9}
    >>> kept[3], (3, 4) in kept, len(kept), list(kept)
    ({'square': 9}, False, 1, ['3'])
    >>> cache.close()
    """

    def __init__(
        self,
        cache: str | Cache,
        *,
        prefix: str = "",
        ttl: _Ttl = None,
        serializer: Choice = "pickle",
    ) -> None:
        if not isinstance(cache, Cache):
            cache = Cache(cache, timeout=ttl, serializer=serializer)
        self.cache = cache
        self.prefix = prefix

    def _key(self, key: Any) -> str:
        text = key if isinstance(key, str) else _shown(key)
        if len(text) > LONGEST_KEY:
            text = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        return self.prefix + text

    def __getitem__(self, key: Any) -> Any:
        value = self.cache.get(self._key(key), default=_MISSING)
        if value is _MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        try:
            self.cache.update(self._key(key), value)
        except Full as error:
            raise ValueError(str(error)) from error

    def __delitem__(self, key: Any) -> None:
        if not self.cache.delete(self._key(key)):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return self._key(key) in self.cache

    def __iter__(self) -> Iterator[str]:
        at = len(self.prefix)
        return iter([key[at:] for key in self.cache.keys(self.prefix)])

    def __len__(self) -> int:
        return len(self.cache.keys(self.prefix))

    def clear(self) -> None:
        """Removes the keys with the prefix."""
        self.cache.delete_many(self.cache.keys(self.prefix))

    def __repr__(self) -> str:
        return f"<ucache.cachetools.UCache {self.cache.name!r} {self.prefix!r}>"
