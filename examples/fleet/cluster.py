"""A cluster of six servers, each a process: three primaries and a replica of each."""

import collections
import contextlib
import re
import signal
import socket
import time

from processes import KILL, start

PRIMARIES = 3
SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))
# A primary that is silent for so long has failed, says the majority of the primaries.
NODE_TIMEOUT_MS = 2000
OPTIONS = [
    *["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
    *["--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT_MS],
    # While a primary is down, the others answer.
    *["--cluster-require-full-coverage", "no"],
    # No node tells its host, so a machine finds each at the address at which it asks: that of its own proxies.
    *["--cluster-preferred-endpoint-type", "unknown-endpoint"],
    # A replica takes over however long it has not heard of its primary, copies it at once, and stays with it.
    *["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"],
    *["--cluster-allow-replica-migration", "no"],
]


def until(what, ready):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if ready():
                return
        time.sleep(0.05)
    raise SystemExit(f"not within a minute: {what}")


class Node:
    """One server."""

    def __init__(self, number, port, bus, program, directory, log):
        self.number, self.port, self.bus = number, port, bus
        self.socket = directory / f"node{number}"
        self.stopped = False
        places = ["--port", port, "--cluster-port", bus, "--unixsocket", self.socket]
        files = ["--dir", directory, "--cluster-config-file", f"nodes{number}.conf"]
        self.process = start([program, *places, *files, *OPTIONS], log, KILL)

    def ask(self, *words):
        """The server's reply to a command."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(0.5)
            connection.connect(str(self.socket))
            connection.sendall(f"{' '.join(map(str, words))}\r\n".encode())
            with connection.makefile("rb") as reply:
                first = reply.readline().decode().rstrip()
                if first.startswith("$"):
                    return reply.read(int(first[1:])).decode()
        if not first.startswith(("+", ":")):
            raise OSError(f"{words}: {first or 'no reply'}")
        return first[1:]

    def is_there(self):
        if self.process.poll() is not None:
            raise SystemExit(f"node {self.number} does not start: is port {self.port} or {self.bus} taken?")
        return bool(self.ask("PING"))

    def stop(self, stopped):
        self.process.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)
        self.stopped = stopped

    def look(self):
        """What it knows of the nodes, by their ids, and whether it answers for its slots; None = it is silent."""
        if self.stopped:
            return None
        try:
            nodes, info = self.ask("CLUSTER", "NODES"), self.ask("CLUSTER", "INFO")
        except OSError:
            return None
        lines = [line.split(" ") for line in nodes.splitlines()]
        return {words[0]: words for words in lines}, "cluster_state:ok" in info

    def is_well(self):
        nodes, info = self.ask("CLUSTER", "NODES"), self.ask("CLUSTER", "INFO")
        replication = self.ask("INFO", "replication")
        return (
            len(re.findall(" connected", nodes)) == 2 * PRIMARIES
            and len(re.findall("slave ", nodes)) == PRIMARIES
            and not re.search("handshake|fail", nodes)
            and "cluster_state:ok" in info
            and ("role:master" in replication or "master_link_status:up" in replication)
        )


class Cluster:
    """All nodes, and what has happened to them."""

    def __init__(self, program, ports, directory, log):
        count = 2 * PRIMARIES
        places = zip(ports[:count], ports[count:], strict=True)
        self.nodes = [Node(n, port, bus, program, directory, log) for n, (port, bus) in enumerate(places, 1)]
        self.events = collections.deque(maxlen=10)
        for node in self.nodes:
            until(f"node {node.number} starts", node.is_there)
        self.form()
        self.seen = self.look()

    def form(self):
        """What `redis-cli --cluster create` does."""
        for node in self.nodes:
            node.id = node.ask("CLUSTER", "MYID")
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", node.number)
        for node, slots in zip(self.nodes, SLOTS):
            node.ask("CLUSTER", "ADDSLOTSRANGE", *slots)
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
        for replica, primary in zip(self.nodes[PRIMARIES:], self.nodes):
            # It refuses until it has heard of that node.
            until("a replica knows its primary", lambda: replica.ask("CLUSTER", "REPLICATE", primary.id))
        until("the cluster is complete", lambda: all(node.is_well() for node in self.nodes))

    def look(self):
        """Each node by its own word, and a silent one by that of the others."""
        told = {node.id: node.look() for node in self.nodes}
        numbers = {node.id: node.number for node in self.nodes}
        answers = [answer for answer in told.values() if answer]
        seen = []
        for node in self.nodes:
            own = told[node.id]
            others = [answer[0][node.id] for answer in answers if answer is not own and node.id in answer[0]]
            words = own[0].get(node.id) if own else next(iter(others), None)
            if not words:
                continue
            flags = words[2].split(",")
            failed = not own and any("fail" in other[2].split(",") for other in others)
            state = "stopped" if node.stopped else "silent" if not own else "up" if own[1] else "refuses"
            seen.append(
                {
                    "number": node.number,
                    "port": node.port,
                    "role": "primary" if "master" in flags else "replica",
                    "of": numbers.get(words[3]),
                    "slots": " ".join(word for word in words[8:] if not word.startswith("[")),
                    "state": state,
                    "failed": failed,
                }
            )
        return seen

    def watch(self):
        while True:
            now = self.look()
            before = {node["number"]: node for node in self.seen}
            for node in now:
                for event in changes(before.get(node["number"], node), node):
                    self.say(event)
            self.seen = now
            time.sleep(0.2)

    def say(self, event):
        now = time.time()
        self.events.appendleft(f"{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now * 10) % 10} {event}")

    def stop(self, number, stopped):
        node = self.nodes[number - 1]
        node.stop(stopped)
        self.say(f"node {number} {'is stopped' if stopped else 'goes on'}")


def changes(old, new):
    """What happened to a node, in words."""
    name = f"node {new['number']}"
    if new["failed"] and not old["failed"]:
        yield f"the others agree that {name} has failed"
    if (new["role"], new["slots"]) != (old["role"], old["slots"]):
        if new["role"] == "replica":
            yield f"{name} calls itself a replica of node {new['of']}"
        elif new["slots"]:
            yield f"{name} calls itself the primary of slots {new['slots']}"
    if new["state"] == "refuses" and old["state"] != "refuses":
        yield f"{name} refuses all commands: most primaries are silent"
