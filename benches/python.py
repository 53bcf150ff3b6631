"""`make bench PART=python`: calls of Python on one cache beside other caches, nanoseconds for a call.

All rows of a process are measured in turns, in short rounds; the median of the rounds counts, less
that of an empty loop. So other programs on the machine disturb all rows alike. Inside a native uWSGI
the package brings its own library, so both caches are measured in one process there.

QUICK=1: fewer rounds. KEEP=1: the table goes to benches/results, too."""

import functools
import getpass
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import timeit

COUNT = 100
KEYS = [f"key{n}" for n in range(COUNT)]
VALUE = b"v" * 100
LARGE = b"v" * 65536
ROUNDS = 40 if os.environ.get("QUICK") else 400
#: Seconds of a round of one row.
ROUND = 40e-6


def nanoseconds(rows):
    """Rows of a name, a statement and its variables: a dict of names and nanoseconds."""
    timers = [("empty loop", timeit.Timer("pass"))]
    timers += [(name, timeit.Timer(text, locals_of(names), globals=names)) for name, text, names in rows]
    runs = []
    for name, timer in timers:
        timer.timeit(10)
        one = min(timer.repeat(5, 20)) / 20
        runs.append((name, timer, max(1, int(ROUND / one)), []))
    for _ in range(ROUNDS):
        for _, timer, number, seen in runs:
            seen.append(timer.timeit(number) / number * 1e9)
    medians = {name: statistics.median(seen) for name, _, _, seen in runs}
    empty = medians.pop("empty loop")
    return {name: max(0.0, median - empty) for name, median in medians.items()}


def locals_of(names):
    """Local variables of the loop, as in a function that makes the calls."""
    return "; ".join(f"{name} = globals()[{name!r}]" for name in names) or "pass"


def processor():
    seen = {}
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            seen.setdefault(name.strip(), value.strip())
    vendor = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}.get(seen.get("vendor_id"), "other")
    name = seen.get("model name", platform.machine())
    family, model = seen.get("cpu family", "0"), seen.get("model", "0")
    return f"{name} (family {family}, model {model})", f"{vendor}-{family}-{model}"


def ours(name, opens=True):
    """The package's calls, on a cache that is opened here or is uWSGI's."""
    import ucache

    if opens:
        ucache.open(name, items=1000, blocksize="128k")
    cache = ucache.Cache(name, timeout=0, serializer="bytes")
    cache.set_many(dict.fromkeys(KEYS, VALUE))
    cache.update("large", LARGE)
    names = {"c": cache, "k": KEYS[7], "K": KEYS, "v": VALUE, "large": "large"}
    text = {**names, "c": ucache.Cache(name, timeout=0)}
    return [
        ("ucache: get", "c.get(k)", names),
        ("ucache: get as str", "c.get(k)", text),
        ("ucache: get of 64 KB", "c.get(large)", names),
        ("ucache: in", "k in c", names),
        ("ucache: update", "c.update(k, v)", names),
        ("ucache: incr", "c.incr('n')", names),
        ("ucache: get_or_set that hits", "c.get_or_set(k, bytes)", names),
        ("ucache: 100 gets into a dict", "{k: c.get(k) for k in K}", names),
        ("ucache: get_many of 100", "c.get_many(K)", names),
    ]


def floors():
    """What the interpreter alone takes."""
    local = dict.fromkeys(KEYS, VALUE)
    names = {"d": local, "k": KEYS[7], "K": KEYS, "copy": bytearray, "same": VALUE.decode()}
    names |= {"texts": [VALUE.decode()] * COUNT, "encode": str.encode}
    return [
        ("dict: get", "d.get(k)", names),
        ("dict: get and a copy, as bytes", "d.get(k)[1:]", names),
        ("dict: get and a copy, as bytearray", "copy(d.get(k))", names),
        ("a method that returns 100 new bytes", "same.encode()", names),
        ("a dict of 100 new values, without a cache", "dict(zip(K, map(encode, texts)))", names),
    ]


