"""`make fleet`: a Valkey or Redis cluster and three uWSGIs, as if on three machines, and a page that shows them.

Each machine reaches the nodes through proxies of its own here, so that the page's buttons can cut it off: what is
sent then waits, as in a network whose cable is out. Everything ends with this program.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from binascii import crc_hqx
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import processes
from cluster import Cluster

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
# One in the slots of each primary, and before them what the machines' cache puts there.
KEYS, PREFIX = ("apple", "lemon", "peach"), "shared:"
# How long a connection of a machine that is cut off waits. Its programs do not wait so long, and connect again.
PATIENCE = 5


class Machine:
    """A uWSGI, and the proxies between it and the nodes."""

    def __init__(self, number, port, nodes, options, log):
        self.number, self.port, self.nodes, self.log = number, port, nodes, log
        # Of its own, so that the nodes have the same ports there.
        self.address = f"127.0.0.{10 + number}"
        self.connected = asyncio.Event()
        self.connected.set()
        self.seen = None
        plugins = ["--plugins-dir", options.plugins] if options.plugins else []
        self.command = [options.uwsgi, *plugins, "--ini", HERE / "uwsgi.ini"]

    async def serve(self):
        """Starts the proxies, then uWSGI."""
        ways = [(functools.partial(self.proxy, node), self.address, node.port) for node in self.nodes]
        proxies = [await asyncio.start_server(*way) for way in ways]
        hosts = ";".join(f"{self.address}:{node.port}" for node in self.nodes)
        environment = {"FLEET_BACKEND": f"redis+cluster://{hosts}", "FLEET_PORT": str(self.port)}
        processes.start(self.command, self.log, processes.INTERRUPT, **environment)
        return proxies

    async def cable(self):
        """Waits while the machine is cut off."""
        await asyncio.wait_for(self.connected.wait(), PATIENCE)

    async def proxy(self, node, reader, writer):
        ends = [writer]
        # Cancelled when the program ends, which is no error.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self.cable()
            node_reader, node_writer = await asyncio.open_connection("127.0.0.1", node.port)
            ends.append(node_writer)
            ways = [asyncio.create_task(self.copy(*way)) for way in ((reader, node_writer), (node_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
        for end in ends:
            end.close()

    async def copy(self, reader, writer):
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                await self.cable()
                writer.write(piece)
                await writer.drain()

    def ask(self, path, **params):
        query = "&".join(f"{name}={quote(str(value))}" for name, value in params.items())
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", f"{path}?{query}")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


class Fleet:
    """All of it, and what the page asks of it. Its requests come from other threads than the proxies' loop."""

    def __init__(self, program, cluster, machines, loop):
        self.program, self.cluster, self.machines, self.loop = program, cluster, machines, loop
        self.traffic = False
        threading.Thread(target=cluster.watch, daemon=True).start()
        for machine in machines:
            threading.Thread(target=self.watch, args=[machine], daemon=True).start()
            threading.Thread(target=self.drive, args=[machine], daemon=True).start()

    def watch(self, machine):
        while True:
            try:
                machine.seen = machine.ask("/figures", keys=" ".join(KEYS))
            except (OSError, ValueError):
                machine.seen = None
            time.sleep(0.5)

    def drive(self, machine):
        while True:
            time.sleep(0.2)
            if self.traffic:
                with contextlib.suppress(OSError, ValueError):
                    machine.ask("/traffic", reads=100)

    def state(self):
        machines = [
            {"number": m.number, "port": m.port, "connected": m.connected.is_set(), "seen": m.seen}
            for m in self.machines
        ]
        return {
            "program": self.program,
            "nodes": self.cluster.seen,
            "events": list(self.cluster.events),
            "keys": [{"key": key, "slot": slot_of(key)} for key in KEYS],
            "traffic": self.traffic,
            "machines": machines,
        }

    def do(self, what, params):
        is_on = params.get("on") == "1"
        match what:
            case "stop":
                self.cluster.stop(int(params["node"]), is_on)
            case "traffic":
                self.traffic = is_on
            case "cut":
                machine = self.machines[int(params["machine"]) - 1]
                self.loop.call_soon_threadsafe(machine.connected.clear if is_on else machine.connected.set)
                self.cluster.say(f"machine {machine.number} is {'cut off' if is_on else 'connected'}")
            case "write":
                return self.machines[int(params["machine"]) - 1].ask("/write", key=params["key"], value=params["value"])
            case _:
                return {"error": "no such action"}
        return {}


def slot_of(key):
    return crc_hqx(f"{PREFIX}{key}".encode(), 0) % 16384


def handler(fleet):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/":
                self.answer(200, "text/html; charset=utf-8", (HERE / "page.html").read_bytes())
            elif self.path == "/state":
                self.answer(200, "application/json", json.dumps(fleet.state()).encode())
            else:
                self.answer(404, "text/plain", b"no such page\n")

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            params = {name: values[-1] for name, values in parse_qs(body, keep_blank_values=True).items()}
            try:
                told = fleet.do(urlsplit(self.path).path.removeprefix("/"), params)
            except (KeyError, IndexError, ValueError, OSError) as error:
                told = {"error": f"{type(error).__name__}: {error}"}
            self.answer(400 if "error" in told else 200, "application/json", json.dumps(told).encode())

        def answer(self, status, kind, body):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


async def serve(options, cluster, log):
    machines = [Machine(n, port, cluster.nodes, options, log) for n, port in enumerate(options.ports[1:], 1)]
    proxies = [proxy for machine in machines for proxy in await machine.serve()]
    fleet = Fleet(Path(options.server).name, cluster, machines, asyncio.get_running_loop())
    page = ThreadingHTTPServer(("127.0.0.1", options.ports[0]), handler(fleet))
    threading.Thread(target=page.serve_forever, daemon=True).start()
    print(f"  open  http://127.0.0.1:{options.ports[0]}/", flush=True)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
    for proxy in proxies:
        proxy.close()


def run(options, directory):
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), open(options.log or directory / "log", "ab") as log:
        try:
            cluster = Cluster(options.server, options.nodes, directory, log)
            asyncio.run(serve(options, cluster, log))
        finally:
            processes.end_all()


def default_server():
    newest = ROOT / ".build/servers/valkey-9.1"
    return newest if newest.exists() else shutil.which("valkey-server") or "redis-server"


def default_dir():
    """In memory: the nodes wait for what they write to be on the disk, and do nothing else meanwhile."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else None


def ports(text):
    return [int(port) for port in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ports", type=ports, default="8090,8081,8082,8083", help="of the page and of the machines")
    nodes = ",".join(str(port) for port in [*range(7001, 7007), *range(17001, 17007)])
    parser.add_argument("--nodes", type=ports, default=nodes, help="of the six nodes, and of their cluster buses")
    parser.add_argument("--server", default=default_server())
    parser.add_argument("--uwsgi", default="uwsgi")
    parser.add_argument("--plugins", help="the directory of ucache_plugin.so")
    parser.add_argument("--log", help="a file for the output of all programs")
    parser.add_argument("--dir", default=default_dir(), help="where the files of the nodes are while it runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fleet", dir=options.dir) as directory:
        run(options, Path(directory))


if __name__ == "__main__":
    sys.exit(main())
