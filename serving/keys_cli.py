"""`lotse keys`: make, list and revoke the keys of the API."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from features.settings import SettingsError

if TYPE_CHECKING:
    from serving.keys import KeyFile

_ORIGIN: Final = re.compile(r"https?://[^/\s?#@]+")

keys = typer.Typer(help="Make, list and revoke the keys of the API.", no_args_is_help=True)

Config = Annotated[Path, typer.Option(help="Serving configuration.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override a key, e.g. keys.folder=/var/lib/lotse.")]
CONFIG: Final = Path("configs/serving.toml")


class Kind(Enum):
    """What a key is for."""

    public = "public"
    secret = "secret"


@keys.command("create")
def create(
    kind: Annotated[Kind, typer.Option(help="public: sends events, from browsers. secret: everything, from servers.")],
    name: Annotated[str, typer.Option(help="What it is for, e.g. shop.")],
    origins: Annotated[
        str, typer.Option(help="Pages that may use a public key, e.g. https://shop.example,https://m.shop.example.")
    ] = "",
    config: Config = CONFIG,
    set_: Overrides = None,
) -> None:
    """Make a key and print it: it is shown this once."""
    allowed = [origin.strip().rstrip("/").lower() for origin in origins.split(",") if origin.strip()]
    for origin in allowed:
        if not _ORIGIN.fullmatch(origin):
            raise SettingsError(f"--origins: found {origin!r}; expected scheme and host, such as https://shop.example")
    if allowed and kind is Kind.secret:
        raise SettingsError("--origins belongs to public keys; a secret key must not be in a page")
    key, shown = _file(config, set_).create(kind.value, name, allowed)
    print(shown)  # alone on stdout, for scripts
    told = Console(stderr=True, highlight=False)
    told.print(f"{kind.value} key {key.id}, not shown again; send it as 'Authorization: Bearer <key>'")


@keys.command("list")
def list_keys(config: Config = CONFIG, set_: Overrides = None) -> None:
    """Every key that was made, without what its owner sends."""
    table = Table()
    for column in ("id", "kind", "name", "origins", "created", "revoked"):
        table.add_column(column, overflow="fold")
    for key in _file(config, set_).read():
        revoked = _day(key.revoked_at) if key.revoked_at is not None else ""
        table.add_row(key.id, key.kind, escape(key.name), escape(" ".join(key.origins)), _day(key.created_at), revoked)
    Console().print(table)


@keys.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id, as `lotse keys list` shows it.")],
    config: Config = CONFIG,
    set_: Overrides = None,
) -> None:
    """Refuse a key from now on; running services follow within a second."""
    key = _file(config, set_).revoke(key_id)
    Console(highlight=False).print(f"{key.kind} key {key.id} ({escape(key.name)}) is refused from now on")


def _file(config: Path, overrides: list[str] | None) -> KeyFile:
    from serving.keys import KeyFile  # noqa: PLC0415
    from serving.settings import load_serving  # noqa: PLC0415

    return KeyFile(Path(load_serving(config, overrides or ()).keys.folder))


def _day(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}Z"
