"""`lotse serve`: the service in the foreground."""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from features.settings import SettingsError

if TYPE_CHECKING:
    from serving.settings import ServingSettings, TlsSettings


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
    _check_open(settings)
    _check_store(settings)
    _check_outbound(settings)
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
    command += ["--timeout-keep-alive", str(settings.server.keep_alive_seconds)]
    command += ["--timeout-graceful-shutdown", str(settings.server.stop_seconds)]
    command += _tls(settings.tls)
    # this process becomes the supervisor: a signal to `lotse serve` reaches it, and nothing stands between
    os.execve(sys.executable, [sys.executable, "-m", *command], environment)


def _tls(tls: TlsSettings) -> list[str]:
    """BentoML's options.

    Raises
    ------
    SettingsError
        A file is missing.
    """
    for name, path in tls.model_dump().items():
        if path and not Path(path).is_file():
            raise SettingsError(f"tls.{name} = {path!r}: there is no such file")
    if not tls.certificate:
        return []
    options = ["--ssl-certfile", tls.certificate, "--ssl-keyfile", tls.key]
    if tls.client_ca:
        options += ["--ssl-ca-certs", tls.client_ca, "--ssl-cert-reqs", str(int(ssl.CERT_REQUIRED))]
    return options


def _check_open(settings: ServingSettings) -> None:
    """Without keys only this machine may ask.

    Raises
    ------
    SettingsError
        Others could reach the service, and it has no keys.
    """
    from serving.keys import KeyFile  # noqa: PLC0415

    keys, host = settings.keys, settings.server.host
    if keys.required is False or (keys.required == "auto" and (host == "::1" or host.startswith("127."))):
        return
    file = KeyFile(Path(keys.folder))
    if not file.read():
        raise SettingsError(
            f"server.host = {host!r} can be reached from other machines and there are no keys in {file.path}; "
            "run: lotse keys create --kind secret --name <name> (and --kind public for browsers), "
            "or set keys.required=false to be open to everybody"
        )


def _check_outbound(settings: ServingSettings) -> None:
    """Targets and segments that cannot be used are told here, as are secrets that do not lie where they should.

    Raises
    ------
    SettingsError
        As of `serving.outbound.targets`, or a segment asks for a head or a feature that there is not.
    """
    if settings.outbound.targets or settings.outbound.segments:
        from features.definitions import CATALOGUE  # noqa: PLC0415
        from serving.outbound import targets  # noqa: PLC0415
        from serving.outbound.crossings import Segments  # noqa: PLC0415

        targets(settings.outbound)
        Segments(settings.outbound.segments, list(CATALOGUE.features), settings.models.heads, 1)


def _check_store(settings: ServingSettings) -> None:
    """A store that cannot be opened is told once, here, and not by every worker again and again.

    Raises
    ------
    SettingsError
        There is no such store, or what lies there needs another key.
    """
    from serving.stores import open_store  # noqa: PLC0415

    if settings.store.url.startswith("embedded:"):
        store = open_store(settings.store)
        store.close()
