"""The shop's own web server: its pages, the browser client, and how the crowd stands.

Beside the service and not in it, as a shop is in life: its pages talk to the service as those of any other origin do.
It has no key, and nothing that its visitors do comes here. Pages need no build; the client does (`make clients`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from features.settings import SettingsError
from simulation.shop_page.board import Board

STATIC: Final = Path(__file__).parent / "static"
CLIENT: Final = Path(__file__).resolve().parents[2] / "clients" / "browser" / "dist"
SCRIPTS: Final = ("index.mjs", "banner.mjs")
BOARD_SECONDS: Final = 2.0
# A script of the page finds what belongs to each of these paths.
_PAGES: Final = (
    "/", "/about", "/search", "/cart", "/checkout", "/checkout/payment", "/thanks",
    "/category/{name}", "/product/{name}",
)  # fmt: skip


def client_scripts(folder: Path = CLIENT) -> dict[str, Path]:
    """The browser client's modules by name.

    Raises
    ------
    SettingsError
        They are not built.
    """
    found = {name: folder / name for name in SCRIPTS}
    if not all(path.is_file() for path in found.values()):
        raise SettingsError(
            f"the shop's pages need the browser client, and {folder} does not hold it; "
            "with Node 20 or later: make clients"
        )
    return found


def shop_app(
    document: Mapping[str, Any], scripts: Mapping[str, Path], board: Board, ending: asyncio.Event
) -> Starlette:
    """The application; ending: set when it shall stop, because who listens to the crowd's scores does not leave.

    document: as of `simulation.shop_page.catalogue`; scripts: as of `client_scripts`.
    """
    content = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()

    async def about_the_shop(request: Request) -> Response:
        del request
        return Response(content, media_type="application/json")

    async def client(request: Request) -> Response:
        path = scripts.get(request.path_params["name"])
        return FileResponse(path, media_type="text/javascript") if path else Response(status_code=404)

    async def crowd(request: Request) -> Response:
        del request
        return StreamingResponse(_scores(board, ending), media_type="text/event-stream")

    async def page(request: Request) -> Response:
        del request
        return FileResponse(STATIC / "index.html")

    async def no_page(request: Request, error: Exception) -> Response:
        del request, error
        return FileResponse(STATIC / "index.html", status_code=404)

    return Starlette(
        routes=[
            *(Route(path, page) for path in _PAGES),
            Route("/shop.json", about_the_shop),
            Route("/crowd", crowd),
            Route("/client/{name}", client),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[
            # another name that points here is a foreign page's attempt to read what is of this machine only
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
            Middleware(_Guarded, collector=document["collector"]),
        ],
        exception_handlers={404: no_page},
    )


class _Guarded:
    """Adds what browsers shall hold pages to: nothing from elsewhere, no frames, requests to the service alone."""

    def __init__(self, app: ASGIApp, collector: str) -> None:
        self._app = app
        self._policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            f"connect-src 'self' {collector}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["content-security-policy"] = self._policy
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "no-referrer"
                headers["cache-control"] = "no-cache"
            await send(message)

        await self._app(scope, receive, guarded)


async def _scores(board: Board, ending: asyncio.Event) -> AsyncIterator[bytes]:
    """The crowd's scores as server-sent events, once in a while."""
    while not ending.is_set():
        yield b"data: %s\n\n" % json.dumps(board.scores(), separators=(",", ":")).encode()
        try:
            async with asyncio.timeout(BOARD_SECONDS):
                await ending.wait()
        except TimeoutError:
            pass
