"""Explanations: exact sums of what the trees say, for the scores of the very answer."""

from __future__ import annotations

import asyncio
import json
import math
import time
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest

from serving.explain import Asked, explain
from serving.heads import Head
from serving.requests import Request
from tests.serving.in_process import open_engine, post
from tests.serving.test_parts import FEATURES, model_folder
from tests.workspace import Service

__all__ = ["model_folder"]
HEADS = {"bounce", "conversion", "exit"}
EVENT = {"visitor": "jane", "name": "view_item", "item": "sku-1"}


def test_contributions_and_baseline_are_the_margin(model_folder: Path) -> None:
    head = Head(model_folder, "1")
    booster = lgb.Booster(model_file=str(model_folder / "booster.txt"))
    random = np.random.default_rng(2)
    for row in random.normal(size=(20, len(FEATURES))).astype(np.float32):
        row[random.random(len(FEATURES)) < 0.2] = np.nan
        margin = booster.predict(row[None, :], raw_score=True)[0]
        assert head.contributions(row).sum() == pytest.approx(margin, abs=1e-9)
        found = explain([Asked(head, row)], 2)["exit"]
        listed = found.contributions
        assert len(listed) == 2 and abs(listed[0].contribution) >= abs(listed[1].contribution) > 0
        assert found.margin == pytest.approx(margin, abs=1e-9)
        assert found.baseline + sum(one.contribution for one in listed) + found.others == pytest.approx(margin)
        for one in listed:
            value = row[FEATURES.index(one.feature)]
            assert one.value == value or (one.value is None and math.isnan(value))


def test_scores_are_explained_on_demand(service: Service) -> None:
    visitor = f"explained-{time.time_ns()}"
    one = service.http.post("/v1/events?explain=true", json={**EVENT, "visitor": visitor}).json()
    assert (
        set(one["explanations"]) == HEADS and "explanations" not in service.http.post("/v1/events", json=EVENT).json()
    )
    for found in one["explanations"].values():
        assert 0 < len(found["contributions"]) <= 8
        total = found["baseline"] + sum(c["contribution"] for c in found["contributions"]) + found["others"]
        assert total == pytest.approx(found["margin"])
    names = service.http.get("/v1/features").json()["features"]
    assert {c["feature"] for found in one["explanations"].values() for c in found["contributions"]} <= set(names)
    again = service.http.get(f"/v1/sessions/{one['session']}?explain=true").json()
    assert set(again["explanations"]) == HEADS
    # the answer is known already: no model was asked
    bought = service.http.post(
        "/v1/events?explain=true", json=[{**EVENT, "visitor": visitor, "name": "purchase"}]
    ).json()
    assert set(bought["results"][0]["explanations"]) == {"exit"}


def test_only_few_events_are_explained_at_once(service: Service) -> None:
    events = [{**EVENT, "visitor": f"many-{time.time_ns()}"}] * 21
    refused = service.http.post("/v1/events?explain=true", json=events)
    assert refused.status_code == 422 and "at most 20" in refused.json()["detail"]
    assert service.http.post("/v1/events", json=events[0]).json()["events"] == 1


def test_rows_are_kept_only_where_an_explanation_is_asked_for(trained: Path, tmp_path: Path) -> None:
    async def run() -> None:
        engine = open_engine(trained, tmp_path, "store.url=memory:")
        ((answer,),) = await post(engine, [[EVENT]], 1_780_000_000_000)
        _, view = await engine.looks.look(answer.session, 1_780_000_001_000)
        assert view.scores.keys() == HEADS and view.asked == []
        _, view = await engine.looks.look(answer.session, 1_780_000_001_000, explained=True)
        assert explain(view.asked, 1).keys() == HEADS
        for explained in (False, True):
            request = Request(b"[%s]" % json.dumps(EVENT).encode(), explained=explained)
            await engine.looks.recall(request, 1_780_000_002_000)
            assert [len(asked) for asked in request.asked] == [len(HEADS) if explained else 0]
        await engine.close()

    asyncio.run(run())