def _cachetools(key):
    import cachetools

    cache = cachetools.LRUCache(1000)
    cache.update(dict.fromkeys(KEYS, VALUE))
    return {"get": cache.get, "k": key}


def _diskcache(key):
    import diskcache

    cache = diskcache.Cache(tempfile.mkdtemp())
    cache.set(key, VALUE)
    return {"get": cache.get, "k": key}


def _lmdb(key):
    import lmdb

    environment = lmdb.open(tempfile.mkdtemp(), map_size=1 << 24)
    with environment.begin(write=True) as writing:
        writing.put(key.encode(), VALUE)

    def get(key):
        with environment.begin(buffers=False) as reading:
            return reading.get(key)

    return {"get": get, "k": key.encode()}


SERVERS = []
#: redis-py has a cache from Redis 7.4 on; `.ci/deps bench` gets this one.
NEWER_REDIS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.build/servers/redis-8.2")


def _started(command, path):
    SERVERS.append(
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    )
    deadline = time.monotonic() + 30
    while not os.path.exists(path):
        assert time.monotonic() < deadline, command
        time.sleep(0.02)


def _server(program="redis-server", port=0):
    path = os.path.join(tempfile.mkdtemp(), "s")
    _started([program, "--port", str(port), "--unixsocket", path, "--save", ""], path)
    return path


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def near():
    """A value that is in a Redis server: ucache before it, redis-py without and with its own cache,
    and a cache of the interpreter, which nobody tells of changes."""
    import redis
    import redis.cache
    import ucache

    key, port = KEYS[7], _free_port()
    path = _server(NEWER_REDIS, port)
    plain = redis.Redis(unix_socket_path=path)
    plain.set("near:" + key, VALUE)
    # On a unix socket it has no cache, and does not say so.
    caching = redis.Redis(host="127.0.0.1", port=port, protocol=3, cache_config=redis.cache.CacheConfig())
    caching.get("near:" + key)
    assert caching.get_cache().size == 1
    remembered = functools.lru_cache(maxsize=1000)(plain.get)
    ucache.open("near", items=1000, blocksize="1k", backend=f"redis+unix://{path}")
    cache = ucache.Cache("near", timeout=0, serializer="bytes")
    deadline = time.monotonic() + 30
    while not cache.stats()["near_hits"]:
        assert time.monotonic() < deadline and cache.get(key) == VALUE
    return [
        ("before Redis: ucache: get of a copy", "get(k)", {"get": cache.get, "k": key}),
        ("before Redis: redis-py: get", "get(k)", {"get": plain.get, "k": "near:" + key}),
        ("before Redis: redis-py with its cache, by TCP: get", "get(k)", {"get": caching.get, "k": "near:" + key}),
        ("before Redis: lru_cache over redis-py", "get(k)", {"get": remembered, "k": "near:" + key}),
    ]


def _redis(key):
    import redis

    client = redis.Redis(unix_socket_path=_server())
    client.set(key, VALUE)
    return {"get": client.get, "k": key}


def _pylibmc(key):
    import pylibmc

    path = os.path.join(tempfile.mkdtemp(), "s")
    _started(["memcached", "-u", getpass.getuser(), "-s", path, "-a", "777"], path)
    client = pylibmc.Client([path], binary=True)
    client.set(key, VALUE)
    return {"get": client.get, "k": key}


def others():
    makers = [
        ("cachetools LRUCache: get", _cachetools),
        ("LMDB: get", _lmdb),
        ("diskcache: get", _diskcache),
        ("pylibmc, memcached on a unix socket: get", _pylibmc),
        ("redis-py, Redis on a unix socket: get", _redis),
    ]
    return [(name, "get(k)", make(KEYS[7])) for name, make in makers]


