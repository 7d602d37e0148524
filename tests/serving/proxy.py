"""A TCP proxy before a server that behaves as broken networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Literal

from tests.server_process import HOST

# Black hole: nothing arrives, nothing is closed; mute: requests arrive, answers do not; slow: two seconds each way.
Mood = Literal["well", "black hole", "mute", "slow", "reset"]


class Proxy:
    """Passes bytes on as its mood is. Connections that were silenced stay so, as half-open ones do."""

    def __init__(self, to_port: int) -> None:
        self.mood: Mood = "well"
        self.port = 0
        self._to = to_port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._connected, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def turn(self, mood: Mood) -> None:
        """Behave like that from now on."""
        self.mood = mood
        if mood == "reset":
            for writer in list(self._writers):
                _reset(writer)

    async def close(self) -> None:
        """End all connections."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in list(self._writers):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self.mood == "reset":
            _reset(writer)
            return
        try:
            theirs, there = await asyncio.open_connection(HOST, self._to)
        except OSError:
            _reset(writer)
            return
        self._writers.add(there)
        self._begin(reader, there, ("black hole",))
        self._begin(theirs, writer, ("black hole", "mute"))

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silent: tuple[Mood, ...]) -> None:
        task = asyncio.create_task(self._pass_on(reader, writer, silent))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silent: tuple[Mood, ...]
    ) -> None:
        broken = False
        with suppress(OSError):
            while content := await reader.read(2**16):
                if self.mood == "slow":
                    await asyncio.sleep(2)
                broken = broken or self.mood in silent
                if not broken:
                    writer.write(content)
                    await writer.drain()
        if not broken:
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
