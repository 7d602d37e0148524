"""Experiments that exclude one another, and a holdout that is in none: parts of one namespace."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from features.settings import SettingsError
from tests.serving.in_process import client, start

GOALS = [{"name": "purchase", "column": "purchases", "primary": True}]
SPANS = {"banner": [0, 0.4], "chat": [0.4, 0.8]}


def content(**units: str) -> dict[str, Any]:
    """Two experiments with four tenths of the visitors each; two are left out of both."""
    return {
        "features": {
            key: {
                "defaultValue": "none",
                "rules": [{"key": key, "variations": ["none", "shown"], "namespace": ["page", *span]}],
            }
            for key, span in SPANS.items()
        },
        "experiments": {
            key: {"arms": ["control", "shown"], "goals": GOALS, "unit": units.get(key, "session")} for key in SPANS
        },
    }


def test_nobody_is_in_two_and_some_are_in_none(tmp_path: Path) -> None:
    path = tmp_path / "experiments.json"
    path.write_text(json.dumps(content()))
    app = start(tmp_path, f"experiments.file={path}")

    async def run() -> None:
        found = Counter[tuple[str, ...]]()
        async with client(app) as http:
            for number in range(600):
                event = {"visitor": f"v{number}", "name": "page_view"}
                answer = await http.post("/v1/events?flags=all", json=event)
                flags = answer.json()["flags"]
                found[tuple(key for key, flag in flags.items() if "variant" in flag)] += 1
        assert set(found) == {("banner",), ("chat",), ()}
        assert 180 < found["banner",] < 300 and 180 < found["chat",] < 300 and 75 < found[()] < 165

    asyncio.run(run())


def test_units_that_differ_would_exclude_nobody(tmp_path: Path) -> None:
    path = tmp_path / "experiments.json"
    path.write_text(json.dumps(content(chat="visitor")))
    with pytest.raises(SettingsError, match="give both the same unit"):
        start(tmp_path, f"experiments.file={path}")
