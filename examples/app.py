"""A demo page for caches shared by all workers, and JSON endpoints for curl.

All access is through uwsgiconf's unchanged `Cache` class, on uWSGI's own cache or on ucache.
"""

import json
import random
import time
from html import escape
from itertools import islice
from pathlib import Path
from string import Template
from urllib.parse import parse_qs

import uwsgi
from uwsgiconf.runtime.caching import Cache

import watch

cache = Cache("mycache")
pages = Cache("pages", timeout=10)

HERE = Path(__file__).parent
PAGE = Template((HERE / "page.html").read_text(encoding="utf-8"))


class BadRequest(Exception):
    """The request's parameters are invalid."""


# -- JSON endpoints ---------------------------------------------------------------------------------


def number(params, name, default):
    """The integer parameter `name`."""
    try:
        return int(params.get(name, default))
    except ValueError:
        raise BadRequest(f"{name} must be a whole number") from None


def key_of(params):
    """The parameter `key`, required by most endpoints."""
    try:
        return params["key"]
    except KeyError:
        raise BadRequest("missing parameter: ?key=NAME") from None


def shown(value):
    """A value or key as text; invalid UTF-8 is escaped."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def do_get(params):
    key, default = key_of(params), params.get("default")
    if "as_int" in params:
        return {"key": key, "value": cache.get(key, as_int=True)}
    # as bytes: a counter is 8 bytes, seldom valid UTF-8
    value = cache.get(key, default=default, preserve_bytes=True)
    return {"key": key, "value": shown(value), "found": key in cache}


def do_set(params):
    key = key_of(params)
    if "value" not in params:
        raise BadRequest("missing parameter: &value=TEXT")
    # set keeps an existing value, so `replace` deletes it first
    if "replace" in params:
        del cache[key]
    if params.get("timeout"):
        stored = cache.set(key, params["value"], timeout=number(params, "timeout", 300))
    else:
        stored = cache.set(key, params["value"])
    return {"key": key, "stored": bool(stored)}


def do_math(method, parameter, default):
    def endpoint(params):
        key = key_of(params)
        done = method(key, **{parameter: number(params, parameter, default)})
        return {"key": key, "done": bool(done), "value": cache.get(key, as_int=True)}

    return endpoint


def do_delete(params):
    key = key_of(params)
    was = key in cache
    cache.delete(key)
    return {"key": key, "deleted": was}


def do_clear(_params):
    cache.clear()
    return {"cleared": True}


def do_keys(_params):
    return {"keys": sorted(cache.keys)}


def do_stats(_params):
    told = watch.statistics()
    return {"worker": uwsgi.worker_id(), "caches": told["caches"], "responses": watch.responses(told)}


def do_slow(_params):
    """Takes 300 ms; the route action `ucache:` keeps the whole response for three seconds."""
    time.sleep(0.3)
    return {"worker": uwsgi.worker_id(), "computed": time.strftime("%H:%M:%S")}


def do_items(params):
    """At most `most` keys that contain `match`, with size and time to live."""
    match, most = params.get("match", ""), number(params, "most", 100)
    found = (
        {"key": text, "size": size, "ttl": ttl}
        for text, size, ttl in ((shown(key), size, ttl) for key, size, ttl in watch.items("mycache"))
        if match in text
    )
    rows = list(islice(found, most + 1))
    return {"items": sorted(rows[:most], key=lambda row: row["key"]), "more": len(rows) > most}


def do_traffic(params):
    """Reads pages, a few of them much more often than others; a missing page is rendered and stored."""
    reads = max(0, min(number(params, "reads", 500), 10_000))
    for _ in range(reads):
        pages.get(f"page {min(int(random.paretovariate(0.7)), 500)}", setter=lambda key: f"<h1>{key}</h1>")
    return {"reads": reads}


ENDPOINTS = {
    "/get": do_get,
    "/set": do_set,
    "/incr": do_math(cache.incr, "delta", 1),
    "/decr": do_math(cache.decr, "delta", 1),
    "/mul": do_math(cache.mul, "value", 2),
    "/div": do_math(cache.div, "value", 2),
    "/delete": do_delete,
    "/clear": do_clear,
    "/keys": do_keys,
    "/items": do_items,
    "/slow": do_slow,
    "/stats": do_stats,
    "/traffic": do_traffic,
}


# -- the page -------------------------------------------------------------------------------------


def render_fragment(key):
    """A slow computation; `pages.get(..., setter=)` calls it only on a miss."""
    time.sleep(0.2)
    cache.incr("fragment renderings")
    return f"<b>{escape(key)}</b>: rendered by worker {uwsgi.worker_id()} at {time.strftime('%H:%M:%S')}, takes 200 ms"


def page():
    me = f"served by worker {uwsgi.worker_id()}"
    cache.incr("visits")
    cache.incr(me)
    # set keeps an existing value, so this is the time of the first request
    cache["first visit"] = time.strftime("%H:%M:%S")
    started = time.perf_counter()
    fragment = pages.get("front page", setter=render_fragment)
    took = time.perf_counter() - started
    return PAGE.substitute(
        worker=uwsgi.worker_id(),
        workers=uwsgi.numproc,
        engine="ucache" if watch.on_ucache() else "uWSGI's own cache",
        first=cache["first visit"],
        visits=cache.get("visits", as_int=True),
        renderings=cache.get("fragment renderings", as_int=True),
        fragment=fragment,
        took=f"{took * 1e6:,.0f}",
    )


# -- WSGI -----------------------------------------------------------------------------------------


def parameters(environ):
    """Parameters of the query and of a posted form; the last of each name counts."""
    size = min(int(environ.get("CONTENT_LENGTH") or 0), 1 << 20)
    text = environ.get("QUERY_STRING", "") + "&" + environ["wsgi.input"].read(size).decode("utf-8", "replace")
    return {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True).items()}


def application(environ, start_response):
    path = environ["PATH_INFO"]
    params = parameters(environ)
    status, kind = "200 OK", "application/json"
    if path == "/":
        kind, body = "text/html; charset=utf-8", page()
    elif path not in ENDPOINTS:
        status, body = "404 Not Found", json.dumps({"error": "no such path", "paths": ["/", *ENDPOINTS]}) + "\n"
    else:
        try:
            body = json.dumps(ENDPOINTS[path](params)) + "\n"
        except BadRequest as refused:
            status, body = "400 Bad Request", json.dumps({"error": str(refused)}) + "\n"
    body = body.encode()
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
