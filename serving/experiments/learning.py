"""A worker's side of learning: the process that learns is kept running while experiments run, and what it says is told.

In: what experiments run, and what was published of them. Out: `GET /v1/experiments/state`, and metrics. Nothing is told
of fewer than 50 units: the file that the workers read does not hold it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric

from features.allocation import Fixed
from serving.companion import Companion, take_lock
from serving.experiments.attributes import Names
from serving.experiments.timeline import Timeline, TimelineFile, closings, points

if TYPE_CHECKING:
    from features.experiments import Experiment
    from serving.experiments.learned import Learned
    from serving.experiments.live import Experiments
    from serving.settings import ServingSettings

logger = logging.getLogger("lotse.learning")

LOCK: Final = "lock"
# Beside the time between two looks: a learner that gives no sign for so long hangs. After a long pause it may have some
# hundred files to read, of which it tells now and then.
_SILENT_SECONDS: Final = 300
# Numerical libraries would take a thread a core.
_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Orders(msgspec.Struct):
    """What a learner is told when it starts.

    file: of the configuration; closed: folder of handed-on sessions; learned: its own folder.
    """

    file: str
    closed: str
    learned: str
    known: Names
    learn_seconds: float
    table_minutes: float


class Learning:
    """The learner of a service, and what it has learned, as one worker sees them."""

    def __init__(self, settings: ServingSettings, experiments: Experiments) -> None:
        own = settings.experiments
        self._experiments = experiments
        self._timelines = TimelineFile(Path(own.learned))
        self._told: set[str] = set()
        sign = Path(own.learned) / LOCK
        self._companion = Companion(
            "serving.learn", partial(take_lock, sign), lambda: sign.stat().st_mtime,
            _SILENT_SECONDS + own.learn_seconds, _ONE_THREAD,
        )  # fmt: skip
        known = experiments.known
        orders = Orders(own.file, settings.store.closed, own.learned, known, own.learn_seconds, own.table_minutes)
        self._companion.order(lambda run: msgspec.json.encode(orders))

    async def keep(self) -> None:
        """See to it that a learner runs if experiments do."""
        if not self._experiments.configuration.trials:
            self._companion.close()
            return
        try:
            self._companion.keep()
        except OSError as error:
            if str(error) not in self._told:
                logger.error("nothing is learned from closed sessions, see experiments.learned: %s", error)
            self._told.add(str(error))

    def close(self) -> None:
        """End the learner, if this worker started it."""
        self._companion.close()

    def timelines(self) -> Mapping[str, Timeline]:
        """How experiments went, by key; reads a file."""
        return self._timelines.read().experiments

    def state(
        self, now_ms: int, histories: Iterable[str] = (), timelines: Mapping[str, Timeline] | None = None
    ) -> dict[str, Any]:
        """What is known of every experiment, JSON-ready; histories: keys of those whose timeline is told, too."""
        experiments, wanted = self._experiments, set(histories)
        told = {}
        for key, definition in experiments.configuration.definitions.items():
            found = experiments.published.experiments.get(key)
            found = found if found is not None and found.phase == definition.phase else None
            one: dict[str, Any] = {
                "status": definition.status, "phase": definition.phase, "allocation": definition.allocation.name,
                "arms": list(definition.arms), "killed": list(definition.killed),
                "definition": definition.model_dump(mode="json"),
            }  # fmt: skip
            if found is not None:
                one |= {
                    "units": dict(zip(found.arms, found.units, strict=False)),
                    "stopped": [msgspec.to_builtins(each) for each in found.stopped],
                    "guardrails": [msgspec.to_builtins(each) for each in found.guardrails],
                    "sample_ratio": {"p": found.ratio_p, "alarm": found.ratio_alarm},
                    "results": [msgspec.to_builtins(each) for each in found.results], "counted_ms": found.at_ms,
                }  # fmt: skip
            standing = experiments.standings.get(key)
            if standing is not None:
                table = standing.table(now_ms)
                one["table"] = {
                    "from_ms": standing.from_ms(now_ms), "edges": list(table.edges),
                    "bins": [[round(share, 6) for share in line] for line in table.bins],
                }  # fmt: skip
            timeline = (timelines or {}).get(key) if key in wanted else None
            if timeline is not None and (timeline.phase, tuple(timeline.arms)) == (definition.phase, definition.arms):
                one["history"] = _history(timeline, definition, found, now_ms)
            told[key] = one
        return {
            "configuration": experiments.configuration.version, "error": experiments.error,
            "counted_ms": experiments.published.at_ms, "experiments": told,
        }  # fmt: skip

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before it is collected."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Called by Prometheus' registry."""
        units = GaugeMetricFamily(
            "lotse_experiment_units", "Units that were counted, by arm; none below 50.", labels=("experiment", "arm")
        )
        stopped = GaugeMetricFamily(
            "lotse_experiment_stopped", "1: the arm was stopped by a guardrail.", labels=("experiment", "arm")
        )
        alarm = GaugeMetricFamily(
            "lotse_experiment_ratio_alarm", "1: units are lost or doubled in some arm.", labels=("experiment",)
        )
        age = GaugeMetricFamily(
            "lotse_experiment_table_age_seconds", "Since when the table holds by which units are assigned.",
            labels=("experiment",),
        )  # fmt: skip
        counted = GaugeMetricFamily(
            "lotse_experiment_counted_seconds", "When closed sessions were last counted (Unix time); 0: never.",
            value=self._experiments.published.at_ms / 1000,
        )  # fmt: skip
        now_ms = time.time_ns() // 1_000_000
        for key, trial in self._experiments.configuration.trials.items():
            found = self._experiments.published.experiments.get(key)
            since = self._experiments.standings[key].from_ms(now_ms)
            if since and not isinstance(trial.plan.allocation, Fixed):
                age.add_metric((key,), (now_ms - since) / 1000)
            if found is None or found.phase != trial.definition.phase:
                continue
            for arm, count in zip(found.arms, found.units, strict=False):
                if count is not None:
                    units.add_metric((key, arm), count)
            for one in found.stopped:
                stopped.add_metric((key, one.arm), 1)
            alarm.add_metric((key,), float(found.ratio_alarm))
        return [units, stopped, alarm, age, counted]


def _history(timeline: Timeline, definition: Experiment, learned: Learned | None, now_ms: int) -> dict[str, Any]:
    """How the allocation of a phase went; nothing of what happened after it was last counted."""
    closed = closings(timeline, learned.stopped if learned is not None else ())
    until_ms = learned.at_ms if learned is not None and definition.status != "running" else now_ms
    return {
        "began_ms": timeline.began_ms, "until_ms": max(until_ms, timeline.began_ms), "edges": timeline.edges,
        "points": [one._asdict() for one in points(timeline, closed, until_ms)],
        "closed": [one._asdict() for one in closed],
    }  # fmt: skip
