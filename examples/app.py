"""A page that shows one cache at work in every worker, and JSON endpoints for curl.

All of it goes through uwsgiconf's `Cache`, unchanged: it does not know which cache it talks to.
"""

import json
import socket
import time
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import parse_qs

import uwsgi
from uwsgiconf.runtime.caching import Cache

cache = Cache("mycache")
pages = Cache("pages", timeout=10)

HERE = Path(__file__).parent
PAGE = Template((HERE / "page.html").read_text(encoding="utf-8"))


class BadRequest(Exception):
    """The parameters do not make a request."""


# -- JSON endpoints ---------------------------------------------------------------------------------


def number(params, name, default):
    """The integer parameter `name`."""
    try:
        return int(params.get(name, default))
    except ValueError:
        raise BadRequest(f"{name} must be a whole number") from None


def key_of(params):
    """The parameter `key`, which nearly all endpoints need."""
    try:
        return params["key"]
    except KeyError:
        raise BadRequest("give a key: ?key=NAME") from None


def do_get(params):
    key, default = key_of(params), params.get("default")
    if "as_int" in params:
        return {"key": key, "value": cache.get(key, as_int=True)}
    # bytes, because a counter is eight of them and seldom UTF-8
    value = cache.get(key, default=default, preserve_bytes=True)
    return {"key": key, "value": shown(value), "found": key in cache}


def do_set(params):
    key = key_of(params)
    if "value" not in params:
        raise BadRequest("give a value: &value=TEXT")
    # keeps what is there: `replace` first takes the old value away
    if "replace" in params:
        del cache[key]
    if "timeout" in params:
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
    return {"worker": uwsgi.worker_id(), "caches": cache_stats()}


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
    "/stats": do_stats,
}


# -- what uWSGI's stats server says ---------------------------------------------------------------


def cache_stats():
    """The `caches` part of the JSON that the master serves on its stats address."""
    address = uwsgi.opt["stats"].decode()
    if address[0] in "/@":
        family, target = socket.AF_UNIX, address.replace("@", "\0", 1)
    else:
        host, _, port = address.rpartition(":")
        family, target = socket.AF_INET, (host, int(port))
    with socket.socket(family) as peer:
        peer.settimeout(2)
        peer.connect(target)
        text = b"".join(iter(lambda: peer.recv(65536), b""))
    return json.loads(text)["caches"]


# -- the page -------------------------------------------------------------------------------------


def render_fragment(key):
    """Stands for something slow; `pages.get(..., setter=)` calls it only when the cache has no answer."""
    time.sleep(0.2)
    cache.incr("fragment renderings")
    return f"<b>{escape(key)}</b>: rendered by worker {uwsgi.worker_id()} at {time.strftime('%H:%M:%S')}, takes 200 ms"


def shown(value):
    """A value as text, whatever its bytes are."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def key_rows():
    for key in sorted(cache.keys):
        value = cache.get(key, preserve_bytes=True)
        if value is None:  # gone since the walk
            continue
        if len(value) == 8:
            text = f"{cache.get(key, as_int=True)} <small>(number)</small>"
        else:
            text = escape(shown(value[:200]))
        yield (
            f"<tr><td>{escape(key)}</td><td>{text}</td><td>"
            f'<form method=post action=/delete><input type=hidden name=key value="{escape(key)}">'
            f"<input type=hidden name=back value=1><button>delete</button></form></td></tr>"
        )


def stats_rows():
    for one in cache_stats():
        reads = one["hits"] + one["miss"]
        ratio = f"{one['hits'] / reads:.0%}" if reads else "-"
        yield (
            f"<tr><td>{escape(one['name'])}</td>"
            f"<td>{one['items']} / {one['max_items'] - 1} "
            f"<meter max={one['max_items'] - 1} value={one['items']}></meter></td>"
            f"<td>{one['hits']}</td><td>{one['miss']}</td><td>{ratio}</td><td>{one['full']}</td></tr>"
        )


def page(params):
    me = f"served by worker {uwsgi.worker_id()}"
    cache.incr("visits")
    cache.incr(me)
    # keeps what is there: the first worker that comes says when
    cache["first visit"] = time.strftime("%H:%M:%S")
    started = time.perf_counter()
    fragment = pages.get("front page", setter=render_fragment)
    took = time.perf_counter() - started
    return PAGE.substitute(
        refresh='<meta http-equiv="refresh" content="1">' if "live" in params else "",
        live='<a href="/">stop</a>' if "live" in params else '<a href="/?live=1">reload every second</a>',
        worker=uwsgi.worker_id(),
        workers=uwsgi.numproc,
        first=cache["first visit"],
        visits=cache.get("visits", as_int=True),
        renderings=cache.get("fragment renderings", as_int=True),
        fragment=fragment,
        took=f"{took * 1e6:,.0f}",
        keys="".join(key_rows()),
        stats="".join(stats_rows()),
    )


# -- WSGI -----------------------------------------------------------------------------------------


def parameters(environ):
    """Those of the query and those of a posted form, the last of each name."""
    size = min(int(environ.get("CONTENT_LENGTH") or 0), 1 << 20)
    text = environ.get("QUERY_STRING", "") + "&" + environ["wsgi.input"].read(size).decode("utf-8", "replace")
    return {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True).items()}


def application(environ, start_response):
    path = environ["PATH_INFO"]
    params = parameters(environ)
    status, kind, headers = "200 OK", "application/json", []
    if path == "/":
        kind, body = "text/html; charset=utf-8", page(params)
    elif path not in ENDPOINTS:
        status, body = "404 Not Found", json.dumps({"error": "no such path", "paths": ["/", *ENDPOINTS]}) + "\n"
    else:
        try:
            body = json.dumps(ENDPOINTS[path](params)) + "\n"
        except BadRequest as refused:
            status, body = "400 Bad Request", json.dumps({"error": str(refused)}) + "\n"
        else:
            if "back" in params:  # from a form of the page
                status, headers = "303 See Other", [("Location", "/")]
    body = body.encode()
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *headers])
    return [body]
