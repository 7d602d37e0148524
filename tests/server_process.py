"""A server as a process of its own, which a test may kill, pause and start again on the same port and folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

HOST = "127.0.0.1"


class ServerProcess(ABC):
    """The server that `command` starts: it serves `port` of the loopback and keeps what it has in `folder`."""

    def __init__(self, command: Sequence[str | Path], folder: Path, port: int, url: str) -> None:
        self.command, self.folder, self.port, self.url = command, folder, port, url
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def answers(self) -> bool:
        """Whether a request is served now.

        Raises
        ------
        OSError
            Nobody listens, or not in time.
        """

    def start(self) -> None:
        """Start, for the first time or after `kill`, and wait until it answers."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with suppress(OSError):
                if self.answers():
                    return
            time.sleep(0.05)
        raise AssertionError(f"not ready: {self.log.read_text()}")

    def kill(self) -> None:
        """kill -9, paused or not."""
        if self.process:
            self.process.kill()
            self.process.wait(timeout=20)

    def pause(self) -> None:
        """Let it hold its connections and answer nothing, as a server that hangs or is behind a broken network."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)  # what a test sends next finds it standing still

    def resume(self) -> None:
        """Go on, first with what has come in since `pause`."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)


Server = TypeVar("Server", bound=ServerProcess)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server, started; dead at the end, in whatever state the test left it."""
    try:
        server.start()
        yield server
    finally:
        server.kill()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    with ExitStack() as taken:
        sockets = [taken.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
