#!/usr/bin/env python3
"""One hot page of an application that takes 50 ms, under load: without a cache, with uWSGI's own `cache:` and
`cachestore:`, with `ucache:`, and with nginx's `proxy_cache` in front. 4 workers; needs uwsgi with Python, wrk, nginx.

    make bench PART=pages        (QUICK=1: one round of 3 seconds each, else 3 of 8, about 4 minutes; ROUNDS=6;
                                  KEEP=1: the ratios go to benches/results/pages, too)

The page lives 2 seconds. `runs` is how often the application ran in the second after the page had ended under load.
Each round begins with another way, and goes the other way round than the one before: what slows the machine down for
a while hits all of them. The table has the medians of the rounds."""
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
QUICK = "quick" in sys.argv[1:]
SECONDS = 3 if QUICK else 8
ROUNDS = int(os.environ.get("ROUNDS") or (1 if QUICK else 3))
KEEP = "keep" in sys.argv[1:]
APP = """
import os, time
def application(environ, start_response):
    fd = os.open(os.environ["RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"%.3f\\n" % time.time())
    os.close(fd)
    time.sleep(0.05)
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "20000")])
    return [b"x" * 20000]
"""
PLUGIN = "plugins-dir = {plugins}\nplugin = ucache\n"
WAYS = {
    "no cache": ("", ""),
    "cache: and cachestore:": (
        "",
        "plugin = router_cache\ncache2 = name=pages,items=100\nroute = ^/ cache:key=${{REQUEST_URI}},name=pages\n"
        "route = ^/ cachestore:key=${{REQUEST_URI}},name=pages,expires=2\n",
    ),
    "ucache:": (PLUGIN, "cache2 = name=pages,items=100\nroute = ^/ ucache:name=pages,ttl=2\n"),
    "ucache: with stale": (PLUGIN, "cache2 = name=pages,items=100\nroute = ^/ ucache:name=pages,ttl=2,stale=60\n"),
    "nginx, proxy_cache_lock": ("", ""),
}
NGINX = """daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.err; worker_processes 1;
events {{ worker_connections 512; }}
http {{ access_log off; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5; proxy_cache_path {dir}/cache keys_zone=p:10m;
server {{ listen 127.0.0.1:{front}; location / {{ proxy_pass http://127.0.0.1:{port}; proxy_cache p;
proxy_cache_valid 200 2s; proxy_cache_lock on; }} }} }}
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(port):
    end = time.time() + 20
    while time.time() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit("nothing listens on port %d" % port)


def measure(name, plugins, routes):
    with tempfile.TemporaryDirectory() as where:
        # nginx's worker may be another user.
        os.chmod(where, 0o755)
        port, front = free_port(), free_port()
        with open(where + "/app.py", "w") as app:
            app.write(APP)
        values = {"plugins": os.path.join(HERE, "target/release"), "dir": where, "port": port, "front": front}
        with open(where + "/uwsgi.ini", "w") as ini:
            ini.write(
                "[uwsgi]\n" + plugins.format(**values) + "plugin = python3\nhttp-socket = 127.0.0.1:%d\n" % port
                + "master = true\nprocesses = 4\nlisten = 100\ndisable-logging = true\npythonpath = %s\n" % where
                + "module = app\nneed-app = true\n" + routes.format(**values)
            )
        env = dict(os.environ, RUNS=where + "/runs")
        log = open(where + "/log", "w")
        started = [subprocess.Popen(["uwsgi", "--ini", where + "/uwsgi.ini"], env=env, stdout=log, stderr=log)]
        target = port
        try:
            wait_for(port)
            if name.startswith("nginx"):
                with open(where + "/nginx.conf", "w") as conf:
                    conf.write(NGINX.format(**values))
                started.append(subprocess.Popen(["nginx", "-c", where + "/nginx.conf"], stdout=log, stderr=log))
                target = front
                wait_for(front)
            url = "http://127.0.0.1:%d/page" % target
            subprocess.run(["wrk", "-t1", "-c16", "-d2", url], capture_output=True, check=True)
            open(where + "/runs", "w").close()
            out = subprocess.run(
                ["wrk", "-t1", "-c16", "-d%d" % SECONDS, "--latency", url], capture_output=True, text=True, check=True
            ).stdout
            with open(where + "/runs") as runs:
                times = [float(line) for line in runs]
        finally:
            for one in started:
                one.send_signal(2)
            for one in started:
                try:
                    one.wait(20)
                except subprocess.TimeoutExpired:
                    one.kill()
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
    half = re.search(r"^\s+50%\s+(\S+)", out, re.M).group(1)
    most = re.search(r"^\s+99%\s+(\S+)", out, re.M).group(1)
    # Runs within a second are of one expiry.
    bursts = []
    for at in times:
        if bursts and at - bursts[-1][0] < 1:
            bursts[-1].append(at)
        else:
            bursts.append([at])
    per = sum(map(len, bursts)) / len(bursts) if bursts else 0
    return {"rate": rate, "p50": seconds(half), "p99": seconds(most), "runs": round(per, 1)}


def order(number):
    """The ways in the order of a round."""
    names = list(WAYS)
    names = names[number % len(names):] + names[: number % len(names)]
    return names if number % 2 == 0 else names[::-1]


def show(name, row):
    runs = "-" if name == "no cache" else "%.1f" % row["runs"]
    times = (row["p50"] * 1e3, row["p99"] * 1e3)
    print("%-26s %10.0f %8.2f ms %8.2f ms %8s" % (name, row["rate"], *times, runs), flush=True)


def seconds(text):
    """A time as wrk writes it."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit]


