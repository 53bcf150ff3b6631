"""Exceptions. Each is also one of the built-in exceptions that fits, so that code which knows
nothing of ucache can catch it."""

from __future__ import annotations


class Error(Exception):
    """Any error of a cache."""


class InvalidDefinition(Error, ValueError):
    """An option of a cache that does not exist or has a wrong value."""


class NoSuchCache(Error, LookupError, ValueError):
    """No cache with this name in this process. The message says how to get one."""


class NameInUse(Error, ValueError):
    """This process has opened a cache with this name already."""


class InvalidKey(Error, ValueError):
    """A key that is empty or longer than the cache's limit."""


class InvalidValue(Error, ValueError):
    """A value that is empty or longer than the cache's limit."""


class NotANumber(Error, ValueError):
    """The stored value is no number that ``incr`` can change."""


class Full(Error, MemoryError):
    """The cache has no item, block or memory left, and does not evict."""


class Timeout(Error, TimeoutError):
    """A live process held a lock of the cache for longer than its ``lock_timeout``."""


class Deadlock(Error, RuntimeError):
    """The caller waits for a value that it computes itself."""


class StoreError(Error, OSError):
    """The store file cannot be used. It is unchanged."""


class Damaged(StoreError):
    """The cache is damaged beyond repair: close and open it again."""


class NotOwner(Error, PermissionError):
    """This process may only read: another PID namespace, or a child of a bare ``clone``."""


class SystemFailure(Error, OSError):
    """A system call failed."""


class BackendError(Error, ConnectionError):
    """The server behind the cache could not be asked, or refused."""


class NotSupported(Error, NotImplementedError):
    """A cache of another server has only uWSGI's operations."""


class LockLost(Error, RuntimeError):
    """A lock that is released was not held any more: its time to live was over."""


class InternalError(Error, RuntimeError):
    """A bug in ucache."""


#: The exception of each status of the C interface (``include/ucache.h``).
BY_STATUS: dict[int, type[Exception]] = {
    2: NameInUse,
    -1: ValueError,
    -2: InvalidDefinition,
    -3: NoSuchCache,
    -4: InvalidKey,
    -5: InvalidValue,
    -6: NotANumber,
    -7: Full,
    -8: Full,
    -9: Timeout,
    -10: Deadlock,
    -11: StoreError,
    -12: Damaged,
    -13: MemoryError,
    -14: SystemFailure,
    -15: InternalError,
    -16: NotOwner,
    -17: BackendError,
}
