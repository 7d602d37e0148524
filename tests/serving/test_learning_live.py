"""A running service that learns: sessions over HTTP, tables that move, arms that stop, and what survives what."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.events import hash64
from features.experiments import HOLDBACK
from tests.workspace import Service, wait_until, workspace

ARMS = ["control", "banner"]
PURCHASE = [{"name": "purchase", "column": "purchases", "primary": True}]
RULE = {"condition": {"cart_adds": {"$gte": 1}}}
CONTENT: dict[str, Any] = {
    "features": {
        name: {"defaultValue": "none", "rules": [{**RULE, "key": name, "variations": ARMS}]}
        for name in ("help", "price")
    },
    "experiments": {
        "help": {
            "arms": ARMS, "goals": PURCHASE, "holdback": 0.2, "minimum_share": 0.1,
            "allocation": {"name": "thompson", "settle_minutes": 0.02},
        },
        "price": {
            "arms": ARMS, "planned_units": 500, "allocation": {"name": "fixed", "settle_minutes": 0.02},
            "goals": [*PURCHASE, {"name": "revenue", "kind": "revenue", "column": "revenue"}],
            "guardrails": [{"goal": "revenue", "worst": -0.1}],
        },
    },
}  # fmt: skip


class Crowd:
    """Visitors who put something in the cart, perhaps buy, and come again: their first session is over then."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.random, self.count, self.over = np.random.default_rng(4), 0, 0

    def ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self.service.http.request(method, path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def send(self, visitors: list[str], session: str, name: str, **more: Any) -> list[dict[str, Any]]:
        events = [{"visitor": one, "session": f"{one} {session}", "name": name, **more} for one in visitors]
        results: list[dict[str, Any]] = self.ask("POST", "/v1/events?flags=all", json=events)["results"]
        return results

    def come(self, size: int = 400) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
        """Each visitor's arms by experiment, and their sessions' tokens, of which half are not over."""
        visitors = [f"visitor {number}" for number in range(self.count, self.count + size)]
        self.count += size
        answers = self.send(visitors, "first", "add_to_cart")
        arms = {
            one: {key: flag["variant"] for key, flag in answer["flags"].items() if "variant" in flag}
            for one, answer in zip(visitors, answers, strict=True)
        }
        for price in ("control", "banner"):  # who gets the banner buys more often, at a price that is bad for us
            chance = {"control": 0.2, "banner": 0.6}
            buy = [
                one for one, arm in arms.items()
                if arm.get("price", "control") == price and self.random.random() < chance[arm["help"]]
            ]  # fmt: skip
            if buy:
                self.send(buy, "first", "purchase", value=100 if price == "control" else 20)
        self.send(visitors[::2], "second", "page_view")
        self.over += len(visitors[::2])
        return arms, {one: answer["session"] for one, answer in list(zip(visitors, answers, strict=True))[1::2]}

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", "/v1/experiments/state")
        return found


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    folder = workspace(tmp_path_factory.mktemp("learning") / "work")
    (folder / "configs" / "experiments.json").write_text(json.dumps(CONTENT))
    service = Service(
        folder, "models.uri=", "store.closed_seconds=0.2", "experiments.learn_seconds=0.2",
        "experiments.table_minutes=0.04", "server.workers=2",
    ).start()  # fmt: skip
    yield Crowd(service)
    service.stop()


def learners(service: Service) -> list[int]:
    """Processes that learn."""
    found = []
    for pid in service.processes():
        with suppress(OSError):
            if b"serving.learn" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def assignments(folder: Path, experiment: str) -> list[dict[str, Any]]:
    """Of sessions that were handed on."""
    return [
        one
        for path in sorted((folder / "lotse-data" / "closed").glob("day=*/*.parquet"))
        for row in pq.ParquetFile(path).read(["assignments"]).to_pylist()
        for one in row["assignments"]
        if one["experiment"] == hash64(experiment)
    ]


def published(folder: Path) -> dict[int, list[float]]:
    """Probabilities of the arms by the moment from which they held."""
    with closing(sqlite3.connect(folder / "lotse-data" / "experiments" / "counted.sqlite")) as database:
        found = database.execute("SELECT from_ms, bins FROM tables WHERE experiment = ?", (hash64("help"),))
        return {from_ms: json.loads(bins)[0] for from_ms, bins in found}


def counted(crowd: Crowd) -> int:
    """Units of the experiment that learns."""
    return sum(count or 0 for count in crowd.state()["experiments"]["help"]["units"].values())


def test_a_better_arm_is_found_and_one_that_harms_is_stopped(crowd: Crowd) -> None:
    arms, running = crowd.come()
    # tables move to the better arm, and propensities are those of the one that held
    wait_until(lambda: crowd.state()["experiments"]["help"]["table"]["bins"][0][1] > 0.8)
    later, _ = crowd.come()
    assert sum(one["help"] == "banner" for one in later.values()) / len(later) > 0.6
    wait_until(lambda: len(assignments(crowd.service.folder, "help")) >= 400)
    tables = {0: [0.5, 0.5], **published(crowd.service.folder)}
    noted = assignments(crowd.service.folder, "help")
    for one in noted:
        held = max(begin for begin in tables if begin <= one["exposed_at"])
        expected = 0.5 if one["flags"] & HOLDBACK else tables[held][one["arm"]]
        assert one["propensity"] == pytest.approx(expected, abs=1e-5)
    assert len({round(one["propensity"], 4) for one in noted}) > 2
    # the other experiment's arm is stopped: who has it gets what the control gets, and nobody new is in it
    wait_until(lambda: bool(crowd.state()["experiments"]["price"]["stopped"]))
    told = crowd.state()["experiments"]["price"]
    (stopped,) = told["stopped"]
    assert stopped["arm"] == "banner" and stopped["goal"] == "revenue" and stopped["high"] < -0.1
    assert told["sample_ratio"]["alarm"] is False and told["guardrails"][0]["state"] == "broken"
    assert set(told["units"]) == set(ARMS) and min(told["units"].values()) >= 50
    wait_until(lambda: "stopped, because revenue" in crowd.service.log.read_text())

    def flag_of(visitor: str) -> Any:
        context = {"targetingKey": running[visitor]}
        return crowd.ask("POST", "/ofrep/v1/evaluate/flags/price", json={"context": context})

    theirs = next(one for one in running if arms[one]["price"] == "banner")
    wait_until(lambda: flag_of(theirs)["value"] == "control")  # in every worker
    wait_until(lambda: all(flag_of(theirs)["value"] == "control" for _ in range(10)))
    new, _ = crowd.come(100)
    assert all("price" not in one for one in new.values())
    # once more, when others look
    text = crowd.service.http.get("/metrics").text
    assert 'lotse_experiment_stopped{arm="banner",experiment="price"} 1.0' in text
    assert 'lotse_experiment_ratio_alarm{experiment="price"} 0.0' in text
    assert 'lotse_experiment_table_age_seconds{experiment="help"}' in text
    assert 'lotse_experiment_units{arm="control",experiment="help"}' in text
    assert "lotse_experiment_counted_seconds 1" in text


def test_one_learner_runs_and_another_when_it_is_killed(crowd: Crowd) -> None:
    crowd.come(100)
    wait_until(lambda: len(learners(crowd.service)) == 1)
    (one,) = learners(crowd.service)
    assert os.getpriority(os.PRIO_PROCESS, one) == 19
    os.kill(one, signal.SIGKILL)
    killed = crowd.state()
    wait_until(lambda: len(learners(crowd.service)) == 1 and learners(crowd.service) != [one])
    wait_until(lambda: crowd.state()["counted_ms"] > killed["counted_ms"])
    after = crowd.state()["experiments"]
    assert after["price"]["stopped"] == killed["experiments"]["price"]["stopped"]
    wait_until(lambda: counted(crowd) == crowd.over)


def test_a_restart_goes_on_with_what_was_learned(crowd: Crowd) -> None:
    before = crowd.state()["experiments"]
    crowd.service.stop()
    crowd.service.start()
    after = crowd.state()["experiments"]
    assert after["price"]["stopped"] == before["price"]["stopped"]
    assert after["help"]["table"]["bins"][0][1] > 0.8 and after["help"]["table"]["from_ms"] > 0
    new, _ = crowd.come(100)
    assert all("price" not in one for one in new.values())


def test_an_erased_visitor_is_counted_no_longer(crowd: Crowd) -> None:
    wait_until(lambda: counted(crowd) == crowd.over)
    assert crowd.ask("POST", "/v1/visitors/erase", json={"visitor": "visitor 0"})["handed_on"] == 1
    wait_until(lambda: counted(crowd) == crowd.over - 1)
