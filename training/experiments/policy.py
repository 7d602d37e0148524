"""A policy by its name: what `lotse experiment value` values.

In: the name of an arm (everybody gets it), of an allocation (learned from the earlier half of the units, valued on the
later), or a file with a table of probabilities: one, or what the service has learned. Out: the table, the score it
asks, and the units to value it on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from features.allocation import Goal as Striven
from features.allocation import Plan, Table, allocation_of
from features.experiments import Experiment, Goal
from features.settings import SettingsError


class Policy(NamedTuple):
    """What is to be valued.

    told: in words; score: the column its bins are of, None if it has none; units: to value it on.
    """

    told: str
    table: Table
    score: str | None
    units: pd.DataFrame


def policy_of(
    named: str, key: str, definition: Experiment, goal: Goal, units: pd.DataFrame, score: str | None
) -> Policy:
    """The policy of that name; score: of a file's table, where the definition does not say it.

    Raises
    ------
    SettingsError
        Neither an arm, an allocation nor a file, or a table of other arms.
    """
    arms, shares = definition.arms, definition.shares
    if named in arms:
        line = [float(arm == named) for arm in arms]
        return Policy(f"{named}, always", Table(arms, (), [line, line], line, 0.0), None, units)
    path = Path(named)
    if path.suffix == ".json" or path.exists():
        table = _read(path, key, definition)
        if table.arms != arms:
            raise SettingsError(f"{path} is of the arms {', '.join(table.arms)}; the experiment has {', '.join(arms)}")
        asked = score or getattr(definition.allocation, "score", None)
        if table.edges and asked is None:
            raise SettingsError(f"{path} goes by a score; say which: --score exit")
        return Policy(str(path), table, asked if table.edges else None, units)
    options = {"name": named}
    if definition.allocation.name == named:
        options = definition.allocation.model_dump()
    if score and named != "fixed":
        options["score"] = score
    allocation = allocation_of(options)
    plan = Plan(
        arms, shares, allocation, Striven(goal.kind, goal.better), definition.holdback, definition.minimum_share
    )
    asked = getattr(allocation, "score", None)
    if named == "fixed":
        return Policy("the fixed shares", plan.table(plan.nothing(), 0), None, units)
    ordered = units.sort_values("exposed_at", kind="stable")
    earlier, later = ordered.iloc[: len(ordered) // 2], ordered.iloc[len(ordered) // 2 :]
    table = _learned(plan, earlier, goal, asked)
    return Policy(f"{named}, learned from the earlier half of the units", table, asked, later)


def _learned(plan: Plan, units: pd.DataFrame, goal: Goal, score: str | None) -> Table:
    """What the allocation makes of units, in periods in which the arms' probabilities were the same for all."""
    state = plan.nothing()
    usable = units[~units["forced"].astype(bool) & units[goal.column].notna()]
    now_ms = int(units["exposed_at"].max()) + 1 if len(units) else 0
    arm = pd.Index(plan.arms).get_indexer(pd.Index(usable["arm"])).astype(np.int64)
    known = usable[score].to_numpy(float) if score else np.full(len(usable), np.nan)
    hour = usable["exposed_at"].to_numpy(np.int64) // 3_600_000
    for one in np.unique(hour):
        here = hour == one
        rows = {
            "arm": arm[here], "score": known[here], "outcome": usable[goal.column].to_numpy(float)[here],
            "exposed_at": np.zeros(here.sum()),
        }  # fmt: skip
        state = state.seen("units", int(one) * 3_600_000, plan.sums(rows, now_ms))
    return plan.table(state, now_ms)


def _read(path: Path, key: str, definition: Experiment) -> Table:
    """The table of a file; of what a service has learned, the latest one of the experiment."""
    try:
        text = path.read_text()
        found = json.loads(text)
        if isinstance(found, dict) and "experiments" in found:
            learned = found["experiments"].get(key)
            if not learned or not learned["tables"]:
                raise SettingsError(f"{path} has no table of {key} yet; the service goes by the fixed shares: fixed")
            shares, bins = definition.shares, learned["tables"][-1]["bins"]
            return Table(learned["arms"], learned["edges"], bins, shares, definition.holdback)
        return Table.from_json(text)
    except FileNotFoundError:
        raise SettingsError(f"no file {path}; a policy is an arm, an allocation or such a file") from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"{path} is no table of probabilities: {error}") from None
