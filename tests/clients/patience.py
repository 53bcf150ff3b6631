"""For a suite that gives a server five seconds to answer: a minute, as machines that build things have."""

import functools

import httpx

httpx.get = functools.partial(httpx.get, timeout=60)
