"""Units of experiments out of sessions that are over: what was assigned, and what came of it.

In: the Parquet files of handed-on sessions, each with its assignments. Out: rows of `features.experiments.UNIT_COLUMNS`
and one column a goal: what the unit did after its exposure. A session that still runs is not there yet.
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
from features.experiments import FORCED, HOLDBACK, MOST_GOALS, SCORES, UNIT_COLUMNS, VISITOR, Experiment

_SESSION: Final = ("visitor", "started_at", "events")
_ASSIGNED: Final = "assignments"


def units_of(files: Iterable[Path], experiments: Mapping[str, Experiment]) -> pd.DataFrame:
    """A row a unit and experiment, in the order of the exposures; other experiments than these are left out.

    A goal's column is what the session has of it, less what it had at the exposure. Of a visitor who was assigned for
    later sessions, too, it is the sum over all of them.
    """
    numbers = {hash64(key): key for key in experiments}
    goals = sorted({goal.column for one in experiments.values() for goal in one.goals})
    parts = [_exposed(path, numbers, goals) for path in files]
    rows = pd.concat([part for part in parts if len(part)]) if any(map(len, parts)) else _empty(goals)
    found = [_of_experiment(rows[rows["experiment"] == key], one) for key, one in experiments.items()]
    whole = pd.concat(found) if found else _empty(goals)[[*UNIT_COLUMNS]]
    return whole.sort_values("exposed_at", kind="stable", ignore_index=True)


def _exposed(path: Path, numbers: Mapping[int, str], goals: list[str]) -> pd.DataFrame:
    """A row an assignment of a file, with its session's columns."""
    file = pq.ParquetFile(path)
    names = set(file.schema_arrow.names)
    if _ASSIGNED not in names:
        return _empty(goals)
    table = file.read([*_SESSION, _ASSIGNED, *(goal for goal in goals if goal in names and goal not in _SESSION)])
    lists = table.column(_ASSIGNED).combine_chunks()
    parents = pc.list_parent_indices(lists)
    assigned = pa.Table.from_struct_array(pc.list_flatten(lists)).to_pandas()
    rows = table.drop_columns([_ASSIGNED]).take(parents).to_pandas()
    for goal in goals:
        rows[f"goal {goal}"] = rows[goal].astype(float) if goal in rows else np.nan
    rows = pd.concat([rows[[*_SESSION, *(f"goal {goal}" for goal in goals)]], assigned], axis=1)
    rows["experiment"] = rows["experiment"].map(numbers)
    return rows.dropna(subset="experiment")


def _of_experiment(rows: pd.DataFrame, definition: Experiment) -> pd.DataFrame:
    """A row a unit."""
    flags = rows["flags"].to_numpy(np.int64)
    out: dict[str, Any] = {
        "experiment": rows["experiment"],
        "phase": rows["phase"].astype("int64"),
        "arm": [definition.arms[place] if place < len(definition.arms) else "" for place in rows["arm"]],
        "propensity": rows["propensity"].astype(float),
        "holdback": flags & HOLDBACK > 0,
        "forced": flags & FORCED > 0,
        "unit": np.where(flags & VISITOR > 0, rows["visitor"], _named(rows)),
        "visitor": rows["visitor"],
        **{name: rows[name].astype("int64") for name in ("exposed_at", "age_events")},
        **{name: rows[name].astype(float) for name in ("age_seconds", *SCORES)},
    }
    # what it had before counts for the session of the exposure only; a later one of the visitor began anew
    first = (rows["started_at"] <= rows["exposed_at"]).to_numpy()
    for number, goal in enumerate(definition.goals, 1):
        out[goal.column] = rows[f"goal {goal.column}"] - np.where(first, rows[f"before_{number}"], 0.0)
    units = pd.DataFrame(out)
    units = units[units["arm"] != ""]  # of an arm that there was in another phase
    columns = [goal.column for goal in definition.goals]
    others = {str(name): "first" for name in units if name not in (*columns, "unit")}
    units = units.sort_values("exposed_at", kind="stable")
    # without sorting, each unit stays where its first row is
    grouped = units.groupby("unit", sort=False).agg({**others, **dict.fromkeys(columns, "sum")}).reset_index()
    for goal in definition.goals:
        if goal.kind == "binary":
            grouped[goal.column] = (grouped[goal.column] > 0).astype(float)
    return grouped[[*UNIT_COLUMNS, *columns]]


def _named(rows: pd.DataFrame) -> np.ndarray:
    """A number of each session, unlike that of every other."""
    pairs = zip(rows["visitor"].tolist(), rows["started_at"].tolist(), strict=True)
    return np.array([hash64(f"{visitor} {started}") for visitor, started in pairs], np.int64)


def _empty(goals: Iterable[str]) -> pd.DataFrame:
    columns = {name: pd.Series(dtype=dtype) for name, (dtype, _) in UNIT_COLUMNS.items()}
    more = ("started_at", "events", "flags", *(f"before_{number}" for number in range(1, MOST_GOALS + 1)))
    return pd.DataFrame(
        {**columns, **{name: pd.Series(dtype=float) for name in (*more, *(f"goal {goal}" for goal in goals))}}
    )
