"""What the workers of a service counted, added up: by whichever is asked, and whoever of them was killed."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.exposition import METRICS, SCORE_TENTHS, Sample, merged, text
from serving.metrics import Metrics, Tally
from serving.workers import WorkerFiles

ROOT = Path(__file__).resolve().parents[2]


def lineup(**versions: str) -> Any:
    """What the metrics ask of a lineup: champions' versions by head, and nothing scored since they asked before."""
    return SimpleNamespace(champions=SimpleNamespace(versions=versions), fold=SimpleNamespace(digest="0f"), tally=list)


def scored(metrics: Metrics, score: float) -> None:
    """A score of the head exit, as a scorer tells of it."""
    tally = Tally(SCORE_TENTHS)
    tally.add(score)
    metrics.scored([{"exit": (tally.counts, tally.sum)}])


def worker(folder: Path, orders: Connection) -> None:
    """A worker that counts `n` requests when told, and answers with the page when told None."""
    metrics = Metrics(lambda: lineup(exit="3"))
    metrics.files = WorkerFiles(folder)
    while True:
        order = orders.recv()
        if order is None:
            orders.send_bytes(metrics.text())
        else:
            metrics.requests["/v1/events", 200] += order
            scored(metrics, 0.25)


class Worker:
    """A worker process, killed at the end."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.orders, theirs = context.Pipe()
        self.process = context.Process(target=worker, args=(folder, theirs), daemon=True)
        self.process.start()

    def count(self, requests: int) -> None:
        self.orders.send(requests)

    def page(self) -> str:
        self.orders.send(None)
        return self.orders.recv_bytes().decode()

    def kill(self) -> None:
        assert self.process.pid
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(20)


def value(page: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
    assert found, f"{name} is not in {page}"
    return float(found[1])


REQUESTS = 'lotse_requests_total{path="/v1/events",status="200"}'


def test_each_worker_answers_for_all_and_nothing_goes_backwards(tmp_path: Path) -> None:
    one, other = Worker(tmp_path), Worker(tmp_path)
    one.count(5)
    assert value(one.page(), REQUESTS) == 5
    other.count(7)
    page = other.page()
    assert value(page, REQUESTS) == 12 and value(page, "lotse_workers") == 2
    assert value(page, 'lotse_score_bucket{head="exit",le="0.3"}') == 2
    assert value(page, 'lotse_model_info{head="exit",version="3"}') == 1
    both = value(page, "process_resident_memory_bytes")
    other.kill()  # what it told was written before
    page = one.page()
    assert value(page, REQUESTS) == 12 and value(page, "lotse_workers") == 1
    assert value(page, "process_resident_memory_bytes") < both
    third = Worker(tmp_path)  # takes over what the killed one counted
    third.count(1)
    assert value(third.page(), REQUESTS) == 13
    assert value(one.page(), REQUESTS) == 13
    assert len(list(tmp_path.rglob("worker-*"))) == 2
    third.kill()
    one.kill()


def test_what_another_service_left_is_not_counted_and_deleted(tmp_path: Path) -> None:
    left = tmp_path / "service-1-0"
    left.mkdir()
    (left / "worker-2-0").write_bytes(b"x")
    assert WorkerFiles(tmp_path).all([]) == []
    assert not left.exists()


def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    files = WorkerFiles(tmp_path)
    (next(tmp_path.glob("service-*")) / "worker-1-x").write_bytes(b"\xff")
    assert files.all([Sample("lotse_workers", (), [1])]) == [Sample("lotse_workers", (), [1])]


@pytest.mark.parametrize(
    ("name", "values", "result"),
    [
        ("lotse_swept_records", (2, 3), 5),
        ("lotse_connections", (2, 3), 5),
        ("lotse_model_age_seconds", (2, 3), 3),
        ("process_start_time_seconds", (2, 3), 2),
    ],
)
def test_how_metrics_are_merged(name: str, values: tuple[int, int], result: int) -> None:
    labels = ("exit",) if METRICS[name].labels else ()
    assert merged([], [[Sample(name, labels, [each])] for each in values]) == [Sample(name, labels, [result])]


def test_model_age_counts_from_the_registration() -> None:
    metrics = Metrics(lambda: lineup(exit="3", bounce="1"))
    metrics.registered = {("exit", "3"): 0.0}
    ages = {each.labels: each.values[0] for each in metrics.samples() if each.name == "lotse_model_age_seconds"}
    assert ages["exit",] > 1e9 and ages["bounce",] < 60


def test_what_others_count_is_merged_like_our_own(tmp_path: Path) -> None:
    class Others(Collector):
        def collect(self) -> list[Metric]:
            shadow = HistogramMetricFamily("shadow", "Scores.", labels=["head"])
            tally = Tally((0.5, 0.9))
            for score in (0.4, 0.6, 0.95):
                tally.add(score)
            shadow.add_metric(["exit"], *tally.buckets())
            rows = CounterMetricFamily("rows", "Rows.", labels=["head"])
            rows.add_metric(["exit"], 3)
            return [shadow, rows, GaugeMetricFamily("since", "Since.", value=7), CounterMetricFamily("none", "None.")]

    metrics = Metrics(lineup)
    metrics.register(Others())
    both = text(merged([metrics.samples()], [metrics.samples()])).decode()
    assert value(both, 'shadow_bucket{head="exit",le="0.5"}') == 2
    assert value(both, 'shadow_bucket{head="exit",le="0.9"}') == 4
    assert value(both, 'shadow_count{head="exit"}') == 6
    assert value(both, 'shadow_sum{head="exit"}') == pytest.approx(3.9)
    assert value(both, 'rows_total{head="exit"}') == 6
    assert value(both, "since") == 7
    metrics.files = WorkerFiles(tmp_path)
    assert value(metrics.text().decode(), 'rows_total{head="exit"}') == 3


def test_every_sample_has_a_row_and_its_labels() -> None:
    metrics = Metrics(lambda: lineup(exit="3"))
    metrics.requests["/v1/events", 200] = metrics.events["started"] = metrics.store_errors["read"] = 1
    metrics.fell_back({"bounce": "no_model"})
    scored(metrics, 0.5)
    for sample in metrics.samples():
        assert len(sample.labels) == len(METRICS[sample.name].labels), sample
    assert b'lotse_fallbacks_total{head="bounce",reason="no_model"} 1.0' in text(metrics.samples())
