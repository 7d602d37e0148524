"""An original collector as a process of its own: writes down every request that it gets, and answers as it is told."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.server_process import HOST, ServerProcess
from tests.workspace import ROOT

Message = dict[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """The collector; the file `mood` in its folder holds the status of its answers and how many seconds they take."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    status, seconds = Path("mood").read_text().split()
    if scope["path"] != "/ready":
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        headers = [[part.decode("latin-1") for part in pair] for pair in scope["headers"]]
        line = [scope["method"], target.decode("latin-1"), headers, b64encode(body).decode()]
        with Path("requests").open("a") as file:
            file.write(json.dumps(line) + "\n")
        await asyncio.sleep(float(seconds))
    await send({"type": "http.response.start", "status": int(status), "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Got(NamedTuple):
    """One request, as it arrived; headers: by lower-case name."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Original(ServerProcess):
    """The process."""

    def __init__(self, folder: Path, port: int) -> None:
        command = [sys.executable, "-m", "uvicorn", "tests.serving.original:app", "--app-dir", ROOT]
        command += ["--port", str(port), "--no-access-log", "--no-server-header", "--no-date-header"]
        super().__init__(command, folder, port, f"http://{HOST}:{port}")
        self.turn(200)

    def answers(self) -> bool:
        """Whether it listens."""
        try:
            httpx.get(f"{self.url}/ready", timeout=5)
        except httpx.TransportError as error:
            raise OSError from error
        return True

    def turn(self, status: int, seconds: float = 0) -> None:
        """Answer like that from now on."""
        mood = self.folder / "mood.new"
        mood.write_text(f"{status} {seconds}")
        mood.rename(self.folder / "mood")

    def got(self) -> list[Got]:
        """Every request so far."""
        file = self.folder / "requests"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [Got(method, target, dict(headers), b64decode(body)) for method, target, headers, body in lines]
