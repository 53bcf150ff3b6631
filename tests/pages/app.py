"""An application whose answers the test scripts: `script` in PAGES_DIR maps paths to what is done there, `*` those that
it does not name. Each run is a line of `runs`."""
import json
import os
import time

AT = os.environ["PAGES_DIR"]


def application(environ, start_response):
    method, uri, path = environ["REQUEST_METHOD"], environ["REQUEST_URI"], environ["PATH_INFO"]
    run = os.open(AT + "/runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(run, ("%s %s\n" % (method, uri)).encode("utf-8", "replace"))
    os.close(run)
    try:
        with open(AT + "/script") as script:
            all_paths = json.load(script)
        do = all_paths.get(path, all_paths.get("*", {}))
    except FileNotFoundError:
        do = {}
    environ["wsgi.input"].read()
    while "gate" in do and not os.path.exists(AT + "/" + do["gate"]):
        pause()
    if do.get("mark"):
        with open(AT + "/computing", "w") as mark:
            mark.write(str(os.getpid()))
    time.sleep(do.get("sleep", 0))
    if do.get("mark"):
        os.truncate(AT + "/computing", 0)
    if do.get("die"):
        os.kill(os.getpid(), 9)
    if do.get("raise"):
        raise RuntimeError("scripted")
    seen = "".join(" %s=%s" % (name, environ.get(name)) for name in do.get("echo", []))
    body = do.get("body", "%s %s %d%s" % (method, uri, time.time_ns(), seen))
    if "eval" in do:
        body = repr(eval(do["eval"]))
    if "size" in do:
        body = (body + " ") * (do["size"] // (len(body) + 1) + 1)
        body = body[:do["size"]]
    if "tag" in do and environ.get("HTTP_IF_NONE_MATCH") == do["tag"]:
        start_response("304 Not Modified", [("ETag", do["tag"])] + [tuple(pair) for pair in do.get("news", [])])
        return []
    headers = [("Content-Type", "text/plain")] + [tuple(pair) for pair in do.get("headers", [])]
    parts = [part.encode() for part in do.get("parts", [body])]
    if do.get("length"):
        headers.append(("Content-Length", str(sum(map(len, parts)))))
    start_response(do.get("status", "200 OK"), headers)
    if do.get("nothing"):
        return None
    if do.get("file"):
        return environ["wsgi.file_wrapper"](open(do["file"], "rb"), 4096)
    if "close" in do:
        return Closing(parts, do["close"])
    return stream(parts, do) if "parts" in do else parts


class Closing:
    """A body whose end takes until a gate is open."""

    def __init__(self, parts, gate):
        self.parts, self.gate = parts, gate

    def __iter__(self):
        return iter(self.parts)

    def close(self):
        while not os.path.exists(AT + "/" + self.gate):
            time.sleep(0.005)


def pause():
    if "PAGES_SUSPEND" in os.environ:
        # uWSGI's own loop: the least is a second
        import uwsgi
        uwsgi.async_sleep(1)
        uwsgi.suspend()
    else:
        time.sleep(0.005)


def stream(parts, do):
    for number, part in enumerate(parts):
        if number:
            time.sleep(do.get("pause", 0))
            while "gate2" in do and not os.path.exists(AT + "/" + do["gate2"]):
                time.sleep(0.005)
        if do.get("raise_at") == number:
            raise RuntimeError("scripted")
        if do.get("die_at") == number:
            os.kill(os.getpid(), 9)
        yield part
