"""Units of experiments out of sessions that are over: what was assigned, and what came of it.

In: the Parquet files of handed-on sessions, each with its assignments. Out: rows of `features.experiments.UNIT_COLUMNS`
and one column a goal: what the unit did after its exposure. A session that still runs is not there yet.

`assigned_in` reads, `outcomes` holds the rule; a service that learns as files come uses them, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.events import hash64
from features.experiments import (
    CLOSED_SHIFT,
    FORCED,
    HOLDBACK,
    MOST_GOALS,
    SCORES,
    UNIT_COLUMNS,
    VISITOR,
    Experiment,
)

_SESSION: Final = ("visitor", "started_at", "events")
_ASSIGNED: Final = "assignments"


def units_of(files: Iterable[Path], experiments: Mapping[str, Experiment]) -> pd.DataFrame:
    """A row a unit and experiment, in the order of the exposures; other experiments than these are left out.

    A goal's column is what the session has of it, less what it had at the exposure. Of a visitor who was assigned for
    later sessions, too, it is the sum over all of them.
    """
    goals = sorted({goal.column for one in experiments.values() for goal in one.goals})
    parts = [assigned_in(path, goals) for path in files]
    rows = (
        pd.concat([part for part in parts if len(part)], ignore_index=True) if any(map(len, parts)) else _empty(goals)
    )
    found = [_of_experiment(rows[rows["experiment"] == hash64(key)], key, one) for key, one in experiments.items()]
    whole = pd.concat(found) if found else pd.DataFrame({name: _column(name) for name in UNIT_COLUMNS})
    return whole.sort_values("exposed_at", kind="stable", ignore_index=True)


def assigned_in(path: Path, goals: Iterable[str]) -> pd.DataFrame:
    """A row an assignment of a file, of whichever experiment: its columns as they were noted, and its session's.

    goals: columns of sessions that are wanted, each as `goal <column>`; NaN where the file has no such column.
    """
    goals = list(goals)
    file = pq.ParquetFile(path)
    names = set(file.schema_arrow.names)
    if _ASSIGNED not in names:
        return _empty(goals)
    table = file.read([*_SESSION, _ASSIGNED, *(goal for goal in goals if goal in names and goal not in _SESSION)])
    lists = table.column(_ASSIGNED).combine_chunks()
    if not len(lists.flatten()):
        return _empty(goals)
    parents = pc.list_parent_indices(lists)
    assigned = pa.Table.from_struct_array(pc.list_flatten(lists)).to_pandas()
    rows = table.drop_columns([_ASSIGNED]).take(parents).to_pandas()
    for goal in goals:
        rows[f"goal {goal}"] = rows[goal].astype(float) if goal in rows else np.nan
    return pd.concat([rows[[*_SESSION, *(f"goal {goal}" for goal in goals)]], assigned], axis=1)


def exposing(rows: pd.DataFrame) -> np.ndarray:
    """Which rows are of the session in which the exposure was, bool [rows]; later ones of the visitor began anew."""
    return (rows["started_at"] <= rows["exposed_at"]).to_numpy()


def outcomes(rows: pd.DataFrame, definition: Experiment) -> dict[str, np.ndarray]:
    """By column of a goal what each row's session has of it, float64 [rows], less what it had at the exposure."""
    first = exposing(rows)
    return {
        goal.column: (rows[f"goal {goal.column}"] - np.where(first, rows[f"before_{number}"], 0.0)).to_numpy(float)
        for number, goal in enumerate(definition.goals, 1)
    }


def happened(outcome: Any, kind: str) -> Any:
    """An outcome of a unit as its goal counts it: of a binary one, whether there was any."""
    return (outcome > 0) * 1.0 + outcome * 0 if kind == "binary" else outcome  # what is not known stays so


def _of_experiment(rows: pd.DataFrame, key: str, definition: Experiment) -> pd.DataFrame:
    """A row a unit."""
    flags = rows["flags"].to_numpy(np.int64)
    out: dict[str, Any] = {
        "experiment": key,
        "phase": rows["phase"].astype("int64"),
        "arm": [definition.arms[int(place)] if place < len(definition.arms) else "" for place in rows["arm"]],
        "propensity": rows["propensity"].astype(float),
        "holdback": flags & HOLDBACK > 0,
        "forced": flags & FORCED > 0,
        "closed": flags >> CLOSED_SHIFT,
        "unit": np.where(flags & VISITOR > 0, rows["visitor"], _named(rows)),
        "visitor": rows["visitor"],
        **{name: rows[name].astype("int64") for name in ("exposed_at", "age_events")},
        **{name: rows[name].astype(float) for name in ("age_seconds", *SCORES)},
        **outcomes(rows, definition),
    }
    units = pd.DataFrame(out, index=rows.index)
    units = units[units["arm"] != ""]  # of an arm that there was in another phase
    columns = [goal.column for goal in definition.goals]
    others = [name for name in units if name not in (*columns, "unit")]
    # without sorting, each unit stays where its first row is
    groups = units.sort_values("exposed_at", kind="stable").groupby("unit", sort=False)
    grouped = pd.concat([groups[others].first(), groups[columns].sum(min_count=1)], axis=1).reset_index()
    for goal in definition.goals:
        grouped[goal.column] = happened(grouped[goal.column], goal.kind)
    return grouped[[*UNIT_COLUMNS, *columns]]


def _named(rows: pd.DataFrame) -> np.ndarray:
    """A number of each session, unlike that of every other."""
    pairs = zip(rows["visitor"].tolist(), rows["started_at"].tolist(), strict=True)
    return np.array([hash64(f"{visitor} {started}") for visitor, started in pairs], np.int64)


def _empty(goals: Iterable[str]) -> pd.DataFrame:
    noted = ("experiment", "arm", "phase", "propensity", "exposed_at", "age_events", "age_seconds", *SCORES)
    before = (f"before_{number}" for number in range(1, MOST_GOALS + 1))
    names = (*_SESSION, *noted, "flags", *before, *(f"goal {goal}" for goal in goals))
    return pd.DataFrame({name: _column(name) for name in names})


def _column(name: str) -> pd.Series:
    dtype = UNIT_COLUMNS[name][0] if name in UNIT_COLUMNS else "float64"
    return pd.Series(dtype="float64" if dtype == "str" else dtype)
