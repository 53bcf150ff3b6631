"""ucache: a crash-safe cache in shared memory, inside uWSGI and outside.

Inside a uWSGI with the plugin, ``Cache(name)`` is one of the server's caches; elsewhere ``open`` or
``attach`` makes it one first. All processes share it, reads take no lock, and a process that is
killed at any moment blocks no other.

>>> import ucache
>>> cache = ucache.open("docs", items=1000)
>>> cache.get_or_set("answer", lambda: "42", ttl=60)
'42'
>>> cache.close()

Beside it: ``ucache.django.UCache``, ``ucache.cachelib.UCache``, ``ucache.flask.UCache`` (Flask-
Caching), ``ucache.dogpile``, ``ucache.cachetools``, and ``ucache.uwsgi``, a stand-in for uWSGI's
module in tests.
"""

from __future__ import annotations

from . import _ucache
from .cache import KEEP, Cache, Keys, RemoteCache, attach, open
from .errors import (
    BackendError,
    Damaged,
    Deadlock,
    Error,
    Full,
    InternalError,
    InvalidDefinition,
    InvalidKey,
    InvalidValue,
    LockLost,
    NameInUse,
    NoSuchCache,
    NotANumber,
    NotOwner,
    NotSupported,
    StoreError,
    SystemFailure,
    Timeout,
)
from .locks import Lock, RateLimiter
from .serializers import Json, Pickle, Serializer

__all__ = [
    "KEEP",
    "BackendError",
    "Cache",
    "Damaged",
    "Deadlock",
    "Error",
    "Full",
    "InternalError",
    "InvalidDefinition",
    "InvalidKey",
    "InvalidValue",
    "Json",
    "Keys",
    "Lock",
    "LockLost",
    "NameInUse",
    "NoSuchCache",
    "NotANumber",
    "NotOwner",
    "NotSupported",
    "Pickle",
    "RateLimiter",
    "RemoteCache",
    "Serializer",
    "StoreError",
    "SystemFailure",
    "Timeout",
    "attach",
    "open",
]

#: The version of the library in use: uWSGI's plugin, or the one in this package.
__version__: str = _ucache.library()[0]
