"""Rows of a history by a Dask cluster: canonical events in Parquet in, Parquet files of feature rows out.

Needs `pip install "lotse[distributed]"`, and a folder that every worker sees under the same path: a network file
system, or on one machine any folder. Events are split by visitor into buckets in that folder, a task for each file that
is read; then each group of buckets is a task that folds it with the same compiled code as everywhere. Every task can be
run again, so a worker that dies costs the time of its tasks and changes nothing: rows equal those of `build_rows` bit
for bit.
"""

from __future__ import annotations

import logging
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from features.batch import Progress
from features.errors import EventError
from features.events import check_events
from features.partition import DEFAULT_BUCKETS, groups_of, spill
from features.settings import SettingsError
from features.stream import EVENTS_AT_ONCE, Plan, Written, fold_buckets, prepare_folder, rows_file

if TYPE_CHECKING:
    from distributed import Client


_PLAN: Final = "plan.pickle"


def connect(scheduler: str = "") -> Client:
    """A client of the scheduler at an address such as `tcp://host:8786`; without one, of a cluster on this machine.

    Raises
    ------
    SettingsError
        Dask is not installed, or nobody answers at the address.
    """
    try:
        from distributed import Client, LocalCluster  # noqa: PLC0415
    except ImportError:
        raise SettingsError('Dask is not installed; run: pip install "lotse[distributed]"') from None
    if not scheduler:
        # a process a core and one thread in it: the fold has no use for more; what fails is told once, by the caller
        return Client(
            LocalCluster(threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL)
        )
    try:
        return Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise SettingsError(f"no Dask scheduler answers at {scheduler}: {error}") from None


def write_rows_distributed(
    parts: Sequence[Path | str],
    out: Path | str,
    client: Client,
    plan: Plan = Plan(threads=1),  # noqa: B008  (frozen)
    *,
    buckets: int = DEFAULT_BUCKETS,
    events_at_once: int = EVENTS_AT_ONCE,
    progress: Progress | None = None,
) -> Written:
    """Write the rows of a history into the folder `out`, as `features.stream.write_rows` does, on a cluster.

    parts: Parquet files of canonical events, in the order of the log; each is read whole by one task.

    Raises
    ------
    FileExistsError
        `out` holds rows already.
    EventError
        A part breaks the contract of the event.
    SettingsError
        A worker does not see the folder.
    """
    folder = prepare_folder(out).absolute()
    spilled = folder / ".spilled"
    shutil.rmtree(spilled, ignore_errors=True)
    spilled.mkdir()
    try:
        splitting = [
            client.submit(_split, str(Path(part).absolute()), str(spilled), number, buckets, pure=False)
            for number, part in enumerate(parts)
        ]
        counts = sum(_results(splitting), np.zeros(buckets, np.int64))
        groups = groups_of(counts, events_at_once)
        files = [rows_file(folder, number) for number in range(len(groups))]
        # beside the events, not in the workers' memory, where it would be lost with them
        (spilled / _PLAN).write_bytes(pickle.dumps(plan))
        folding = [
            client.submit(_fold, spilled, group, file, pure=False) for group, file in zip(groups, files, strict=True)
        ]
        rows, done = 0, 0
        for group, written in zip(groups, _results(folding), strict=True):
            rows += written
            done += int(counts[group].sum())
            if progress:
                progress(done, int(counts.sum()))
    finally:
        shutil.rmtree(spilled, ignore_errors=True)
    return Written(tuple(files), rows)


def _split(part: str, spilled: str, number: int, buckets: int) -> np.ndarray:
    _check_seen(Path(spilled))
    _check_seen(Path(part))
    try:
        events = check_events(pq.read_table(part).to_pandas())
    except EventError as error:
        raise EventError(f"{part}: {error}") from None
    return spill(events, Path(spilled), number, buckets)


def _fold(spilled: Path, group: Sequence[int], target: Path) -> int:
    _check_seen(spilled)
    return fold_buckets(spilled, group, target, pickle.loads((spilled / _PLAN).read_bytes()))


def _check_seen(path: Path) -> None:
    """A worker with another disk would make the folder for itself, and what it splits would be lost in silence."""
    if not path.exists():
        raise SettingsError(f"a worker does not see {path}; all need the log and the rows under the same paths")


def _results(futures: list[Any]) -> Any:
    """The results in order, each let go as soon as it is there."""
    for future in futures:
        yield future.result()


def write_parts(chunks: Any, folder: Path | str) -> list[Path]:
    """Write tables of canonical events as Parquet files for a cluster: `events-00000.parquet`, ..."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    files = []
    for number, chunk in enumerate(chunks):
        files.append(target / f"events-{number:05d}.parquet")
        pd.DataFrame(chunk).to_parquet(files[-1], index=False)
    return files
