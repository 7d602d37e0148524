"""Looking at all sessions at once gives what asking for each of them gives, in every store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.steps import STEPS
from serving.console.listing import Listing, ranked
from serving.console.looking import Looker
from serving.console.shown_flags import ShownFlags
from serving.console.totals import totals
from serving.engine import Engine
from serving.requests import Request
from serving.sessions import Objection, visitor_of
from simulation.crowd import visits_of_shop
from simulation.shop import simulate
from tests.serving.in_process import open_engine

pytestmark = pytest.mark.anyio

NOW = 1_770_000_000_000
HOUR_MS = 3_600_000
VISITS = 150
LONG = "x" * 60
FLAGS = {
    "features": {"offer": {"defaultValue": "none", "rules": [
        {"key": "offer", "condition": {"events": {"$gte": 2}}, "variations": ["none", "banner"]},
    ]}, "thanks": {"defaultValue": 0, "rules": [{"condition": {"cart_adds": {"$gt": 0}}, "force": {"text": LONG}}]}},
    "experiments": {"offer": {
        "arms": ["none", "banner"], "goals": [{"name": "purchase", "column": "purchases", "primary": True}],
    }},
}  # fmt: skip


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def send(engine: Engine, events: Sequence[dict[str, Any]], now_ms: int) -> None:
    request = Request(json.dumps(list(events)).encode(), flags=())
    later = engine.take([request], now_ms)
    if later is not None:
        await later
    assert request.problem is None, request.problem


async def visited(engine: Engine) -> None:
    """Visits that go on, visits that are over, a visitor who objects, a cart, a request with a key."""
    visits = visits_of_shop(simulate(visitors=VISITS, seed=3))[:VISITS]
    for number, visit in enumerate(visits):
        idle_ms = 17_000 * number  # the last ones have been silent for longer than a session lasts
        last = visit.offsets[-1]
        events = [
            {**event, "visitor": visit.visitor, "time": NOW - idle_ms - round((last - offset) * 1000)}
            for event, offset in zip(visit.events, visit.offsets, strict=True)
        ]
        await send(engine, [event for event in events if event["time"] > NOW - 20 * HOUR_MS], NOW - idle_ms)
    await engine.upkeep.sweep(NOW)


@pytest.fixture
async def engine(
    request: pytest.FixtureRequest, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Engine]:
    kind = request.param
    flags = tmp_path / "flags.json"
    flags.write_text(json.dumps(FLAGS))
    overrides = [f"experiments.file={flags}", f"experiments.learned={tmp_path}/learned", "store.timeout_seconds=5"]
    if kind == "encrypted":
        monkeypatch.setenv("LOTSE_STORE_KEY", "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=")
    elif kind == "disk":
        overrides.append('store.durability="disk"')
    elif kind != "embedded":
        url = "memory:" if kind == "memory" else request.getfixturevalue(kind)
        overrides += [f"store.url={url}", f"store.prefix=look_{kind}"]
    opened = open_engine(trained, tmp_path, *overrides)
    yield opened
    await opened.close()


STORES = ["memory", "embedded", "encrypted", "disk", "redis", "redis_nodes", "cassandra"]


@pytest.mark.parametrize("engine", STORES, indirect=True)
async def test_a_look_at_all_is_a_look_at_each(engine: Engine) -> None:
    await visited(engine)
    objecting = (await Looker(engine.settings, engine.store).look(NOW)).keys[0]
    later = engine.store.apply([Objection(objecting, objects=True)])
    if later is not None:
        await later
    looker = Looker(engine.settings, engine.store)
    look = await looker.look(NOW)
    assert 60 < len(look) < VISITS and look.looked_at == look.entries >= len(look)
    seen = 0
    for place, key in enumerate(look.keys):
        view = await engine.looks.view(visitor_of(key), now_ms=NOW)
        assert view is not None
        assert view.started_at == look.started[place] and view.events == look.events[place]
        assert view.idle_seconds == look.idle_seconds[place]
        scores = {head: column[place] for head, column in look.scores.items() if not np.isnan(column[place])}
        assert scores == view.scores
        assert look.decided.get(place, []) == view.decided
        assert len(look.assigned.get(place, b"")) // 64 == len(view.subject.assigned)
        step = int(view.subject.row[engine.fold.names.index("events")]) and STEPS[look.steps[place]]
        assert step in STEPS
        seen += bool(view.subject.assigned)
    assert seen > 10
    # an objection is one here, too
    assert look.scores["exit"][look.keys.index(objecting)] == engine.settings.prior["exit"]


@pytest.mark.parametrize("engine", ["embedded"], indirect=True)
async def test_more_than_so_many_are_looked_at_in_part_and_always_the_same(engine: Engine) -> None:
    await visited(engine)
    console = engine.settings.console.model_copy(update={"sessions": 40})
    looker = Looker(engine.settings.model_copy(update={"console": console}), engine.store)
    whole = await Looker(engine.settings, engine.store).look(NOW)
    one, other = await looker.look(NOW), await looker.look(NOW + 1)
    assert one.looked_at <= 40 and one.entries == whole.entries and set(one.keys) <= set(whole.keys)
    assert set(other.keys) <= set(one.keys)
    assert totals(one)["live"] == round(len(one) * one.entries / one.looked_at)


@pytest.mark.parametrize("engine", ["embedded"], indirect=True)
async def test_rows_are_told_once_and_again_when_they_are_others(engine: Engine) -> None:
    await visited(engine)
    looker, listing = Looker(engine.settings, engine.store), Listing(10, 1_800)
    look = await looker.look(NOW)
    told = listing.rows(look, "recent", {})
    assert len(told["order"]) == len(told["rows"]) == 10 and [row["id"] for row in told["rows"]] == told["order"]
    assert [row["idle_seconds"] for row in told["rows"]] == sorted(look.idle_seconds.round(1))[:10]
    again = listing.rows(look, "recent", {})
    assert again["order"] == told["order"] and again["rows"] == []
    # another process calls them otherwise
    assert set(Listing(10, 1_800).rows(look, "recent", {})["order"]).isdisjoint(told["order"])
    listing.forget("recent")
    assert listing.rows(look, "recent", {})["rows"] == told["rows"]
    await send(engine, [{"visitor": "somebody else", "name": "view_item", "time": NOW}], NOW)
    new = listing.rows(await looker.look(NOW), "recent", {})
    assert len(new["rows"]) == 1 and new["rows"][0]["step"] == "item" and new["rows"][0]["id"] in new["order"]
    highest = listing.rows(look, "conversion", {})["rows"]
    expected = sorted(look.scores["conversion"][~np.isnan(look.scores["conversion"])], reverse=True)[:10]
    assert [row["scores"]["conversion"] for row in highest] == [round(float(score), 3) for score in expected]


@pytest.mark.parametrize("engine", ["embedded"], indirect=True)
async def test_scores_that_were_told_stand_in_the_order_of_the_list(engine: Engine) -> None:
    await visited(engine)
    looker, listing = Looker(engine.settings, engine.store), Listing(100, 1_800)
    shown: dict[str, float] = {}
    for second in range(60):
        told = listing.rows(await looker.look(NOW + second * 1_000), "exit", {})
        shown |= {row["id"]: row["scores"]["exit"] for row in told["rows"]}
        scores = [shown[name] for name in told["order"]]
        assert scores == sorted(scores, reverse=True) and len(scores) > 10


@pytest.mark.parametrize("engine", ["embedded"], indirect=True)
async def test_a_row_names_the_arm_that_its_session_has(engine: Engine) -> None:
    await send(engine, [{"visitor": "one", "name": "view_item", "time": NOW - 1}], NOW)
    await send(engine, [{"visitor": "one", "name": "add_to_cart", "time": NOW}], NOW)
    look = await Looker(engine.settings, engine.store).look(NOW)
    view = await engine.looks.view(visitor_of(look.keys[0]), now_ms=NOW)
    assert view is not None
    (assigned,) = view.subject.assigned
    arms = {assigned.experiment: ("offer", ("none", "banner"))}
    (row,) = Listing(10, 1_800).rows(look, "recent", arms)["rows"]
    assert row["arms"] == [{"experiment": "offer", "arm": ("none", "banner")[assigned.arm]}]
    (unknown,) = Listing(10, 1_800).rows(look, "recent", {})["rows"]
    assert unknown["arms"][0]["arm"] == str(assigned.arm)


@pytest.mark.parametrize("engine", ["embedded"], indirect=True)
async def test_a_row_has_the_flags_that_a_request_would_be_answered_with(engine: Engine) -> None:
    await visited(engine)
    look, shown = await (looker := Looker(engine.settings, engine.store)).look(NOW), ShownFlags(engine.settings)
    assert shown.flags(look, 0) == {}
    await shown.follow(looker)
    assert list(shown.arms.values()) == [("offer", ("none", "banner"))]
    seen = Counter[str]()
    before = {key: engine.store.read(key) for key in look.keys}
    for place, key in enumerate(look.keys):
        found = shown.flags(look, place)
        seen.update([f"{len(found)} flags", *found])
        view = await engine.looks.view(visitor_of(key), now_ms=NOW)
        assert view is not None and engine.store.read(key) == before[key]
        told, _ = await engine.looks.evaluated(view, ("offer", "thanks"), NOW)
        assert found.get("offer", "none") == told["offer"].value
        assert found.get("thanks", "")[:41] == ('{"text":"' + "x" * 31 + "…" if told["thanks"].value else "")
    assert seen["0 flags"] and seen["thanks"] and seen["offer"]
    rows = Listing(500, 1_800).rows(look, "recent", shown.arms, shown.flags)["rows"]
    assert [row.get("flags", {}) for row in rows] == [shown.flags(look, place) for place in ranked(look, "recent", 500)]
