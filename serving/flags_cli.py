"""`lotse flags`: check the configuration of flags and experiments, push it to a running service, and roll it back."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from features.settings import SettingsError
from serving.keys_cli import CONFIG, Config, Overrides

flags = typer.Typer(help="Check, push and roll back flags and experiments.", no_args_is_help=True)

KEY: Final = "LOTSE_KEY"
_EXPERIMENTS: Final = "/v1/experiments"
_SECONDS: Final = 30
Url = Annotated[
    str, typer.Option(envvar="LOTSE_URL", help=f"Where the service is; the environment's {KEY} is a secret key.")
]
URL: Final = "http://localhost:3000"
IfVersion = Annotated[str, typer.Option(help="Only if this version runs: what `show` told.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]


@flags.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="Default: experiments.file of the configuration.")] = None,
    config: Config = CONFIG,
    set_: Overrides = None,
) -> None:
    """Check a file as the service does when it starts, drafts included; no service is needed.

    For example: lotse flags check configs/experiments.json
    """
    from features.compiler import compile_fold  # noqa: PLC0415  (numba takes a second)
    from serving.experiments.attributes import names_of  # noqa: PLC0415
    from serving.experiments.configuration import parse, started  # noqa: PLC0415
    from serving.settings import load_serving  # noqa: PLC0415

    settings = load_serving(config, set_ or ())
    path = file or Path(settings.experiments.file)
    known = names_of(settings.models.heads, compile_fold())
    configuration = parse(_read(path), known, str(path))
    started(configuration, known, str(path))
    told = Console(highlight=False)
    for key in configuration.ruleset.keys:
        told.print(f"feature {key}", markup=False)
    for key, one in configuration.definitions.items():
        told.print(f"experiment {key}: {one.status}, phase {one.phase}, {' | '.join(one.arms)}", markup=False)
    told.print(f"version {configuration.version}")


@flags.command()
def show(url: Url = URL) -> None:
    """Print the configuration that runs; its version, and what keeps a newer file from running, on stderr.

    For example: lotse flags show > experiments.json
    """
    found = _asked(url, "GET")
    told = Console(stderr=True, highlight=False)
    told.print(f"version {found['version']}, of {_day(found['written_at'])}")
    if found["error"]:
        told.print(f"the file cannot be used: {found['error']}", markup=False)
    print(json.dumps(found["configuration"], indent=2))


@flags.command()
def push(
    file: Annotated[Path, typer.Argument(help="JSON: the whole configuration, or with --patch what to change in it.")],
    patch: Annotated[bool, typer.Option("--patch", help="A JSON merge patch: null removes, the rest stays.")] = False,
    dry_run: DryRun = False,
    if_version: IfVersion = "",
    url: Url = URL,
) -> None:
    """Have a service run another configuration; one that it cannot run is refused and changes nothing.

    For example: lotse flags push configs/experiments.json --dry-run
    """
    method = "PATCH" if patch else "PUT"
    _tell(_asked(url, method, dry_run=dry_run, body=_read(file), if_version=if_version))


@flags.command()
def history(url: Url = URL) -> None:
    """The versions that were pushed, the newest first.

    For example: lotse flags history --url https://lotse.example
    """
    found = _asked(url, "GET", "/versions")
    table = Table("version", "pushed", "how", "by key")
    for one in found["versions"]:
        runs = " (runs)" if one["version"] == found["version"] else ""
        table.add_row(f"{one['version']}{runs}", _day(one["at"]), one["how"], one.get("by", ""))
    Console().print(table)


@flags.command()
def rollback(
    version: Annotated[str, typer.Argument(help="As `history` shows it; default: the one before.")] = "",
    dry_run: DryRun = False,
    if_version: IfVersion = "",
    url: Url = URL,
) -> None:
    """Have a version run that was there before.

    For example: lotse flags rollback 4be1f2a90c3d5e6f
    """
    query = {"version": version} if version else {}
    _tell(_asked(url, "POST", "/rollback", dry_run=dry_run, if_version=if_version, query=query))


def _asked(
    url: str,
    method: str,
    path: str = "",
    *,
    dry_run: bool = False,
    body: bytes | None = None,
    if_version: str = "",
    query: dict[str, str] | None = None,
) -> Any:
    """The service's answer.

    Raises
    ------
    SettingsError
        There is none, or it refuses: with what it says.
    """
    import httpx  # noqa: PLC0415

    headers = {"authorization": f"Bearer {os.environ[KEY]}"} if os.environ.get(KEY) else {}
    headers |= {"if-match": f'"{if_version}"'} if if_version else {}
    parameters = {**(query or {}), **({"dry_run": "true"} if dry_run else {})}
    try:
        address = f"{url.rstrip('/')}{_EXPERIMENTS}{path}"
        answer = httpx.request(method, address, params=parameters, headers=headers, content=body, timeout=_SECONDS)
    except httpx.HTTPError as error:
        raise SettingsError(f"{url} does not answer ({error}); name the service with --url") from None
    try:
        content = answer.json()
    except ValueError:
        raise SettingsError(f"{url} answers with {answer.status_code} and no JSON; is that the service?") from None
    if answer.is_error:
        if content.get("changes"):
            _tell_changes(content["changes"])
        hint = f"; set {KEY} to a secret key of the service" if answer.status_code in (401, 403) else ""
        raise SettingsError(f"{content.get('detail', answer.status_code)}{hint}")
    return content


def _tell(pushed: Any) -> None:
    _tell_changes(pushed["changes"])
    runs = "would run" if pushed["dry_run"] else "runs"
    Console(highlight=False).print(f"version {pushed['version']} {runs}")


def _tell_changes(changes: dict[str, dict[str, list[str]]]) -> None:
    told = Console(highlight=False)
    for section, kinds in changes.items():
        for kind, keys in kinds.items():
            if keys:
                told.print(f"{section} {kind}: {', '.join(keys)}", markup=False)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None


def _day(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}Z"