def uwsgis():
    """uWSGI's own functions."""
    import uwsgi

    for key in KEYS:
        uwsgi.cache_update(key, VALUE, 0, "mycache")
    names = {"u": uwsgi, "k": KEYS[7], "K": KEYS, "v": VALUE}
    return [
        ("uwsgi.cache_get", "u.cache_get(k)", names),
        ("uwsgi.cache_get with the cache's name", "u.cache_get(k, 'mycache')", names),
        ("uwsgi.cache_update", "u.cache_update(k, v, 0, 'mycache')", names),
        ("uwsgi: 100 cache_get into a dict", "{k: u.cache_get(k) for k in K}", names),
    ]


def in_uwsgi(*plugin):
    """The rows that a uWSGI measures, which runs this file."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["uwsgi", *plugin, "--plugin", "python3", "--virtualenv", sys.prefix]
        command += ["--socket", os.path.join(folder, "s"), "--master", "--disable-logging"]
        command += ["--cache2", "name=mycache,items=1000,blocksize=131072"]
        command += ["--pyrun", os.path.abspath(__file__)]
        output = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = (output.stdout + output.stderr).splitlines()
    shown = [line for line in lines if line.startswith("ROWS ")]
    if not shown:
        sys.exit("\n".join(lines))
    return json.loads(shown[0][5:])


def table(title, rows):
    return [f"## {title}", "", "| call | ns |", "|---|---|"] + [
        f"| {name} | {ns:,.0f} |" for name, ns in rows.items()
    ]


def goals(outside, native):
    """Ratios that the project has set itself."""
    compared = [
        ("ucache: get, of native uwsgi.cache_get", native["ucache: get"], native["uwsgi.cache_get"]),
        (
            "ucache: get, of dict.get and a copy as bytes",
            outside["ucache: get"],
            outside["dict: get and a copy, as bytes"],
        ),
        (
            "ucache: get_many of 100, of 100 gets",
            outside["ucache: get_many of 100"],
            outside["ucache: 100 gets into a dict"],
        ),
        (
            "ucache: get_many of 100, of 100 native cache_get",
            native["ucache: get_many of 100"],
            native["uwsgi: 100 cache_get into a dict"],
        ),
        (
            "a dict of 100 new values without a cache, of 100 gets",
            outside["a dict of 100 new values, without a cache"],
            outside["ucache: 100 gets into a dict"],
        ),
    ]
    lines = ["## In one process, measured in turns", "", "| what | ratio |", "|---|---|"]
    return lines + [f"| {name} | {one / other:.2f} |" for name, one, other in compared]


def main():
    if "uwsgi" in sys.builtin_module_names or "uwsgi" in sys.modules:
        has_plugin = os.environ.get("UCACHE_BENCH") == "plugin"
        mine = ours("mycache", opens=False) if has_plugin else ours("bench")
        print("ROWS", json.dumps(nanoseconds(mine + uwsgis())))
        return
    try:
        outside = nanoseconds(ours("bench") + floors() + others() + near())
    finally:
        for server in SERVERS:
            server.terminate()
            server.wait(30)
    os.environ["UCACHE_BENCH"] = "native"
    native = in_uwsgi()
    name, short = processor()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines = [
        f"{name}, CPython {platform.python_version()}. Values of {len(VALUE)} bytes, nanoseconds for a",
        f"call, medians of {ROUNDS} rounds in turns. Load of the machine: {load}.",
        "",
        *table("Outside uWSGI", outside),
        "",
        *table("In a native uWSGI, the package with its own library", native),
    ]
    plugins = os.environ.get("UCACHE_PLUGINS")
    if plugins:
        os.environ["UCACHE_BENCH"] = "plugin"
        rows = in_uwsgi("--plugins-dir", plugins, "--plugin", "ucache")
        lines += ["", *table("In uWSGI with the plugin", rows)]
    lines += ["", *goals(outside, native)]
    print("\n".join(lines))
    if os.environ.get("KEEP"):
        here = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(here, "results", f"python-{short}.md"), "w") as file:
            file.write("\n".join(["# make bench PART=python", "", *lines, ""]))


if __name__ in ("__main__", "uwsgi_main"):
    main()
