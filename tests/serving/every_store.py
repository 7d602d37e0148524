"""Every store in turn: with nothing in it, for a fixture whose parameters are `EVERY`."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Final

import pytest

from serving.settings import StoreSettings

EVERY: Final = [
    "memory", "embedded", "embedded on disk", "embedded encrypted", "embedded in memory", "embedded in memory on disk",
    "redis", "redis_nodes", "cassandra",
]  # fmt: skip


def settings_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> StoreSettings:
    """A store of a kind with nothing in it."""
    if kind == "memory":
        return StoreSettings(url="memory:")
    if kind.startswith("embedded"):
        durability = "disk" if kind.endswith("on disk") else "process"
        memory = folder / "memory" if "in memory" in kind else None
        if memory:
            memory.mkdir(exist_ok=True)
        if kind == "embedded encrypted":
            request.getfixturevalue("monkeypatch").setenv("LOTSE_STORE_KEY", base64.b64encode(b"k" * 32).decode())
        return StoreSettings(
            url=f"embedded:{folder / 'live'}", size_gib=0.1, durability=durability, memory_folder=str(memory or "")
        )
    return StoreSettings(url=request.getfixturevalue(kind), prefix=f"t{time.time_ns()}", timeout_seconds=5)
