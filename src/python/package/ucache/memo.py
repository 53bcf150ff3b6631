"""Functions whose results are kept in a cache."""

from __future__ import annotations

import functools
import hashlib
import inspect
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from .cache import Cache

#: Longer keys are replaced by a digest.
LONGEST_KEY = 200

PLAIN = (str, bytes, int, float, bool, type(None))


def _shown(argument: object) -> str:
    """An argument as part of a key; equal texts mean equal arguments."""
    if type(argument) in PLAIN:
        return repr(argument)
    if type(argument) in (tuple, list):
        return f"{type(argument).__name__}({','.join(map(_shown, argument))})"  # type: ignore[call-overload]
    raise TypeError(
        f"an argument of type {type(argument).__name__} cannot be part of a key: use "
        "memoize(key=...) with a function that makes the key of the arguments"
    )


def key_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    shown = [_shown(argument) for argument in args]
    shown += [f"{name}={_shown(argument)}" for name, argument in sorted(kwargs.items())]
    key = f"{name}({','.join(shown)})"
    if len(key) <= LONGEST_KEY:
        return key
    return f"{name[:80]}:{hashlib.sha256(key.encode()).hexdigest()}"


def memoize(
    cache: Cache, ttl: Any, stale: Any, limit: float, key: Callable[..., str] | None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        name = f"{function.__module__}.{function.__qualname__}"

        def cache_key(*args: Any, **kwargs: Any) -> str:
            return key(*args, **kwargs) if key else key_of(name, args, kwargs)

        def forget(*args: Any, **kwargs: Any) -> bool:
            return cache.delete(cache_key(*args, **kwargs))

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            where = cache_key(*args, **kwargs)
            return cache.get_or_set(
                where, lambda: function(*args, **kwargs), ttl, stale, limit=limit
            )

        @functools.wraps(function)
        async def acall(*args: Any, **kwargs: Any) -> Any:
            where = cache_key(*args, **kwargs)
            return await cache.aget_or_set(
                where, lambda: function(*args, **kwargs), ttl, stale, limit=limit
            )

        wrapper: Any = acall if inspect.iscoroutinefunction(function) else call
        wrapper.cache_key, wrapper.forget = cache_key, forget
        return wrapper  # type: ignore[no-any-return]

    return decorate
