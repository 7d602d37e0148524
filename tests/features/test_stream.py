"""Rows written in a stream and rows of a cluster: the same rows as in memory, bit for bit, whatever is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from features.events import Event
from features.partition import bucket_of, gather, groups_of, spill
from features.stream import KEYS, Plan, write_rows
from features.tables import Table, Tables
from simulation.shop import simulate
from tests.sessions import START, table

LEARNED = Tables({"event_transition": Table(np.arange(1, 900), np.linspace(-2, 2, 899), 0.5)})


@pytest.fixture(scope="module")
def shop() -> pd.DataFrame:
    """60,000 events of a simulated shop with every fifth event at the time of the one before."""
    events = simulate(events=60_000, seed=3).events
    time = events["time"].to_numpy().copy()
    time[1::5] = time[:-1:5]
    return events.assign(time=time)


def chunks(events: pd.DataFrame, size: int = 7_001) -> Iterator[pd.DataFrame]:
    for start in range(0, len(events), size):
        yield events.iloc[start : start + size]


def in_memory(events: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    rows = plan.rows(events)
    keys = (rows.events["visitor"].to_numpy()[rows.event], rows.now, rows.prefix, rows.idle_ms)
    return pd.concat([pd.DataFrame(dict(zip(KEYS, keys, strict=True))), rows.frame()], axis=1)


def written(files: tuple[Path, ...]) -> pd.DataFrame:
    return pd.concat([pq.read_table(file).to_pandas() for file in files], ignore_index=True)


def assert_same_rows(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Every bit of every row; which visitor comes first is no part of it."""
    assert list(found.columns) == list(expected.columns)
    left, right = (frame.sort_values("visitor", kind="stable") for frame in (found, expected))
    for name in left.columns:
        assert left[name].to_numpy().tobytes() == right[name].to_numpy().tobytes(), name


PLAN = Plan(idle_seconds=(5, 60), tables=LEARNED)


def test_a_stream_writes_the_rows_of_the_whole(shop: pd.DataFrame, tmp_path: Path) -> None:
    done = write_rows(chunks(shop), tmp_path / "rows", PLAN, buckets=16, events_at_once=9_000)
    assert len(done.files) > 4
    expected = in_memory(shop, PLAN)
    assert done.rows == len(expected) > len(shop)
    assert_same_rows(written(done.files), expected)
    # nothing of the events stays behind
    assert sorted(p.name for p in (tmp_path / "rows").iterdir()) == [file.name for file in done.files]


def test_a_file_says_which_features_made_it(shop: pd.DataFrame, tmp_path: Path) -> None:
    plan = Plan(features=("cart_adds", "idle_ratio"))
    file = write_rows(chunks(shop.iloc[:500]), tmp_path, plan).files[0]
    assert pq.read_schema(file).metadata[b"feature_digest"].decode() == plan.fold().digest
    assert pq.read_schema(file).names[:4] == list(KEYS)
    assert "cart_adds" in pq.read_schema(file).names


def test_rows_are_never_mixed_with_older_ones(tmp_path: Path) -> None:
    write_rows([table([Event(visitor=1, time=START, name=1)])], tmp_path)
    with pytest.raises(FileExistsError, match="holds rows already; give an empty folder"):
        write_rows([], tmp_path)


def test_an_empty_history_writes_no_file(tmp_path: Path) -> None:
    assert write_rows([], tmp_path).files == ()


def test_a_visitor_is_in_one_bucket_and_keeps_the_order_of_the_log(shop: pd.DataFrame, tmp_path: Path) -> None:
    counts = sum(spill(chunk, tmp_path, number, 8) for number, chunk in enumerate(chunks(shop)))
    assert counts.sum() == len(shop)
    assert counts.min() > len(shop) / 16  # even small counting numbers spread
    seen: set[int] = set()
    for place in range(8):
        events = gather(tmp_path, [place])
        own = shop[bucket_of(shop["visitor"].to_numpy(), 8) == place]
        pd.testing.assert_frame_equal(events, own[events.columns].reset_index(drop=True))
        assert seen.isdisjoint(events["visitor"])
        seen |= set(events["visitor"])


def test_groups_hold_what_fits() -> None:
    assert groups_of(np.array([3, 0, 4, 5, 20, 1]), 9) == [[0, 2], [3], [4], [5]]


@pytest.mark.slow
def test_a_cluster_writes_the_rows_of_the_whole_although_a_worker_is_killed(shop: pd.DataFrame, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster  # noqa: PLC0415

    from features.distributed import write_parts, write_rows_distributed  # noqa: PLC0415

    parts = write_parts(chunks(shop, 4_000), tmp_path / "events")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        before = dict(client.run(os.getpid))
        killed: list[int] = []

        def kill_in_the_middle() -> None:
            """As soon as the first rows are written, others are on their way."""
            while not list((tmp_path / "rows").glob("rows-*.parquet")):
                time.sleep(0.005)
            killed.append(next(iter(before.values())))
            os.kill(killed[0], signal.SIGKILL)

        killer = threading.Thread(target=kill_in_the_middle)
        killer.start()
        plan = Plan(idle_seconds=(5, 60), tables=LEARNED, threads=1)
        done = write_rows_distributed(parts, tmp_path / "rows", client, plan, buckets=32, events_at_once=2_000)
        killer.join()
        client.wait_for_workers(2)
        assert killed[0] not in client.run(os.getpid).values()
    assert_same_rows(written(done.files), in_memory(shop, PLAN))
    assert sorted(p.name for p in (tmp_path / "rows").iterdir()) == [file.name for file in done.files]
