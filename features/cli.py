"""The console script `lotse`: its verbs are found by the entry-point group `lotse.commands`."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from features.build_cli import build
from features.errors import EventError
from features.settings import SettingsError

features_app = typer.Typer(help="Look at the feature catalogue; features of a log.", no_args_is_help=True)


@features_app.callback()
def _features() -> None:
    """Look at the feature catalogue; features of a log."""


@features_app.command("list")
def list_features(group: Annotated[str, typer.Option(help="Only this group, e.g. pace.")] = "") -> None:
    """Print every feature with its meaning, unit and the consent it needs."""
    from features.catalogue import by_group  # noqa: PLC0415  (numba comes with it; --help must stay fast)

    groups = by_group()
    if group and group not in (name for name, _ in groups):
        raise SettingsError(f"no feature group {group!r}; there are: {', '.join(name for name, _ in groups)}")
    table = Table("feature", "group", "meaning", "unit", "consent", title="Feature catalogue")
    for name, features in groups:
        for feature in features if group in ("", name) else ():
            table.add_row(feature.name, name, " ".join(feature.doc.split()), feature.unit, feature.consent_name)
    Console().print(table)


@features_app.command("docs")
def write_docs(
    out: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("docs/features.md"),
    check: Annotated[bool, typer.Option(help="Write nothing; fail if the page is out of date.")] = False,
) -> None:
    """Write the catalogue as docs/features.md."""
    from features.catalogue import markdown  # noqa: PLC0415

    page = markdown()
    if not check:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page)
    elif not out.exists() or out.read_text() != page:
        raise SettingsError(f"{out} is out of date; run: lotse features docs")


features_app.command("build")(build)


def build_app() -> typer.Typer:
    """The command line with the verbs of every installed package."""
    app = typer.Typer(
        name="lotse",
        help="Live bounce, conversion and exit probabilities for running web sessions.",
        no_args_is_help=True,
        pretty_exceptions_show_locals=False,
        epilog="Start with: lotse demo",
    )
    for point in sorted(entry_points(group="lotse.commands"), key=lambda point: point.name):
        verb = point.load()
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=point.name)
        else:
            app.command(point.name)(verb)
    return app


def main() -> None:
    """Run `lotse`; what the user can mend is one line on stderr and exit code 2."""
    try:
        build_app()()
    except (EventError, SettingsError) as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(2)
