"""Swaps while events come in: no answer fails, and each is exactly what the version that it names gives.

`python -m benchmarks.swaps` does a thousand of them in a real service under load.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import hmac
import itertools
import json
import os
import shutil
import signal
import socket
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.allocation import DAY_MS
from features.compiler import Fold, compile_fold
from features.shop import ShopSettings
from features.tables import NOTHING_LEARNED
from serving.engine import Engine
from serving.lineup import Lineup
from serving.model_cache import ModelCache
from serving.models import Models
from serving.problems import Problem
from serving.refresh import SECRET, refresh
from serving.requests import Answer, Request
from serving.settings import KeySettings, ModelSettings, ServingSettings, StoreSettings
from serving.shadow import Comparison
from serving.stores import Advance, Visit, one_by_one
from serving.stores.memory import MemoryStore
from tests.serving.versions import HEADS, Versions
from training.loading import Registered

NAMES = ("page_view", "view_item", "add_to_cart", "view_item", "page_view")


@pytest.fixture(scope="module")
def versions(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """Three versions of each head."""
    made = Versions(trained, tmp_path_factory.mktemp("registry"))
    for trees in (4, 40):
        for head in HEADS:
            made.add(head, trees)
    return made


class Running:
    """An engine that follows its models, in this process."""

    def __init__(self, folder: Path, uri: str, store: StoreSettings | None = None, **models: Any) -> None:
        chosen = {"cache": str(folder / "models"), "poll_seconds": 3600, **models}
        self.settings = ServingSettings(
            store=store or StoreSettings(url=f"embedded:{folder}/live", size_gib=0.1),
            models=ModelSettings(uri=uri, **chosen),
            keys=KeySettings(folder=str(folder)),
        )
        self.engine = Engine(self.settings, ShopSettings())
        # noon: an hour later it is the same day, in which a visitor has one key
        self.now = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS + DAY_MS // 2

    async def send(self, visitor: str, number: int, at: int = 0, **more: Any) -> Answer:
        """Event `number` of a visitor, at the same time for all of them, or at another, ms UTC."""
        request = Request(wire(self, number, visitor, at, **more))
        later = self.engine.take([request], max(at, self.now + 60_000))
        if later is not None:
            await later
        assert request.problem is None, request.problem
        assert isinstance(request.answer, Answer)
        return request.answer

    def rows(self, fold: Fold | None = None) -> np.ndarray:
        """The features right after each of the events, by our fold or another one: float32 (5, F)."""
        ours = self.engine.scorer.heads["exit"].tables if fold is None else NOTHING_LEARNED
        fold = fold or compile_fold()
        record, rows, tables = fold.new_record(), [], ours.pack(tuple(fold.catalogue.tables))
        for number in range(len(NAMES)):
            event = self.engine.reader.intake.event(wire(self, number), self.now + 60_000, lambda raw, linked: 1)
            row = fold.new_row()
            fold.advance(record, row, 1_800_000, tables, *event)
            rows.append(row)
        return np.array(rows)

    async def until(self, **expected: str) -> None:
        """Wait until the champions are these versions."""
        self.engine.watcher.cache.ask()
        for _ in range(30_000):
            if expected.items() <= self.engine.scorer.versions.items():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.engine.scorer.versions}, expected {expected}")


def wire(running: Running, number: int, visitor: str = "x", at: int = 0, **more: Any) -> bytes:
    """Event `number` of a visitor."""
    time_ms = at or running.now + 3_000 * number
    event = {"visitor": visitor, "name": NAMES[number], "item": f"sku-{number}", "time": time_ms, **more}
    return json.dumps(event).encode()


@pytest.fixture(scope="module")
def one_engine(versions: Versions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    one = Running(tmp_path_factory.mktemp("engine"), versions.uri)
    yield one
    asyncio.run(one.engine.close())


@pytest.fixture
def running(one_engine: Running, versions: Versions) -> Running:
    """The engine, with the first versions as its champions and no challenger."""

    async def first() -> None:
        following = asyncio.create_task(one_engine.engine.follow_models())
        for head in HEADS:
            versions.point(head, "1")
        await one_engine.until(**dict.fromkeys(HEADS, "1"))
        following.cancel()

    asyncio.run(first())
    return one_engine


def scores(loaded: Mapping[tuple[str, str], Registered], rows: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """What training says each version makes of the rows, by head and number."""
    return {key: one.model.score(rows) for key, one in loaded.items()}


def check(
    answer: Answer, number: int, expected: dict[tuple[str, str], np.ndarray], heads: Sequence[str] = HEADS
) -> None:
    """Every score is that of the version which the answer names."""
    assert set(answer.models) == set(heads)
    assert answer.reasons == {}
    for head in heads:
        if head not in answer.decided:
            score = expected[head, answer.models[head]][number]
            assert answer.scores[head] == pytest.approx(score, abs=1e-12), (head, answer.models[head])


@pytest.mark.slow
def test_swaps_under_load(running: Running, versions: Versions) -> None:
    """Twelve moves of all heads' aliases between three versions, of which two stay in memory."""
    expected = scores(versions.loaded, running.rows())
    for head in HEADS:
        one, two, three = (expected[head, number] for number in "123")
        assert min(np.abs(one - two).min(), np.abs(one - three).min(), np.abs(two - three).min()) > 1e-6
    seen: Counter[str] = Counter()
    lineups: list[weakref.ref[Lineup]] = []

    async def load(who: int) -> None:
        for visit in itertools.count():
            for number in range(len(NAMES)):
                answer = await running.send(f"{who}-{visit}", number)
                check(answer, number, expected)
                seen[answer.models["exit"]] += 1
                await asyncio.sleep(0)

    async def swaps() -> None:
        following = asyncio.create_task(running.engine.follow_models())
        loads = [asyncio.create_task(load(who)) for who in range(3)]
        for turn in range(12):
            number = "231"[turn % 3]
            lineups.append(weakref.ref(running.engine.lineup))
            for head in HEADS:
                await asyncio.to_thread(versions.point, head, number)
            await running.until(**dict.fromkeys(HEADS, number))
            assert all(not one.done() for one in loads), [one.exception() for one in loads if one.done()]
        for task in (following, *loads):
            task.cancel()
        await asyncio.gather(following, *loads, return_exceptions=True)

    gc.disable()
    try:
        asyncio.run(swaps())
        # what scored before is gone without the garbage collector, which a service runs rarely
        assert [one() is None for one in lineups] == [True] * 12
    finally:
        gc.enable()
    assert set(seen) == {"1", "2", "3"} and min(seen.values()) > 12


