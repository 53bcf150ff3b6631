"""The application of one machine: reads and writes of its cache, and what its figures say."""

import json
import random
from urllib.parse import parse_qs

import uwsgi

CACHE = "shared"


def value_of(key):
    value = uwsgi.cache_get(key, CACHE)
    return value and value.decode("utf-8", "backslashreplace")


def figures(params):
    """What this machine counted, and the values of some keys as it reads them."""
    values = {key: value_of(key) for key in params["keys"].split()}
    told = {name: uwsgi.metric_get(f"cache.{CACHE}.{name}") for name in NAMES}
    return {"figures": told, "values": values}


def traffic(params):
    """Reads pages, a few of them very often; a missing page is rendered and stored, and now and then another one."""
    for _ in range(min(int(params.get("reads", 100)), 10_000)):
        key = f"page {min(int(random.paretovariate(0.8)), 500)}"
        if uwsgi.cache_get(key, CACHE) is None or random.random() < 0.02:
            uwsgi.cache_update(key, f"<h1>{key}</h1>", 600, CACHE)
    return {}


def write(params):
    done = uwsgi.cache_update(params["key"], params["value"], 0, CACHE)
    return {"stored": bool(done)}


PATHS = {"/figures": figures, "/traffic": traffic, "/write": write}
NAMES = ("near_hits", "near_misses", "near_bypassed", "near_fills", "near_invalidated", "near_beat_age_ms", "near_terms",
         "near_up", "backend_up", "backend_errors")


def application(environ, start_response):
    endpoint = PATHS.get(environ["PATH_INFO"])
    params = {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    answer = endpoint(params) if endpoint else {"error": "no such page"}
    body = json.dumps(answer).encode()
    start_response("200 OK" if endpoint else "404 Not Found", [("Content-Type", "application/json")])
    return [body]
