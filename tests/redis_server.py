"""Throw-away Redis servers for tests: Debian's binary, folders and ports of their own, gone at the end."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from tests.server_process import HOST, ServerProcess, free_ports, running

SLOTS = 16384


class RedisServer(ServerProcess):
    """One `redis-server`."""

    def answers(self) -> bool:
        """Whether it has its data loaded; a password that it asks for does not matter."""
        with socket.create_connection((HOST, self.port), timeout=1) as client:
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith((b"+PONG", b"-NOAUTH"))


@dataclass
class RedisNodes:
    """A cluster of masters, each with its share of the slots."""

    nodes: list[RedisServer]

    @property
    def url(self) -> str:
        """The first node's: a client learns of the others from it."""
        return self.nodes[0].url


def server_binary() -> str:
    """The installed server.

    Debian's package redis-server would also run one for the whole machine. Its program is but a link to redis-check-rdb
    of redis-tools, which does what the name says that it is started by.

    Raises
    ------
    RuntimeError
        There is none.
    """
    found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    if not found:
        raise RuntimeError("no Redis server is installed; run: apt-get install redis-tools")
    return found


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """An empty server that forgets everything when it ends, unless `options` say otherwise.

    `redis_server("--appendonly", "yes", "--appendfsync", "always")` loses nothing that it has acknowledged.
    """
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="redis-") as name, running(_server(Path(name), port, *options)) as server:
        yield server


@contextmanager
def redis_cluster(*options: str) -> Iterator[RedisNodes]:
    """Three masters that share the slots and agree that the cluster is complete; options: as of `redis_server`."""
    ports = free_ports(6)
    with ExitStack() as stack:
        nodes = []
        for port, bus in zip(ports[:3], ports[3:], strict=True):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-cluster-")))
            own = ("--cluster-enabled", "yes", "--cluster-port", str(bus), *options)
            nodes.append(stack.enter_context(running(_server(folder, port, *own))))
        clients = [stack.enter_context(Redis(host=HOST, port=node.port, decode_responses=True)) for node in nodes]
        for number, client in enumerate(clients):
            first, behind = number * SLOTS // 3, (number + 1) * SLOTS // 3
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, behind - 1)
            if number:
                client.execute_command("CLUSTER MEET", HOST, ports[0], ports[3])
        deadline = time.monotonic() + 30
        while not all(client.cluster("INFO")["cluster_state"] == "ok" for client in clients):
            assert time.monotonic() < deadline, [client.cluster("INFO") for client in clients]
            time.sleep(0.05)
        yield RedisNodes(nodes)


def _server(folder: Path, port: int, *options: str) -> RedisServer:
    program = folder / "redis-server"
    program.symlink_to(server_binary())
    command = [program, "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no", *options]
    return RedisServer(command, folder, port, f"redis://{HOST}:{port}/0")
