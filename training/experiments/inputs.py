"""What the verbs of `lotse experiment` are given: tables, closed sessions, definitions, conditions, as typed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd
from rich.console import Console
from rich.progress import track

from features.experiments import Experiment, load_experiments, parse_experiments
from features.settings import SettingsError
from training.experiments.closed import as_outcome, sessions_of_closed, units_of_closed
from training.experiments.table import read_table

_WHERE: Final = re.compile(r"([^<>=]+)(>=|<=|=|>|<)(.+)")


def units_asked(table: Path | None, closed: Path | None, key: str, definition: Experiment) -> pd.DataFrame:
    """The units of an experiment, out of a table of them or of sessions that are over.

    Raises
    ------
    SettingsError
        Both were given, or neither.
    """
    if table is not None and closed is None:
        return read_table(table, key)
    if closed is not None and table is None:
        return units_of_closed(closed, {key: definition}, through)
    raise _one_of()


def history_asked(table: Path | None, closed: Path | None, goal: str, where: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """What to plan with, and the column of its outcome; goal: of sessions `column[:kind]`.

    Raises
    ------
    SettingsError
        Both were given, or neither; a condition that cannot be read, or asks what is not there.
    """
    conditions = [_condition(one) for one in where]
    if table is not None and closed is None:
        history, column = read_table(table), goal
    elif closed is not None and table is None:
        column, _, kind = goal.partition(":")
        history = _sessions(closed, column, kind or "binary", [name for name, _, _ in conditions])
    else:
        raise _one_of()
    for name, comparison, value in conditions:
        if name not in history:
            raise SettingsError(f"--where: the table has no column {name!r}; it has {', '.join(history.columns)}")
        history = history[_holds(history[name], comparison, value)]
    return history, column


def _one_of() -> SettingsError:
    return SettingsError(
        "give --table, units as lotse experiment units writes them, or --closed lotse-data/closed: one of both"
    )


def _sessions(closed: Path, goal: str, kind: str, more: Iterable[str]) -> pd.DataFrame:
    """Sessions that are over as a history, with the outcome in the goal's column."""
    if kind not in ("binary", "numeric", "revenue"):
        raise SettingsError(f"--goal {goal}:{kind}: a goal is binary, numeric or revenue")
    found = sessions_of_closed(closed, [goal, *more], through)
    return found.assign(**{goal: as_outcome(found[goal], kind)})


def through(files: Sequence[Path]) -> Iterable[Path]:
    """Show on a terminal that files are gone through."""
    console = Console(stderr=True)
    return track(files, "sessions that are over", console=console, transient=True, disable=not console.is_terminal)


def _condition(text: str) -> tuple[str, str, str]:
    """Column, comparison and value."""
    found = _WHERE.fullmatch(text)
    if not found:
        raise SettingsError(f"cannot read {text!r}; write it as --where experiment=banner or --where 'cart_adds>=1'")
    name, comparison, value = found.groups()
    return name.strip(), comparison, value.strip()


def _holds(values: pd.Series, comparison: str, asked: str) -> pd.Series:
    """Which rows a condition is true of."""
    if comparison == "=":
        return values.astype(str) == asked
    try:
        number = float(asked)
    except ValueError:
        raise SettingsError(f"--where: {asked!r} is no number to compare with") from None
    compared: Mapping[str, Any] = {"<": values.lt, "<=": values.le, ">": values.gt, ">=": values.ge}
    return compared[comparison](number)  # type: ignore[no-any-return]


def columns_of(given: Sequence[str] | None) -> dict[str, str]:
    """Our names of columns -> the table's.

    Raises
    ------
    SettingsError
        One is not written as ours=theirs.
    """
    pairs = [one.partition("=") for one in given or []]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise SettingsError(f"cannot read {name + equals + value!r}; write it as --column arm=version")
    return {name: value for name, _, value in pairs}


def definition_of(config: Path, key: str | None) -> tuple[str, Experiment]:
    """An experiment's key and definition; the only one if no key is given.

    Raises
    ------
    SettingsError
        There is no such experiment, or several and no key.
    """
    defined = load_experiments(config)
    if key is None and len(defined) == 1:
        (key,) = defined
    if key is None or key not in defined:
        wanted = f"no experiment {key!r}" if key else "which experiment?"
        raise SettingsError(f"{wanted}; {config} defines: {', '.join(defined) or 'none'}")
    return key, defined[key]


def definition_of_options(
    key: str, arms: str | None, goals: list[str], shares: str | None, planned_units: int | None
) -> Experiment:
    """A definition made of options.

    Raises
    ------
    SettingsError
        Arms or goals are missing, or are none.
    """
    if not arms or not goals:
        raise SettingsError(
            "a foreign table needs both --arms, the control first, and --goal; e.g. --arms old,new --goal bought"
        )
    tree: dict[str, Any] = {"arms": arms.split(","), "goals": []}
    for place, text in enumerate(goals):
        name, _, rest = text.partition(":")
        kind, _, better = rest.partition(":")
        tree["goals"].append(
            {"name": name, "kind": kind or "binary", "better": better or "higher", "primary": place == 0}
        )
    if planned_units:
        tree["planned_units"] = planned_units
    if shares:
        try:
            tree["shares"] = [float(share) for share in shares.split(",")]
        except ValueError:
            raise SettingsError(f"--shares {shares!r} must be numbers, e.g. 0.9,0.1") from None
    return parse_experiments({key: tree}, "the options")[key]
