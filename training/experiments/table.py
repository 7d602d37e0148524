"""The table of units: read, checked, brought into one shape.

In: Parquet (a file or a folder of them) or CSV, ours or a foreign one whose columns are named. Out: `Units` of one
experiment, in the order of their exposure. What a foreign table lacks is filled: one phase, the shares as propensities,
each row a unit and a visitor of its own; scores and moments that are not known stay missing. Pseudonyms are used to
count visitors and go no further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import EventError
from features.experiments import SCORES, UNIT_COLUMNS, Experiment

# Without these nothing can be said; others are filled.
_NEEDED: Final = ("arm",)
_SHOWN: Final = 5


@dataclass(frozen=True)
class Units:
    """The units of one experiment that count, in the order of their exposure.

    Attributes
    ----------
    frame: the columns of `UNIT_COLUMNS` but experiment, arm and forced; one a goal, float64.
    arm: int64 [units], place in the definition's arms.
    forced: rows left out because a person tested a variant.
    timed: whether the moments of exposure are known; scored: scores that are known of some unit.
    """

    definition: Experiment
    frame: pd.DataFrame
    arm: npt.NDArray[np.int64]
    forced: int
    timed: bool
    scored: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def clustered(self) -> bool:
        """Whether a visitor has several units: then they are not independent."""
        return bool(self.frame["visitor"].nunique() < len(self.frame))

    def take(self, rows: npt.NDArray[np.bool_] | slice) -> Units:
        """Some of the units."""
        frame = self.frame.iloc[rows].reset_index(drop=True)
        return Units(self.definition, frame, self.arm[rows], self.forced, self.timed, self.scored)


def read_table(path: Path | str, experiment: str | None = None) -> pd.DataFrame:
    """A table as it is; of Parquet only the rows of `experiment`, if it is given and has such a column.

    Raises
    ------
    EventError
        No such file, or neither Parquet nor CSV.
    """
    path = Path(path)
    if not path.exists():
        raise EventError(f"no table {path}; give a Parquet file, a folder of them, or a CSV file")
    if path.is_dir() or path.suffix == ".parquet":
        import pyarrow.dataset as ds  # noqa: PLC0415

        found = ds.dataset(path, format="parquet")
        chosen = ds.field("experiment") == experiment if experiment and "experiment" in found.schema.names else None
        return found.to_table(filter=chosen).to_pandas()
    if any(part in (".csv", ".tsv") for part in path.suffixes):
        return pd.read_csv(path, sep="\t" if ".tsv" in path.suffixes else ",")
    raise EventError(f"cannot read {path}; a table is Parquet (.parquet, a folder) or CSV (.csv, .csv.gz, .tsv)")


def units_of(table: pd.DataFrame, key: str, definition: Experiment, columns: Mapping[str, str] | None = None) -> Units:
    """The units of experiment `key` in a table.

    columns: our name -> the table's, where they differ.

    Raises
    ------
    EventError
        A column is missing, an arm is unknown, a unit is there twice, a propensity is not one, no unit is left.
    """
    columns = dict(columns or {})
    unknown = [ours for ours in columns if ours not in UNIT_COLUMNS]
    if unknown:
        raise EventError(f"unknown column {unknown[0]!r}; ours are {', '.join(UNIT_COLUMNS)}, and those of the goals")
    for name in (*(columns.get(ours, ours) for ours in (*_NEEDED, *columns)), *(g.column for g in definition.goals)):
        if name not in table:
            raise EventError(
                f"the table has no column {name!r}; it has {', '.join(map(str, table.columns))}; "
                "say which it is, e.g. --column arm=version, --goal retention_7"
            )
    named = pd.DataFrame({ours: table[name] for ours in UNIT_COLUMNS if (name := columns.get(ours, ours)) in table})
    if "experiment" in named:
        here = (named["experiment"] == key).to_numpy()
        named, table = named[here], table[here]
    arm = _arms(named["arm"], key, definition)
    forced = _flag(named, "forced")
    frame = _filled(named, arm, definition).assign(
        **{goal.column: _outcome(table[goal.column], goal.column, goal.kind) for goal in definition.goals}
    )
    _check(frame[~forced])
    timed = bool(frame["exposed_at"].notna().all()) and len(frame) > 0
    order = np.argsort(frame["exposed_at"].to_numpy(), kind="stable") if timed else np.arange(len(frame))
    order = order[~forced[order]]
    if not len(order):
        raise EventError(f"no unit of the experiment {key!r} is in the table")
    frame = frame.iloc[order].reset_index(drop=True)
    scored = tuple(score for score in SCORES if frame[score].notna().any())
    return Units(definition, frame, arm[order], int(forced.sum()), timed, scored)


def _arms(names: pd.Series, key: str, definition: Experiment) -> npt.NDArray[np.int64]:
    place = {name: at for at, name in enumerate(definition.arms)}
    arm = names.astype(str).map(place)
    if arm.isna().any():
        found = ", ".join(sorted(set(names[arm.isna()].astype(str)))[:_SHOWN])
        raise EventError(f"arms that experiment {key!r} does not have: {found}; it has {', '.join(definition.arms)}")
    return np.asarray(arm, np.int64)


def _flag(named: pd.DataFrame, name: str) -> npt.NDArray[np.bool_]:
    return named[name].fillna(False).to_numpy(bool) if name in named else np.zeros(len(named), bool)


def _filled(named: pd.DataFrame, arm: npt.NDArray[np.int64], definition: Experiment) -> pd.DataFrame:
    """Every column but those of the goals."""
    size = len(named)
    unit = pd.factorize(named["unit"])[0] if "unit" in named else np.arange(size)
    shares = np.asarray(definition.shares)[arm]
    missing = np.full(size, np.nan)
    return pd.DataFrame(
        {
            "phase": named["phase"].to_numpy(np.int64) if "phase" in named else np.ones(size, np.int64),
            "propensity": named["propensity"].to_numpy(float) if "propensity" in named else shares,
            "holdback": _flag(named, "holdback"),
            "closed": named["closed"].fillna(0).to_numpy(np.int64) if "closed" in named else np.zeros(size, np.int64),
            "unit": unit,
            "visitor": pd.factorize(named["visitor"])[0] if "visitor" in named else unit,
            **{
                name: named[name].to_numpy(float) if name in named else missing
                for name in ("exposed_at", "age_events", "age_seconds", *SCORES)
            },
        }
    )


def _outcome(values: pd.Series, name: str, kind: str) -> npt.NDArray[np.float64]:
    try:
        outcome: npt.NDArray[np.float64] = np.asarray(values, float)
    except (TypeError, ValueError):
        raise EventError(f"outcomes of {name!r} must be numbers or true and false; found {values.iloc[0]!r}") from None
    known = outcome[~np.isnan(outcome)]
    if kind == "binary" and not np.isin(known, (0.0, 1.0)).all():
        odd = known[~np.isin(known, (0.0, 1.0))][0]
        raise EventError(f"the goal of column {name!r} is binary, but {odd:g} is in it; declare it numeric or revenue")
    return outcome


def _check(frame: pd.DataFrame) -> None:
    propensity = frame["propensity"].to_numpy()
    if not ((propensity > 0) & (propensity <= 1)).all():
        odd = propensity[~((propensity > 0) & (propensity <= 1))][0]
        raise EventError(f"a propensity is the probability of the arm that was assigned, above 0; found {odd:g}")
    twice = int(frame["unit"].duplicated().sum())
    if twice:
        raise EventError(
            f"{twice:,} rows are of units that are there already; give each unit one row: its first exposure"
        )
