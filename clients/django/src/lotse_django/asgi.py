"""For servers that speak ASGI: what waits is sent before the process ends.

    application = with_lifespan(get_asgi_application())

Django does not answer the lifespan protocol by itself. Under WSGI nothing is needed: Python's own exit does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.apps import apps

from lotse_django.client import Client

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]


def with_lifespan(application: Application) -> Application:
    """The application, told when its server begins and ends."""

    async def wrapped(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
            return
        await receive()
        client: Client | None = getattr(apps.get_app_config("lotse_django"), "client", None)
        if client:
            await asyncio.to_thread(client.start)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if client:
            await asyncio.to_thread(client.close)
        await send({"type": "lifespan.shutdown.complete"})

    return wrapped
