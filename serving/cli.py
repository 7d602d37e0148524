"""`lotse serve`: the service in the foreground."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def serve(
    config: Annotated[Path, typer.Option(help="Serving configuration.")] = Path("configs/serving.toml"),
    shop: Annotated[Path, typer.Option(help="Shop configuration.")] = Path("configs/shop.toml"),
    host: Annotated[str | None, typer.Option(help="Address to listen on; overrides server.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; overrides server.port.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key, e.g. session.timeout_minutes=20. Repeatable.")
    ] = None,
) -> None:
    """Score live sessions with the champions of the MLflow registry.

    Send an event: curl localhost:3000/v1/events -d '{"visitor": "me", "name": "page_view"}'
    """
    from features.shop import load_shop  # noqa: PLC0415
    from serving.settings import load_serving, to_environment  # noqa: PLC0415
    from serving.supervision import SUPERVISOR  # noqa: PLC0415

    overrides = list(set_ or ())
    overrides += [f'server.host="{host}"'] if host is not None else []
    overrides += [f"server.port={port}"] if port is not None else []
    settings = load_serving(config, overrides)  # mistakes are told here, not in a worker's log
    load_shop(shop)
    environment = {
        **os.environ,
        **to_environment(config, shop, overrides),
        SUPERVISOR: str(os.getpid()),
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    command = ["bentoml", "serve", "serving.service:Lotse", "--host", settings.server.host]
    command += ["--port", str(settings.server.port), "--working-dir", str(Path.cwd())]
    # this process becomes the supervisor: a signal to `lotse serve` reaches it, and nothing stands between
    os.execve(sys.executable, [sys.executable, "-m", *command], environment)
