"""`make fleet`: a Valkey or Redis server and three uWSGIs, as if on three machines, and a page that shows them.

Each machine reaches the server through a proxy of its own here, so that the page's buttons can cut it off: what is
sent then waits, as in a network whose cable is out. Everything ends with this program.
"""

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def start(command, log, **environment):
    """A process that ends with this one; to be called in the main thread."""
    return subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **environment},
        start_new_session=True,
        preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGINT),
    )


class Server:
    """The server that holds the values."""

    def __init__(self, program, directory, log):
        self.program, self.directory, self.log = program, directory, log
        self.socket = directory / "server"
        self.stopped = False
        self.start()

    def start(self):
        options = ["--port", 0, "--unixsocket", self.socket, "--save", "", "--appendonly", "no", "--dir", self.directory]
        self.process = start([self.program, *options], self.log)
        deadline = time.monotonic() + 20
        while not self.socket.exists():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"{self.program} does not start: `make deps` installs it")
            time.sleep(0.02)

    def stop(self, stopped):
        self.process.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)
        self.stopped = stopped

    async def restart_empty(self):
        """In the main thread: a process ends with the thread that started it."""
        self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)
        self.stopped = False
        self.start()


class Machine:
    """A uWSGI, and the proxy between it and the server."""

    def __init__(self, number, port, server, options, directory, log):
        self.number, self.port, self.server = number, port, server
        self.socket = directory / f"machine{number}"
        self.connected = asyncio.Event()
        self.connected.set()
        self.seen = None
        plugins = ["--plugins-dir", options.plugins] if options.plugins else []
        self.command = [options.uwsgi, *plugins, "--ini", HERE / "uwsgi.ini"]
        self.environment = {"FLEET_BACKEND": f"redis+unix://{self.socket}", "FLEET_PORT": str(port)}
        self.log = log

    async def serve(self):
        """Starts the proxy, then uWSGI."""
        proxy = await asyncio.start_unix_server(self.proxy, self.socket)
        self.process = start(self.command, self.log, **self.environment)
        return proxy

    async def proxy(self, reader, writer):
        ends = [writer]
        with contextlib.suppress(OSError):
            server_reader, server_writer = await asyncio.open_unix_connection(self.server.socket)
            ends.append(server_writer)
            ways = [asyncio.create_task(self.copy(*way)) for way in ((reader, server_writer), (server_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
        for end in ends:
            end.close()

    async def copy(self, reader, writer):
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                await self.connected.wait()
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

    def __init__(self, server, machines, loop):
        self.server, self.machines, self.loop = server, machines, loop
        self.traffic = False
        for machine in machines:
            threading.Thread(target=self.watch, args=[machine], daemon=True).start()
            threading.Thread(target=self.drive, args=[machine], daemon=True).start()

    def watch(self, machine):
        while True:
            try:
                machine.seen = machine.ask("/figures")
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
            {"number": m.number, "port": m.port, "connected": m.connected.is_set(), "seen": m.seen} for m in self.machines
        ]
        server = {"program": Path(self.server.program).name, "stopped": self.server.stopped}
        return {"server": server, "traffic": self.traffic, "machines": machines}

    def do(self, what, params):
        match what:
            case "stop":
                self.server.stop(params["on"] == "1")
            case "restart":
                asyncio.run_coroutine_threadsafe(self.server.restart_empty(), self.loop).result()
            case "traffic":
                self.traffic = params["on"] == "1"
            case "cut":
                connected = self.machines[int(params["machine"]) - 1].connected
                self.loop.call_soon_threadsafe(connected.clear if params["on"] == "1" else connected.set)
            case "write":
                return self.machines[int(params["machine"]) - 1].ask("/write", key=params["key"], value=params["value"])
            case _:
                return {"error": "no such action"}
        return {}


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


async def serve(options, directory):
    log = open(options.log or directory / "log", "ab")
    server = Server(options.server, directory, log)
    ports = options.ports[1:]
    machines = [Machine(n, port, server, options, directory, log) for n, port in enumerate(ports, 1)]
    proxies = [await machine.serve() for machine in machines]
    fleet = Fleet(server, machines, asyncio.get_running_loop())
    page = ThreadingHTTPServer(("127.0.0.1", options.ports[0]), handler(fleet))
    threading.Thread(target=page.serve_forever, daemon=True).start()
    print(f"  open  http://127.0.0.1:{options.ports[0]}/", flush=True)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
    server.stop(False)
    for proxy in proxies:
        proxy.close()
    for process in [*(machine.process for machine in machines), server.process]:
        process.send_signal(signal.SIGINT)
    for process in [*(machine.process for machine in machines), server.process]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()


def default_server():
    newest = ROOT / ".build/servers/valkey-9.1"
    return newest if newest.exists() else shutil.which("valkey-server") or "redis-server"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ports", default="8090,8081,8082,8083", help="of the page and of the machines")
    parser.add_argument("--server", default=default_server())
    parser.add_argument("--uwsgi", default="uwsgi")
    parser.add_argument("--plugins", help="the directory of ucache_plugin.so")
    parser.add_argument("--log", help="a file for the output of all programs")
    options = parser.parse_args()
    options.ports = [int(port) for port in options.ports.split(",")]
    with tempfile.TemporaryDirectory(prefix="fleet") as directory:
        asyncio.run(serve(options, Path(directory)))


if __name__ == "__main__":
    sys.exit(main())
