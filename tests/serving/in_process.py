"""The service without a network: a real engine, asked directly at a time of the test's own choice, or through ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx

from features.shop import load_shop
from serving.app import App
from serving.engine import Engine
from serving.requests import Answer, Request
from serving.settings import load_serving
from tests.workspace import ROOT, packed

WireEvent = Mapping[str, Any]


def open_engine(trained: Path | None, folder: Path, *overrides: str) -> Engine:
    """An engine with store and keys in `folder`, and the models of a folder where `lotse train` has run, or none."""
    own = [
        *(packed(trained) if trained else ("models.uri=", f"models.cache={folder}/models")),
        f"keys.folder={folder}",
        f"store.url=embedded:{folder}/live",
        f"store.closed={folder}/closed",
        f"store.spool={folder}/spool",
        f"experiments.history={folder}/history",
        "store.deadline_seconds=60",  # a busy machine is no outage
    ]
    settings = load_serving(ROOT / "configs" / "serving.toml", [*own, *overrides])
    return Engine(settings, load_shop(ROOT / "configs" / "shop.toml"))


async def post(engine: Engine, requests: Sequence[Sequence[WireEvent]], received_ms: int) -> list[list[Answer]]:
    """The answers to requests that are taken in the same turn, each an array of events."""
    taken = [Request(json.dumps(list(events)).encode()) for events in requests]
    later = engine.take(taken, received_ms)
    if later is not None:
        await later
    for request in taken:
        if request.problem:
            raise request.problem
    return [request.answer for request in taken if isinstance(request.answer, list)]


def start(folder: Path, *overrides: str) -> App:
    """An application whose engine has its store in memory and no models, unless the overrides name others."""
    app = App()
    app.engine = open_engine(None, folder, "store.url=memory:", *overrides)
    return app


def engine_of(app: App) -> Engine:
    """Its engine."""
    assert app.engine is not None
    return app.engine


def client(app: App) -> httpx.AsyncClient:
    """Asks it; answers that never end are for `listen`."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost")


async def ask(
    app: App,
    method: str,
    target: bytes,
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: bytes = b"",
    address: str = "127.0.0.1",
) -> tuple[int, bytes]:
    """Status and body of the answer to a request that is sent byte for byte as it is here, however odd."""
    raw_path, _, query = target.partition(b"?")
    scope = {
        "type": "http", "method": method, "path": unquote(raw_path.decode("latin-1")), "raw_path": raw_path,
        "query_string": query, "headers": list(headers), "client": (address, 1), "server": ("127.0.0.1", 3000),
    }  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message["body"] for message in sent[1:])


class Listening:
    """A stream that was begun.

    Attributes
    ----------
    status, headers: of the answer; text: what has come so far.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.text = ""
        self.ended = False
        self.gone = asyncio.Event()
        self._more = asyncio.Event()

    async def send(self, message: dict[str, Any]) -> None:
        """What the application sends."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.text += message["body"].decode()
            self.ended = not message.get("more_body", False)
        self._more.set()

    async def receive(self) -> dict[str, Any]:
        """Nothing but the end of the connection."""
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what must come; the time is that of a test that has failed."""
        async with asyncio.timeout(60):
            while not condition():
                assert not self.ended, self.text
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def listen(app: App, path: str, query: str = "", **headers: str) -> AsyncIterator[Listening]:
    """A stream, and at the end the client goes away."""
    listening = Listening()
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": sent}
    task = asyncio.create_task(app(scope, listening.receive, listening.send))
    try:
        yield listening
    finally:
        listening.gone.set()
        await task
