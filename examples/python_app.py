"""A small application on the Python package: a page that one process renders, and a counter."""

import time

import ucache

cache = ucache.Cache("mycache")


def render():
    time.sleep(1)
    return f"rendered at {time.strftime('%H:%M:%S')}"


def application(environ, start_response):
    page = cache.get_or_set("page", render, ttl=10, stale=60)
    body = f"{page}, request {cache.incr('requests', ttl=0)}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
