"""The application without a network: a real engine, asked through ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from features.shop import load_shop
from serving.app import App
from serving.engine import Engine
from serving.settings import load_serving
from tests.workspace import ROOT


def start(folder: Path, *overrides: str) -> App:
    """An application with keys and store in a folder; without models unless the overrides name some."""
    places = [f"keys.folder={folder}", f"store.closed={folder}/closed", "models.uri=", f"models.cache={folder}/models"]
    settings = load_serving(ROOT / "configs" / "serving.toml", [*places, "store.url=memory:", *overrides])
    app = App()
    app.engine = Engine(settings, load_shop(ROOT / "configs" / "shop.toml"))
    return app


def engine_of(app: App) -> Engine:
    """Its engine."""
    assert app.engine is not None
    return app.engine


def client(app: App) -> httpx.AsyncClient:
    """Asks it; answers that never end are for `listen`."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://lotse")


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
