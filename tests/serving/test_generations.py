"""A new feature catalogue goes live with the models that need it: nothing is skewed, nothing is put away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from features import carried
from features.compiler import Fold, compile_fold
from features.declare import CatalogueError
from features.definitions import CATALOGUE
from features.events import ADD_TO_CART, CONSENT_LINK
from features.sessions import HEADER_DIGEST
from serving.handover import ParquetSink
from serving.requests import Answer
from serving.sessions import STATE_BYTES, word_of
from serving.settings import StoreSettings
from serving.stores import Batch
from tests.redis_server import redis_server
from tests.serving.test_swaps import Running, check, scores
from tests.serving.versions import HEADS, Versions

TIMEOUT_MS = 30 * 60_000


@pytest.fixture(scope="module")
def other_fold() -> Fold:
    """Another release's: a few of our features, and one that we have not."""
    catalogue = CATALOGUE.select(["events", "idle_seconds", "cart_adds", "local_hour"])

    @catalogue.field("f8", feature=True)
    def item_sum(item_sum: float, item: int, name: int) -> float:
        """Not ours."""
        return item_sum + (item % 7) * (1 + (name == ADD_TO_CART))

    @catalogue.field("f8", feature=True)
    def searches(searches: float, item: int) -> float:
        """Ours are whole numbers."""
        return searches + item % 3 + 0.5

    return compile_fold(catalogue.check())


