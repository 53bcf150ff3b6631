"""How values become bytes. By default a cache stores only str, bytes and numbers (as text); nothing
is unpickled unless a cache is made with ``serializer="pickle"``."""

from __future__ import annotations

import json
import pickle
from typing import Any, Protocol, Union


class Serializer(Protocol):
    """An object that makes bytes of a value, and the value of the bytes. It may have an attribute
    ``numbers``: if it is true, ints of 64 bits are stored as numbers that ``incr`` can change, and
    ``loads`` must ignore a newline behind its own output."""

    def dumps(self, value: Any, /) -> bytes: ...

    def loads(self, data: bytes, /) -> Any: ...


class Json:
    """Values of JSON, in the shortest form."""

    numbers = True

    def dumps(self, value: Any, /) -> bytes:
        return json.dumps(value, separators=(",", ":")).encode()

    def loads(self, data: bytes, /) -> Any:
        return json.loads(data)


class Pickle:
    """Any object that pickle knows. Whoever can write to the cache can run code in its readers."""

    numbers = True

    def __init__(self, protocol: int = pickle.DEFAULT_PROTOCOL) -> None:
        self.protocol = protocol

    def dumps(self, value: Any, /) -> bytes:
        return pickle.dumps(value, self.protocol)

    def loads(self, data: bytes, /) -> Any:
        return pickle.loads(data)


Choice = Union[str, Serializer]


def functions(choice: Choice) -> tuple[object, object, bool]:
    """What ``Core._setup`` takes: ``dumps`` (None = text, False = bytes), ``loads``, numbers."""
    if choice == "text":
        return None, None, False
    if choice == "bytes":
        return False, None, False
    if choice == "json":
        choice = Json()
    elif choice == "pickle":
        choice = Pickle()
    dumps, loads = getattr(choice, "dumps", None), getattr(choice, "loads", None)
    if not callable(dumps) or not callable(loads):
        raise TypeError(
            "a serializer is 'text', 'bytes', 'json', 'pickle' or an object with dumps and loads, "
            f"not {choice!r}"
        )
    return dumps, loads, bool(getattr(choice, "numbers", False))
