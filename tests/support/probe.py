"""Runs Python source posted by the tests in a real uWSGI worker; the answer is the repr of the last expression."""

import ast
import os
import time

import uwsgi
from uwsgiconf.runtime.caching import Cache

VARIABLES = {"uwsgi": uwsgi, "Cache": Cache, "os": os, "time": time}


def run(source):
    parts = ast.parse(source)
    last = parts.body.pop().value if parts.body and isinstance(parts.body[-1], ast.Expr) else None
    exec(compile(parts, "<test>", "exec"), VARIABLES)
    return "" if last is None else repr(eval(compile(ast.Expression(last), "<test>", "eval"), VARIABLES))


def application(environ, start_response):
    source = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
    try:
        answer = run(source)
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    body = answer.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