class Held(MemoryStore):
    """A store that answers when it is told to."""

    waits = True

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    def apply(self, visits: Sequence[Visit], advance: Advance = one_by_one) -> Any:
        """Apply, later."""

        async def later() -> None:
            await self.gate.wait()
            super(Held, self).apply(visits, advance)

        return later()


def test_an_answer_that_waits_for_its_store_ends_with_the_version_it_began_with(
    running: Running, versions: Versions
) -> None:
    expected, embedded = scores(versions.loaded, running.rows()), running.engine.store

    async def both() -> tuple[Answer, Answer]:
        running.engine.store = store = Held()
        following = asyncio.create_task(running.engine.follow_models())
        before = asyncio.create_task(running.send("before", 0))
        await asyncio.sleep(0)
        versions.point("exit", "2")
        await running.until(exit="2")
        after = asyncio.create_task(running.send("after", 0))
        await asyncio.sleep(0)
        store.gate.set()
        following.cancel()
        return await before, await after

    before, after = asyncio.run(both())
    running.engine.store = embedded
    assert (before.models["exit"], after.models["exit"]) == ("1", "2")
    check(before, 0, expected)
    check(after, 0, expected)


def challenged(running: Running, **shares: float) -> Comparison:
    """Let version 2 be the challenger of exit, with these shares; returns what is noted about it."""
    chosen = running.settings.models.model_copy(update=shares)
    settings, comparison = running.settings.model_copy(update={"models": chosen}), Comparison()
    state = running.engine.watcher.cache.state()
    of_exit = state.heads["exit"]
    of_exit.challenger = next(one for one in of_exit.previous if one.number == "2")
    running.engine.lineup = Models(settings, running.engine.watcher.cache, running.engine.fold, comparison).lineup(
        state
    )
    return comparison


def answers_of(running: Running, versions: Versions, visitors: str) -> list[list[Answer]]:
    """Three answers to each of sixty visitors, all checked."""
    expected = scores(versions.loaded, running.rows())

    async def ask() -> list[list[Answer]]:
        return [[await running.send(f"{visitors}-{who}", number) for number in range(3)] for who in range(60)]

    answers = asyncio.run(ask())
    for of_visitor in answers:
        for number, answer in enumerate(of_visitor):
            check(answer, number, expected)
    return answers


@pytest.fixture
def two_before(running: Running, versions: Versions) -> Iterator[Running]:
    """Version 2 of exit was the champion before version 1."""

    async def there_and_back() -> None:
        following = asyncio.create_task(running.engine.follow_models())
        for number in ("2", "1"):
            versions.point("exit", number)
            await running.until(exit=number)
        following.cancel()

    asyncio.run(there_and_back())
    lineup = running.engine.lineup
    yield running
    running.engine.lineup = lineup


def test_a_challenger_in_the_shadow_is_compared_and_nobody_is_answered_with_it(
    two_before: Running, versions: Versions
) -> None:
    comparison = challenged(two_before, shadow_share=1.0)
    answers = answers_of(two_before, versions, "shadow")
    assert {answer.models["exit"] for of_visitor in answers for answer in of_visitor} == {"1"}
    pair = comparison.pairs["exit", "1", "2"]
    one, two = (versions.loaded["exit", number].model.score(two_before.rows()[:3]) for number in "12")
    assert pair.rows == 180
    assert pair.difference / pair.rows == pytest.approx(np.abs(one - two).mean())
    assert pair.champion.sum / pair.rows == pytest.approx(one.mean())
    told = {sample.name: sample.value for metric in comparison.collect() for sample in metric.samples}
    assert told["lotse_shadow_rows_total"] == told["lotse_shadow_score_count"] == 180
    assert told["lotse_shadow_psi"] == pair.psi() > 0


