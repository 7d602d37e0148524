"""`lotse demo --keep`: the shop's pages for a person, and a crowd that goes on browsing, until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from features.settings import SettingsError

if TYPE_CHECKING:
    from rich.console import Console

    from simulation.crowd import Visit
    from simulation.demo_service import DemoService

# Beside what is yours: configs/experiments.json is neither read nor written.
FOLDER: Final = Path("lotse-data/demo")
FLAGS: Final = FOLDER / "experiments.json"
_LOOK_SECONDS: Final = 0.25


def opened(port: int) -> socket.socket:
    """A socket for the shop's pages, before anything that takes long.

    Raises
    ------
    SettingsError
        The port is taken.
    """
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(("127.0.0.1", port))
    except OSError as error:
        found.close()
        raise SettingsError(f"--shop-port {port}: {error.strerror}; try --shop-port {port + 100}") from None
    return found


def overrides(port: int) -> list[str]:
    """Of the service: the shop's pages may read its answers, and flags are the demo's."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    FLAGS.unlink(missing_ok=True)
    return [
        f'cors.origins=["http://127.0.0.1:{port}","http://localhost:{port}"]',
        f'experiments.file="{FLAGS}"',
        f'experiments.history="{FOLDER / "versions"}"',
        f'experiments.learned="{FOLDER / "learned"}"',
    ]


async def keep_open(
    console: Console,
    service: DemoService,
    shop: socket.socket,
    visits: Sequence[Visit],
    *,
    crowd: int,
    browsed_seconds: float,
) -> None:
    """Write the flag, serve the pages and let the crowd browse, until a signal comes or the service ends.

    crowd: how many of it are there at a time; browsed_seconds: how long it has done so in haste.
    """
    import uvicorn  # noqa: PLC0415

    from simulation.demo_service import LOG  # noqa: PLC0415
    from simulation.help_offer import SILENT_SECONDS, configuration, silences, thresholds  # noqa: PLC0415
    from simulation.own_pace import browse_at_own_pace  # noqa: PLC0415
    from simulation.shop_page.app import client_scripts, shop_app  # noqa: PLC0415
    from simulation.shop_page.board import Board  # noqa: PLC0415
    from simulation.shop_page.catalogue import shop_document  # noqa: PLC0415

    await asyncio.sleep(max(SILENT_SECONDS - browsed_seconds, 0))
    limits = thresholds(await silences(service.url, visits))
    FLAGS.write_text(json.dumps(configuration(limits), indent=2) + "\n")
    board, ending = Board(), asyncio.Event()
    browsing = asyncio.create_task(browse_at_own_pace(service.url, visits, at_once=crowd, tell=board.tell))
    with closing(shop):
        try:
            scripts = client_scripts()
        except SettingsError as error:
            console.print(f"no shop to visit: {error}", soft_wrap=True, markup=False)
            console.print("the crowd goes on, and the service stays up; stop it with Ctrl-C")
            await _until(lambda: not service.runs)
        else:
            app = shop_app(shop_document(service.url, limits), scripts, board, ending)
            server = uvicorn.Server(
                uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2)
            )
            serving = asyncio.create_task(server.serve(sockets=[shop]))
            _tell(console, service.url, shop.getsockname()[1])
            await _until(lambda: server.should_exit or not service.runs)
            ending.set()  # listeners go first: the server waits for them
            server.should_exit = True
            await serving
    browsing.cancel()
    if not service.runs:
        raise SettingsError(f"the service ended by itself; its log is {LOG}")


async def _until(true: Callable[[], bool]) -> None:
    """Return when it is so."""
    while not true():
        await asyncio.sleep(_LOOK_SECONDS)


def _tell(console: Console, url: str, port: int) -> None:
    console.print(f"be one of the crowd:    http://127.0.0.1:{port}/", soft_wrap=True)
    console.print(f"all live sessions:      {url}/console#live", soft_wrap=True)
    console.print("the crowd goes on, and the service stays up; stop it with Ctrl-C")