@pytest.fixture(scope="module")
def versions(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    return Versions(trained, tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def running(versions: Versions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    one = Running(tmp_path_factory.mktemp("engine"), versions.uri)
    yield one
    asyncio.run(one.engine.close())


def test_a_fold_travels_as_text(other_fold: Fold) -> None:
    text = carried.dump(other_fold)
    there = carried.load(text, other_fold.digest)
    assert (there.names, there.field_digest, there.record_bytes) == (
        other_fold.names, other_fold.field_digest, other_fold.record_bytes,
    )  # fmt: skip
    content = json.loads(text)
    field = content["fields"][0]
    for change, message in (
        ({"text": content["text"] + "import os\n"}, "hashes to"),
        ({"fields": [[field[0], "f8", *field[2:]], *content["fields"][1:]]}, "fields are not those of its text"),
        ({"format": 9}, "this release reads 1"),
        ({"fields": 7}, "not a fold"),
    ):
        with pytest.raises(CatalogueError, match=message):
            carried.load(json.dumps({**content, **change}), other_fold.digest)


@pytest.mark.slow
def test_sessions_end_in_the_generation_they_started_in(
    running: Running, versions: Versions, other_fold: Fold, tmp_path: Path
) -> None:
    engine, new_rows = running.engine, running.rows(other_fold)
    new = {head: versions.add_for(head, other_fold, new_rows) for head in HEADS}
    expected = scores({key: one for key, one in versions.loaded.items() if key[1] == "1"}, running.rows())
    expected |= scores({key: one for key, one in versions.loaded.items() if key[1] != "1"}, new_rows)
    old = dict.fromkeys(HEADS, "1")

    async def sent(visitor: str, number: int, versions_named: dict[str, str]) -> Answer:
        answer = await running.send(visitor, number)
        check(answer, number, expected)
        assert answer.models == versions_named
        assert answer.events == number + 1
        return answer

    async def change() -> None:
        following = asyncio.create_task(engine.follow_models())
        await sent("early", 0, old)
        versions.point("exit", new["exit"])
        engine.watcher.cache.ask()
        while engine.watcher.cache.state().heads["exit"].champion.number == "1":  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
        await sent("early", 1, old)
        await sent("between", 0, old)  # the other heads have no version for the new features yet
        for head in ("bounce", "conversion"):
            versions.point(head, new[head])
        await running.until(**new)
        assert [one.fold.digest for one in engine.lineup.generations] == [other_fold.digest, compile_fold().digest]
        late = await sent("late", 0, new)
        await sent("early", 2, old)
        await sent("between", 1, old)
        await sent("late", 1, new)
        looked, _ = await engine.looks.look(late.session, running.now + 5_000)
        assert looked.models == new and looked.events == 2
        # its session is over: the next one starts with the new features
        over = await running.send("between", 2, at=running.now + 2 * TIMEOUT_MS)
        assert (over.status, over.events, over.models) == ("started", 1, new)
        # back again: what has begun in between stays where it is, too
        for head in HEADS:
            versions.point(head, "1")
        await running.until(**old)
        await sent("late", 2, new)
        await sent("early", 3, old)
        await sent("latest", 0, old)
        for head in HEADS:
            versions.point(head, new[head])
        await running.until(**new)
        # nobody was there for two timeouts
        engine.watcher._models._used_at[compile_fold().digest] -= 3 * TIMEOUT_MS / 1000
        engine.lineup.generations[1].used = False
        while len(engine.lineup.generations) > 1:
            await asyncio.sleep(0.01)
        await sent("late", 3, new)
        following.cancel()

    asyncio.run(change())
    assert engine.metrics.retired_records == 1  # "between", whose session was over
    starts = Running(tmp_path, "", cache=running.settings.models.cache)
    assert starts.engine.fold.digest == other_fold.digest
    assert asyncio.run(starts.send("first", 0)).models == new
    asyncio.run(starts.engine.close())


@pytest.mark.slow
def test_a_generation_is_kept_while_another_worker_has_sessions_of_it(
    running: Running, versions: Versions, other_fold: Fold, tmp_path: Path
) -> None:
    """Of two workers one sees nothing of the old sessions for many timeouts."""
    old, old_digest = dict.fromkeys(HEADS, "1"), compile_fold().digest

    async def change(url: str) -> None:
        # beside a worker whose follower they share, and on a store that two may open in one process
        store = StoreSettings(url=url, spool=f"{tmp_path}/spool", deadline_seconds=60)
        idle, busy = (Running(tmp_path, versions.uri, store, cache=running.settings.models.cache) for _ in range(2))
        following = [asyncio.create_task(worker.engine.follow_models()) for worker in (idle, busy)]
        for head in HEADS:
            versions.point(head, "1")
        await asyncio.gather(idle.until(**old), busy.until(**old))
        busy.now = idle.now
        assert (await busy.send("long", 0)).models == old
        new = {head: versions.add_for(head, other_fold, idle.rows(other_fold)) for head in HEADS}
        for head in HEADS:
            versions.point(head, new[head])
        await asyncio.gather(idle.until(**new), busy.until(**new))

        async def later(timeouts: float, now_ms: int) -> list[int]:
            """How many generations each has after so long, in which both told the other what they had used."""
            for worker in (busy, idle, busy):
                await worker.engine.upkeep.share_usage(now_ms)
            for worker in (idle, busy):
                models = worker.engine.watcher._models
                models.outlived()  # takes notice
                models._used_at[old_digest] -= timeouts * TIMEOUT_MS / 1000
            await asyncio.sleep(0.3)  # both look twenty times a second
            return [len(worker.engine.lineup.generations) for worker in (idle, busy)]

        for number in range(1, 4):
            at = busy.now + number * TIMEOUT_MS
            answer = await busy.send("long", number, at=at)
            assert (answer.models, answer.events) == (old, number + 1)
            assert await later(1, at) == [2, 2]
        answer = await idle.send("long", 4, at=busy.now + 4 * TIMEOUT_MS)
        assert (answer.status, answer.models, answer.events) == ("folded", old, 5)
        assert idle.engine.metrics.retired_records == 0
        assert await later(1, busy.now + 5 * TIMEOUT_MS) == [2, 2]
        assert await later(3, busy.now + 9 * TIMEOUT_MS) == [1, 1]
        await idle.engine.upkeep.sweep(busy.now + 20 * TIMEOUT_MS)
        await idle.engine.upkeep.count()
        assert idle.engine.metrics.records == 0  # nor is a note left
        for task, worker in zip(following, (idle, busy), strict=True):
            task.cancel()
            await worker.engine.close()

    with redis_server() as server:
        asyncio.run(change(server.url))


@pytest.mark.slow
def test_sessions_of_every_generation_are_handed_on_with_its_own_fields(
    running: Running, versions: Versions, other_fold: Fold, tmp_path: Path
) -> None:
    engine, over = running.engine, running.now + 50 * TIMEOUT_MS

    async def change() -> None:
        following = asyncio.create_task(engine.follow_models())
        new = {head: versions.add_for(head, other_fold, running.rows(other_fold)) for head in HEADS}
        for head in HEADS:
            versions.point(head, "1")
        await running.until(**dict.fromkeys(HEADS, "1"))
        await engine.upkeep.sweep(over)
        while batch := engine.store.claim(1_000, over, 1):  # what other tests have left
            engine.store.settle(batch.name)
        for number in range(3):
            await running.send("ours", number)
        for head in HEADS:
            versions.point(head, new[head])
        await running.until(**new)
        for number in range(3):
            await running.send("theirs", number)
        await engine.upkeep.sweep(over)
        following.cancel()

    asyncio.run(change())
    batch = engine.store.claim(1_000, over, 1)
    assert isinstance(batch, Batch)
    first, second = engine.sink.table(batch.sessions).to_pylist()
    own, other = (first, second) if first["field_digest"] == compile_fold().field_digest else (second, first)
    assert other["field_digest"] == other_fold.field_digest
    assert own["record"] is None and other["record"] is None
    assert own["events"] == other["events"] == 3 and own["cart_adds"] == other["cart_adds"] == 1
    # what only one of them has, and what both have as another type
    assert (own["item_views"], other["item_views"], own["item_sum"]) == (1, None, None) and other["item_sum"] > 0
    assert (own["searches"], own["searches@i4"], other["searches@i4"]) == (None, 0, None) and other["searches"] >= 1.5
    # a worker that has let one of them go writes it as it lies in the store
    later = ParquetSink(tmp_path, [other_fold])
    raw = {line["field_digest"]: line["record"] for line in later.table(batch.sessions).to_pylist()}
    own_digest = compile_fold().field_digest
    (value,) = (value for _, value in batch.sessions if word_of(value, HEADER_DIGEST) == own_digest)
    assert raw == {other_fold.field_digest: None, compile_fold().field_digest: value[STATE_BYTES:]}
    # and a file of one generation has its columns only
    alone = [one for one in batch.sessions if one.value == value]
    names = engine.sink.table(alone).column_names
    assert "searches" in names and not {"item_sum", "searches@i4"} & set(names)


@pytest.mark.slow
def test_a_linked_visitor_of_an_older_generation_is_remembered_as_long_as_any(
    running: Running, versions: Versions, other_fold: Fold
) -> None:
    engine, over = running.engine, running.now + 70 * TIMEOUT_MS
    linked = {"consent": ["measure", "link"]}

    async def change() -> None:
        following = asyncio.create_task(engine.follow_models())
        new = {head: versions.add_for(head, other_fold, running.rows(other_fold)) for head in HEADS}

        async def point(numbers: dict[str, str]) -> None:
            for head in HEADS:
                versions.point(head, numbers[head])
            await running.until(**numbers)

        await point(dict.fromkeys(HEADS, "1"))
        await running.send("linked", 0, **linked)
        await running.send("not linked", 0)
        await point(new)
        await engine.upkeep.sweep(over)
        await engine.upkeep.count()
        assert engine.metrics.records == 1
        # who goes back to the old features knows the visitor again
        await point(dict.fromkeys(HEADS, "1"))
        assert (await running.send("linked", 1, at=over, **linked)).status == "started"
        await engine.upkeep.sweep(over + TIMEOUT_MS)
        lines = []
        while isinstance(batch := engine.store.claim(1_000, over, 1), Batch):
            lines += engine.sink.table(batch.sessions).to_pylist()
            engine.store.settle(batch.name)
        visits = [line["visitor_visits"] for line in lines if line["consent"] & CONSENT_LINK]
        assert sorted(visits) == [1, 2]
        # and forgets the visitor when that is due
        await engine.upkeep.sweep(over + TIMEOUT_MS + engine.sessions.linked_ms)
        await engine.upkeep.count()
        assert engine.metrics.records == 0
        following.cancel()

    asyncio.run(change())