def test_a_canary_is_answered_with_the_challenger_and_stays_it(two_before: Running, versions: Versions) -> None:
    challenged(two_before, shadow_share=0.0, canary_share=0.5)
    answers = answers_of(two_before, versions, "canary")
    of_visitor = [{answer.models["exit"] for answer in three} for three in answers]
    assert all(len(numbers) == 1 for numbers in of_visitor)
    # of 60 visitors a half: outside is less likely than 1 in 10^7
    assert 10 < sum(numbers == {"2"} for numbers in of_visitor) < 50


def test_a_start_scores_from_the_cache_and_asks_the_registry_afterwards(
    running: Running, versions: Versions, tmp_path: Path
) -> None:
    shutil.copytree(running.settings.models.cache, tmp_path / "models")
    other = Running(tmp_path, versions.uri)
    watcher, lineup = other.engine.watcher, other.engine.lineup
    assert watcher._follower.process is None

    async def ask() -> Answer:
        answer = await other.send("jane", 0)
        following = asyncio.create_task(other.engine.follow_models())
        while watcher._follower.process is None or watcher._state.run != watcher.cache.run():
            await asyncio.sleep(0.01)
        following.cancel()
        await other.engine.close()
        return answer

    answer = asyncio.run(ask())
    assert answer.models == dict.fromkeys(HEADS, "1") and answer.reasons == {}
    assert other.engine.lineup is lineup  # the registry says the same: nothing is swapped


def test_a_start_waits_for_the_registry_where_the_cache_cannot_score(
    running: Running, trained: Path, tmp_path: Path
) -> None:
    cache, registry = ModelCache(tmp_path / "models"), Versions(trained, tmp_path / "registry")
    shutil.copytree(running.settings.models.cache, cache.folder)
    for version in cache.state().heads["exit"].versions():
        (cache.path(version) / "booster.txt").write_text("no trees")
    registry.point("exit", new := registry.add("exit", 3))
    other = Running(tmp_path, registry.uri)
    answer = asyncio.run(other.send("jane", 0))
    assert answer.models == {**dict.fromkeys(HEADS, "1"), "exit": new} and answer.reasons == {}
    asyncio.run(other.engine.close())


def test_a_registry_that_hangs_does_not_keep_a_service_from_starting(running: Running, tmp_path: Path) -> None:
    shutil.copytree(running.settings.models.cache, tmp_path / "models")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        other = Running(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")

        async def ask() -> Answer:
            following = asyncio.create_task(other.engine.follow_models())
            while not other.engine.watcher._state.unreachable_since_ms:
                await asyncio.sleep(0.01)
            following.cancel()
            return await other.send("jane", 0)

        answer = asyncio.run(ask())
        assert answer.models == dict.fromkeys(HEADS, "1") and answer.reasons == {}
        asyncio.run(other.engine.close())


@pytest.mark.slow
def test_a_follower_that_was_killed_is_replaced(running: Running, versions: Versions) -> None:
    async def kill() -> None:
        following = asyncio.create_task(running.engine.follow_models())
        follower = running.engine.watcher._follower.process
        assert follower is not None
        os.kill(follower.pid, signal.SIGKILL)
        follower.wait()
        versions.point("exit", "2")
        await running.until(exit="2")
        following.cancel()

    asyncio.run(kill())


def signed(secret: str, body: bytes, at: float) -> list[tuple[bytes, bytes]]:
    """The headers of MLflow's webhook delivery."""
    timestamp = str(int(at)).encode()
    digest = hmac.new(secret.encode(), b"an-id." + timestamp + b"." + body, hashlib.sha256).digest()
    return [
        (b"x-mlflow-delivery-id", b"an-id"),
        (b"x-mlflow-timestamp", timestamp),
        (b"x-mlflow-signature", b"v1," + base64.b64encode(digest)),
    ]


def test_a_webhook_has_the_registry_asked_if_it_is_signed(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.webhooks.delivery import _generate_hmac_signature  # noqa: PLC0415

    cache, body = running.engine.watcher.cache, b'{"entity": "model_version_alias", "action": "created"}'
    before, now = cache.asked(), time.time()
    monkeypatch.delenv(SECRET, raising=False)
    with pytest.raises(Problem, match="not accepted here"):
        refresh(cache, signed("a secret", body, now), body)
    monkeypatch.setenv(SECRET, "a secret")
    for headers, sent in (
        (signed("another", body, now), body),
        (signed("a secret", body, now), body + b" "),
        (signed("a secret", body, now - 900), body),
        ([], body),
    ):
        with pytest.raises(Problem) as problem:
            refresh(cache, headers, sent)
        assert problem.value.status == 401
    assert cache.asked() == before
    headers = signed("a secret", body, now)
    theirs = _generate_hmac_signature("a secret", "an-id", str(int(now)), body.decode())
    assert dict(headers)[b"x-mlflow-signature"] == theirs.encode()
    refresh(cache, headers, body)
    assert cache.asked() != before
