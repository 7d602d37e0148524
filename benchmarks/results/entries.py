"""Google Merchandise Store, Google Analytics 360: does a visit bounce, as far as its entry tells?

One row a visit: channel, which visit of the visitor it is, hour and weekday in the store's own time. The log holds
totals of visits, not their hits, so nothing after the entry is used. The answer is Google's own `bounces`. The ids of
visitors were rounded by a spreadsheet: visits of one visitor share the rounded id, and so do others. It is good enough
to keep every visitor on one side of the split, and to resample by.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from benchmarks.results import rivals
from benchmarks.results.logs import DATA, scores_of
from benchmarks.results.measures import Comparison, compare
from benchmarks.results.rivals import Learner
from training.config import TrainingSettings
from training.datasets import SIDES, Slice, assign_sessions, split_border
from training.heads import Head

FILE: Final = DATA / "google_merchandise_ga360" / "analytics.parquet"
TIMEZONE: Final = "America/Los_Angeles"
ASKED: Final[dict[str, Learner]] = {
    "Lotse": rivals.lotse,
    "logistic regression": rivals.logistic,
    "logistic regression, penalty chosen": rivals.penalised_logistic,
    "CatBoost": rivals.catboost,
    "XGBoost": rivals.xgboost,
}


def visits() -> pd.DataFrame:
    """One line a visit, by visitor and start: rounded_id, start (ms UTC), visit_number, channel, bounced, seconds."""
    columns = ["visit_id", "visit_start_time", "full_visitor_id", "visit_number", "channel_grouping", "bounces"]
    raw = pd.read_parquet(FILE, columns=[*columns, "time_on_site"])
    first = raw.groupby("visit_id", sort=True).first()
    found = pd.DataFrame(
        {
            "rounded_id": first["full_visitor_id"].astype("category").cat.codes.to_numpy(np.int64),
            "start": first["visit_start_time"].to_numpy(np.int64) * 1000,
            "visit_number": first["visit_number"].to_numpy(np.int64),
            "channel": first["channel_grouping"].astype(str).to_numpy(),
            "bounced": first["bounces"].fillna(0).to_numpy() > 0,
            "seconds": first["time_on_site"].fillna(0).to_numpy(np.int64),
        }
    )
    return found.sort_values(["rounded_id", "start"], kind="stable").reset_index(drop=True)


def slices_of_visits(found: pd.DataFrame, settings: TrainingSettings) -> dict[str, Slice]:
    """Past and test, split as any log is."""
    local = pd.to_datetime(found["start"], unit="ms", utc=True).dt.tz_convert(TIMEZONE)
    columns = {
        # where a visit's age stands: it has just begun
        "events": np.ones(len(found)),
        "idle_seconds": np.zeros(len(found)),
        "visit_number": found["visit_number"],
        "first_visit": found["visit_number"] == 1,
        "local_hour": local.dt.hour + local.dt.minute / 60,
        "local_weekday": local.dt.day_of_week,
        "weekend": local.dt.day_of_week >= 5,
        **{f"channel_{name}": found["channel"] == name for name in sorted(set(found["channel"]))},
    }
    matrix = np.column_stack([np.asarray(values, np.float32) for values in columns.values()])
    start = found["start"].to_numpy(np.int64)
    events = pd.DataFrame({"visitor": found["rounded_id"], "time": start, "session_index": np.arange(len(found))})
    assigned = assign_sessions(events, settings.split, settings.timeout_ms, split_border(events, settings.split))
    known_at = start + 1000 * found["seconds"].to_numpy() + settings.timeout_ms
    slices = {}
    for place, name in enumerate(SIDES):
        rows = np.flatnonzero(assigned == place)
        slices[name] = Slice(
            name=name,
            names=tuple(columns),
            matrix=matrix[rows],
            answer=found["bounced"].to_numpy(np.float32)[rows],
            prefix=np.ones(len(rows), np.int32),
            idle_ms=np.zeros(len(rows), np.int64),
            session=rows,
            visitor=events["visitor"].to_numpy()[rows],
            started=start[rows],
            now=start[rows],
            until=known_at[rows],
            known_at=known_at[rows],
        )
    return slices


def compare_entries(head: Head, settings: TrainingSettings) -> Comparison:
    """Everybody on the visits after the border."""
    slices = slices_of_visits(visits(), settings)
    scores = scores_of(ASKED, slices, head, settings, "GA360 entries")
    return compare(slices["test"], scores, (1,), settings.evaluation.bins)
