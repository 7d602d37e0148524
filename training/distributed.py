"""Boosting on all the past by a Dask cluster, where a history is too long to be drawn from: `lotse train --cluster`.

The recipe (penalty, number of trees, calibration) comes from visitors drawn here, as always; the trees of the
registered model are then grown by `lightgbm.dask` on the rows of every visitor that is not tested on. Workers fold the
same compiled features from the same events, split by visitor in a folder that all of them see, and label them with the
same code. Needs `pip install "lotse[distributed]"`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import lightgbm as lgb
import numpy as np
import pandas as pd

from features.partition import DEFAULT_BUCKETS, gather, groups_of, spill
from features.stream import EVENTS_AT_ONCE
from features.tables import Windows
from training.boosting import merged, parameters
from training.config import TrainingSettings
from training.datasets import Slice
from training.heads import Head, heads_of
from training.linear import LinearModel
from training.model import HeadModel
from training.pipeline import with_rows

if TYPE_CHECKING:
    from distributed import Client

# Tables of events that are split at a time.
_CHUNK_EVENTS: Final = 1_000_000


@dataclass(frozen=True)
class History:
    """A log split by visitor in a folder, and all a worker needs to make rows of a part of it."""

    client: Client
    folder: Path
    groups: list[list[int]]
    settings: TrainingSettings
    windows: Windows
    border_ms: float
    log_end_ms: int


@contextmanager
def split_history(
    client: Client, events: pd.DataFrame, settings: TrainingSettings, windows: Windows, border_ms: float, folder: Path
) -> Iterator[History]:
    """Split a log by visitor into files below `folder`, which every worker must see; they are gone at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".history-") as place:
        split = Path(place).absolute()
        counts = np.zeros(DEFAULT_BUCKETS, np.int64)
        for number, first in enumerate(range(0, len(events), _CHUNK_EVENTS)):
            counts += spill(events.iloc[first : first + _CHUNK_EVENTS], split, number, DEFAULT_BUCKETS)
        workers = max(len(client.scheduler_info()["workers"]), 1)
        most = min(EVENTS_AT_ONCE, max(-(-len(events) // workers), 1))
        log_end = int(events["time"].max())
        yield History(client, split, groups_of(counts, most), settings, windows, border_ms, log_end)


def boosted_on_all(history: History, head: Head, model: HeadModel) -> HeadModel:
    """The model with its trees grown anew on all the past, as many and with the same parameters and calibration."""
    import dask.array as da  # noqa: PLC0415
    from dask import delayed  # noqa: PLC0415

    linear, rounds = model.linear, model.inner.rounds
    if linear is None or not rounds:
        return model  # the linear model alone was best
    client = history.client
    parts = [client.submit(_past, history.folder, group, _of(history), head.name) for group in history.groups]
    starts = client.map(_start, parts, linear=linear)
    sizes = client.gather(client.map(len, parts))
    known = [(part, start, size) for part, start, size in zip(parts, starts, sizes, strict=True) if size]

    def column(name: str, width: int | None = None) -> Any:
        taken = delayed(getattr)
        arrays = []
        for part, start, size in known:
            shape = (size,) if width is None else (size, width)
            source = delayed(start) if name == "start" else taken(part, name)
            dtype = np.float64 if name == "start" else np.float32
            arrays.append(da.from_delayed(source, shape, dtype))
        return da.concatenate(arrays)

    chosen = parameters(model.names, head, model.inner.applied(history.settings.for_head(head.name)))
    estimator = lgb.DaskLGBMClassifier if head.task == "binary" else lgb.DaskLGBMRegressor
    # a thread a worker process; Dask tells LightGBM which machines there are
    made = estimator(client=client, n_estimators=rounds, **{**chosen, "num_threads": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Dask and LightGBM, about parameters that LightGBM sets itself
        made.fit(column("matrix", len(model.names)), column("answer"), init_score=column("start"))
    text = made.booster_.model_to_string()
    return replace(model, booster=merged(linear, _named(text, model.names), rounds))


def _of(history: History) -> tuple[TrainingSettings, Windows, float, int]:
    return history.settings, history.windows, history.border_ms, history.log_end_ms


def _past(folder: Path, group: list[int], of: tuple[TrainingSettings, Windows, float, int], head: str) -> Slice:
    """The rows of a head in the past of some buckets; runs on a worker."""
    settings, windows, border_ms, log_end_ms = of
    part = with_rows(gather(folder, group), settings, windows, border_ms, log_end_ms=log_end_ms, threads=1)
    return part.slices(heads_of(settings)[head])["past"]


def _start(part: Slice, linear: LinearModel) -> np.ndarray:
    return linear.margin(part.matrix)


def _named(text: str, names: tuple[str, ...]) -> lgb.Booster:
    """The booster with the features' names: arrays of Dask carry none."""
    lines = text.split("\n")
    place = next(index for index, line in enumerate(lines) if line.startswith("feature_names="))
    lines[place] = "feature_names=" + " ".join(names)
    return lgb.Booster(model_str="\n".join(lines))
