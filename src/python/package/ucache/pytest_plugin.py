"""Fixtures for pytest; the package registers them.

``uwsgi``: ``import uwsgi`` finds a stand-in with a cache ``mycache`` of 1000 items, for one test.
``ucache_cache``: an empty cache in memory, for one test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .cache import Cache

_numbers = itertools.count()


@pytest.fixture
def uwsgi() -> Iterator[ModuleType]:
    """A stand-in for uWSGI's module; ``uwsgi.configure("name=other,items=10")`` adds caches."""
    from . import uwsgi as stand_in

    stand_in.configure("name=mycache,items=1001")
    stand_in.install()
    yield stand_in
    stand_in.uninstall()


@pytest.fixture
def ucache_cache() -> Iterator[Cache]:
    """An empty cache of 1000 items."""
    from .cache import open

    cache = open(f"ucache fixture {next(_numbers)}")
    yield cache
    cache.close()
