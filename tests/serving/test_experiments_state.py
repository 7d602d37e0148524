"""What workers make of what was learned, and what they tell of it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from features.settings import SettingsError
from serving.app import App
from serving.experiments.counted import put_aside
from serving.experiments.learned import Published
from serving.keys import KeyFile
from serving.openapi import document
from tests.serving.in_process import client
from tests.serving.shop import ARMS, HOUR, NOW, Shop
from tests.workspace import ROOT

HARM = {"control": 0.5, "banner": 0.0, "chat": 0.5}


def test_the_state_is_told_to_secret_keys_without_small_numbers(tmp_path: Path) -> None:
    shop = Shop(tmp_path, guardrails=[{"goal": "purchase"}], planned_units=1_000)
    shop.sessions(NOW, 100, HARM)
    app, keys = App(), KeyFile(tmp_path)
    secret, public = (keys.create(kind, kind)[1] for kind in ("secret", "public"))
    app.engine = shop.engine

    def ask(key: str = secret) -> Any:
        async def run() -> Any:
            async with client(app) as http:
                answer = await http.get("/v1/experiments/state", headers={"Authorization": f"Bearer {key}"})
                return answer.json() if answer.status_code == 200 else answer.status_code

        return asyncio.run(run())

    assert ask(public) == 403 and ask("") == 401
    never = ask()
    assert never["counted_ms"] == 0 and "units" not in never["experiments"]["offer"]
    shop.look(NOW + 3 * HOUR)
    few = ask()["experiments"]["offer"]
    assert few["units"] == dict.fromkeys(ARMS) and few["sample_ratio"]["p"] is None and few["stopped"] == []
    assert {(one["state"], one["lift"]) for one in few["guardrails"]} == {("watch", None)}
    published = (tmp_path / "learned" / "learned.json").read_text()
    assert not re.search(r'"units": \[\s*\d', published)  # it is not in the file either
    assert "lotse_experiment_units{" not in shop.engine.metrics.text().decode()
    shop.sessions(NOW + 3 * HOUR, 800, HARM)
    shop.look(NOW + 6 * HOUR)
    found = ask()
    offer = found["experiments"]["offer"]
    assert sum(offer["units"].values()) == 900 and [one["arm"] for one in offer["stopped"]] == ["banner"]
    assert offer["table"]["from_ms"] > 0 and offer["table"]["bins"][0][1] == 0
    schema = {"$ref": "#/components/schemas/ExperimentsState", "components": document(shop.engine)["components"]}
    for one in (never, found):
        Draft202012Validator(schema).validate(one)
    text = shop.engine.metrics.text().decode()
    assert 'lotse_experiment_stopped{arm="banner",experiment="offer"} 1.0' in text
    page = (ROOT / "docs" / "operations.md").read_text()
    for name in set(re.findall(r"^(lotse_experiment_\w+)", text, re.MULTILINE)):
        assert f"| `{name}" in page


def test_a_file_that_cannot_be_used_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shop, path = Shop(tmp_path), tmp_path / "learned" / "learned.json"
    shop.sessions(NOW, 900, {"banner": 0.3})
    shop.look(NOW + 3 * HOUR)
    whole, standing = path.read_bytes(), shop.engine.experiments.standings["offer"]
    assert standing.from_ms(NOW + 4 * HOUR) > 0
    good = msgspec.json.decode(whole, type=Published)
    (*_, table) = good.experiments["offer"].tables
    for broken in (
        b"", b"{", b'{"format": 9}', b'{"experiments": {"offer": 7}}',
        whole.replace(json.dumps(table.bins[0][0]).encode(), b"7.5"),
    ):  # fmt: skip
        path.write_bytes(broken)
        assert shop.follow().engine.experiments.standings["offer"] == standing, broken
    assert caplog.text.count("they go on as they were") == 5
    path.unlink()
    assert shop.follow().engine.experiments.standings["offer"].from_ms(NOW + 9 * HOUR) == 0
    # a service that starts with a broken file begins with the shares
    path.write_bytes(b"{")
    with caplog.at_level(logging.ERROR):
        assert shop.restarted().engine.experiments.standings["offer"].from_ms(NOW + 9 * HOUR) == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"phase": 2},
        {"arms": ["control", "chat", "banner"]},
        {"allocation": {"name": "fixed"}},
        {"allocation": {"name": "contextual", "edges": [0.5]}},
    ],
)
def test_a_table_of_another_definition_is_not_used(tmp_path: Path, changed: dict[str, Any]) -> None:
    shop = Shop(tmp_path)
    shop.sessions(NOW, 600, {"banner": 0.3})
    shop.look(NOW + 3 * HOUR)
    assert shop.engine.experiments.standings["offer"].from_ms(NOW + 4 * HOUR) > 0
    shop.define(**changed)
    standing = shop.follow().engine.experiments.standings["offer"]
    assert standing.from_ms(NOW + 4 * HOUR) == 0 and standing.table(NOW + 4 * HOUR).of() == pytest.approx([1 / 3] * 3)


def test_a_learner_that_finds_a_broken_database_counts_anew(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.sessions(NOW, 300, {"banner": 0.3})
    before = shop.learned(NOW + 3 * HOUR)
    (tmp_path / "learned" / "counted.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 5_000)
    with pytest.raises(sqlite3.DatabaseError) as broken:
        shop.new_learner()
    assert put_aside(tmp_path / "learned", broken.value)
    assert not put_aside(tmp_path / "learned", sqlite3.OperationalError("database or disk is full"))
    shop.learner = shop.new_learner()
    assert shop.learned(NOW + 3 * HOUR).units == before.units


def test_a_score_that_is_not_noted_cannot_be_learned_by(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="allocation.score: 'wishlist' is not noted with an exposure"):
        Shop(tmp_path, allocation={"name": "contextual", "score": "wishlist"})
