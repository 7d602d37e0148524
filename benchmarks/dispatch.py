"""Microseconds that the HTTP side takes for a request, without a network: the ASGI application called in this process.

    python -m benchmarks.dispatch [--requests 1000] [--runs 100]

The store is in memory and no model is loaded, so that what is compared is the way to the engine and back.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import console
from features.shop import load_shop
from serving.app import App
from serving.engine import Engine
from serving.settings import load_serving

ROOT = Path(__file__).resolve().parents[1]
# What a browser sends, in short.
HEADERS = [
    (b"host", b"shop.example"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"*/*"),
    (b"accept-language", b"en"),
    (b"content-type", b"application/json"),
    (b"content-length", b"120"),
]
BODY = b'{"visitor":"v%d","name":"view_item","page":"/product/:id","item":"shoes-7","price":9.5,"device":"mobile"}'


async def ask(app: App, path: str, requests: int) -> float:
    """Seconds for so many requests, one after the other."""

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200, message

    begin = time.perf_counter()
    for number in range(requests):
        body = BODY % (number % 1000)

        async def receive(body: bytes = body) -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        here = ("127.0.0.1", 3000)
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": HEADERS}
        scope |= {"client": here, "server": here}
        await app(scope, receive, send)
    return time.perf_counter() - begin


def main() -> None:
    """Ask in turn, tell the fastest: what is slower was disturbed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        places = [f"keys.folder={name}", f"store.closed={name}/closed", f"models.uri=sqlite:///{name}/mlflow.db"]
        settings = load_serving(ROOT / "configs" / "serving.toml", [*places, "store.url=memory:", "server.noop=true"])
        app = App()
        app.engine = Engine(settings, load_shop(ROOT / "configs" / "shop.toml"))
        seconds: dict[str, list[float]] = {"/v1/noop": [], "/v1/events": []}
        for _ in range(options.runs):
            for path, found in seconds.items():
                found.append(asyncio.run(ask(app, path, options.requests)))
    for path, found in seconds.items():
        console.print(f"POST {path}: {min(found) / options.requests * 1e6:.2f} us a request")


if __name__ == "__main__":
    main()
