"""Fixtures of the tests of the Python package, which is installed in the environment that runs them."""

import itertools
import multiprocessing

import pytest

import ucache

names = (f"cache {n}" for n in itertools.count())
#: Children of a fork: they share the caches of their parent.
forked = multiprocessing.get_context("fork")


@pytest.fixture
def make():
    """Opens caches that the test's end closes."""
    made = []

    def make(**options):
        made.append(ucache.open(next(names), **{"items": 100, **options}))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


@pytest.fixture
def cache(make):
    return make()