def processor():
    """Its name, and what the name of a file says of it: intel-6-207."""
    with open("/proc/cpuinfo") as cpuinfo:
        facts = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", cpuinfo.read(), re.M))
    vendor = {"GenuineIntel": "intel", "AuthenticAMD": "amd"}.get(facts.get("vendor_id"), "other")
    name = "-".join((vendor, facts.get("cpu family", "0"), facts.get("model", "0")))
    return facts.get("model name", "unknown"), name


def keep(rows, load):
    """Ratios to the slowest way, without a cache: absolute figures say more of the machine than of the ways."""
    model, name = processor()
    base = rows["no cache"]
    ratios = {
        way: {
            "requests": round(row["rate"] / base["rate"], 1),
            "p50": round(row["p50"] / base["p50"], 4),
            "p99": round(row["p99"] / base["p99"], 4),
            "runs_after_expiry": row["runs"] if row is not base else None,
        }
        for way, row in rows.items()
    }
    what = {"processor": model, "processors": os.cpu_count(), "load_before": round(load, 1)}
    what.update(seconds=SECONDS, rounds=ROUNDS)
    with open(os.path.join(HERE, "benches/results/pages/%s.json" % name), "w") as out:
        json.dump({**what, "ratios_to_no_cache": ratios}, out, indent=2)
        out.write("\n")


load = os.getloadavg()[0]
print("load %.1f on %d processors, %s" % (load, os.cpu_count(), processor()[0]))
print("%d rounds of %d seconds" % (ROUNDS, SECONDS))
print("%-26s %10s %11s %11s %8s" % ("", "requests/s", "p50", "p99", "runs"))
seen = {name: [] for name in WAYS}
for number in range(ROUNDS):
    if ROUNDS > 1:
        print("round %d" % (number + 1))
    for name in order(number):
        seen[name].append(measure(name, *WAYS[name]))
        show(name, seen[name][-1])
rows = {
    name: {what: statistics.median(row[what] for row in rounds) for what in rounds[0]} for name, rounds in seen.items()
}
if ROUNDS > 1:
    print("medians")
    for name, row in rows.items():
        show(name, row)
if KEEP:
    keep(rows, load)
