"""How a worker takes new connections: handshakes in a limited time, and no more clients than its share.

A loop accepts whatever waits. Of many clients that come at once (a load balancer that connects again) the worker that
wakes first gets most and keeps them: their requests wait for it while another worker is idle. So where workers share a
socket, who has more connections than another leaves a new one to it for a moment.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

# So many connections more than another worker are none too many.
_AHEAD: Final = 1
# How often, and for how long each time, a connection is left to others that may have no time for it.
_LEFT: Final = 10
_LEFT_SECONDS: Final = 0.001
# When the process may not open more files; as long as asyncio's own.
_FULL_SECONDS: Final = 1.0
_WORD: Final = 8

logger = logging.getLogger("lotse.connections")


class Shares:
    """How many connections the workers of a service have, each in a file of eight bytes that the others look into."""

    def __init__(self, folder: Path, own: str, lives: Callable[[str], bool]) -> None:
        """own: the name of this worker, unlike that of every other; lives: whether one of that name still runs."""
        self._folder, self._name, self._lives = folder, own, lives
        self._own = self._words(own)
        self._others: dict[str, memoryview] = {}
        self.look()

    def _words(self, name: str) -> memoryview:
        with (self._folder / name).open("a+b") as file:
            file.truncate(_WORD)
            return memoryview(mmap.mmap(file.fileno(), _WORD)).cast("q")

    def look(self) -> None:
        """See who is there."""
        found = {}
        for path in self._folder.iterdir():
            name = path.name
            if name == self._name:
                continue
            if self._lives(name):
                found[name] = self._others.get(name) or self._words(name)
            else:
                path.unlink(missing_ok=True)
        self._others = found

    def tell(self, count: int) -> None:
        """Have the others see how many connections this worker has."""
        self._own[0] = count

    def ahead(self) -> int:
        """How many more this worker has than the one with the fewest."""
        return self._own[0] - min((words[0] for words in self._others.values()), default=self._own[0])


class Accepting:
    """What `loop.create_server` gives, for a socket that other processes accept from, too."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: Callable[[], Any],
        shared: socket.socket,
        shares: Shares,
        **options: Any,
    ) -> None:
        """Begin; options: of `loop.connect_accepted_socket`."""
        self.sockets = [shared]
        self._loop, self._protocol, self._shares, self._options = loop, protocol, shares, options
        # its owner may close the one that is given while the loop still looks at it
        self._socket = shared.dup()
        self._socket.setblocking(False)
        self._connecting: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._left = 0
        self._look()

    def _look(self) -> None:
        self._timer = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        if self._left < _LEFT and self._shares.ahead() > _AHEAD:
            self._left += 1
            self._pause(_LEFT_SECONDS)
            return
        self._left = 0
        try:
            client, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was there first
        except OSError as error:
            logger.error("no connection can be accepted: %s", error)
            self._pause(_FULL_SECONDS)
            return
        task = self._loop.create_task(self._connect(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._timer = self._loop.call_later(seconds, self._look)

    async def _connect(self, client: socket.socket) -> None:
        try:
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._protocol, client, **self._options)
        except OSError:  # it has gone, or did not end its handshake
            client.close()

    def close(self) -> None:
        """Accept nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    async def wait_closed(self) -> None:
        """It is closed at once."""


def take_connections(loop: asyncio.AbstractEventLoop, handshake_seconds: float, shares: Shares | None = None) -> None:
    """Have the loop take connections so, on what it listens to from now on.

    handshake_seconds: a connection is known to `Watch` after its TLS handshake, for which uvicorn passes no limit on,
    and the loop's own is a minute. shares: of the workers that listen to the same sockets, if there are others.
    """
    create_server = loop.create_server

    async def limited(protocol: Callable[[], Any], *arguments: Any, **named: Any) -> Any:
        options = {}
        if named.get("ssl"):
            named.setdefault("ssl_handshake_timeout", handshake_seconds)
            options = {name: named[name] for name in ("ssl", "ssl_handshake_timeout")}
        if shares is None or named.get("sock") is None:
            return await create_server(protocol, *arguments, **named)
        named["sock"].listen(named.get("backlog", 2_048))
        return Accepting(loop, protocol, named["sock"], shares, **options)

    loop.create_server = limited  # type: ignore[method-assign,assignment]
