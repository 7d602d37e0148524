"""GET /v1/insight/journeys: the sessions that a service handed on give what the same events give as a history."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from features.events import CONSENT_LINK, CONSENT_MEASURE
from features.journeys.funnels import parsed
from features.journeys.report import Asked, journeys, usual
from features.journeys.sessions import FIELDS, of_closed, of_history
from serving.app import App
from serving.keys import KeyFile
from simulation.crowd import _wire
from simulation.shop import simulate
from tests.serving.in_process import engine_of, post, start

FUNNELS = ("item > cart add > purchase", "^item >> cart add")
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def shop() -> pd.DataFrame:
    """Events of a simulated shop, whose visitors allow visits to be linked."""
    events = simulate(events=5_000, seed=5).events
    return events.assign(consent=np.uint8(CONSENT_MEASURE | CONSENT_LINK), session=0, id=0)


@pytest.fixture(scope="module")
def app(shop: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> App:
    """A service that has met those visitors, and has handed all of their sessions on."""
    folder = tmp_path_factory.mktemp("insight")
    app = start(folder, f"keys.folder={folder}/keys", "session.max_age_hours=1000000", "insight.cache_seconds=60")
    engine = engine_of(app)

    async def visited() -> None:
        rows = shop.sort_values("time", kind="stable")
        sent = [
            {**_wire(row, lambda value: f"{value:x}" if value else ""), "visitor": str(row.visitor), "time": row.time}
            for row in rows.itertuples(index=False)
        ]
        for begin in range(0, len(sent), 500):
            now = int(sent[min(begin + 500, len(sent)) - 1]["time"])
            await post(engine, [sent[begin : begin + 500]], now)
            await engine.sweep(now)
        await engine.sweep(now + DAY_MS)
        await engine.hand_over(now + 2 * DAY_MS)

    asyncio.run(visited())
    return app


def ask(app: App, query: str = "", headers: dict[str, str] | None = None) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(f"/v1/insight/journeys{query}", headers=headers or {}, timeout=60)

    return asyncio.run(asked())


def rounded(value: Any) -> Any:
    """Sums of floats depend on the order of the sessions in their last bits."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("least", [1, 50])
def test_live_is_history(app: App, shop: pd.DataFrame, least: int) -> None:
    folder = engine_of(app).settings.store.closed
    asked = Asked(funnels=tuple(map(parsed, FUNNELS)), least_visitors=least)
    live, history = of_closed(folder), of_history([shop], keep_open=True)
    assert len(live) == len(history) > 500
    assert rounded(journeys(live, usual(live, asked))) == rounded(journeys(history, usual(history, asked)))
    for name in FIELDS:
        assert sorted(live[name].tolist()) == sorted(history[name].tolist()), name


def test_the_answer_is_the_report(app: App) -> None:
    folder = engine_of(app).settings.store.closed
    whole = of_closed(folder)
    since, until = (int(moment) for moment in np.quantile(whole["started_at"], (0.2, 0.8)))
    sessions = of_closed(folder, since, until)
    assert len(sessions) == ((whole["started_at"] >= since) & (whole["started_at"] < until)).sum() > 200
    asked = usual(sessions, Asked(funnels=tuple(map(parsed, FUNNELS)), begin=("item",), depth=3))
    query = f"?begin=item&depth=3&funnel=item > cart add > purchase&funnel=%5Eitem >> cart add&since_ms={since}"
    query += f"&until_ms={until}"
    answer = ask(app, query)
    assert answer.status_code == 200, answer.text
    assert answer.json() == json.loads(json.dumps(journeys(sessions, asked)))
    assert answer.json()["least_visitors"] == 50
    # what was answered a moment ago is not counted again
    files = list(Path(folder).glob("day=*/*.parquet"))
    hidden = [file.rename(file.with_suffix(".away")) for file in files]
    try:
        assert ask(app, query).content == answer.content
        assert ask(app, "?depth=2").json()["sessions"] is None
    finally:
        for file in hidden:
            file.rename(file.with_suffix(".parquet"))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?begin=nowhere", "unknown step 'nowhere'"),
        ("?funnel=item > item >> cart", "unknown step"),
        ("?funnel=item >> item", "follows itself"),
        ("?depth=99", "expected a number from 1 to 12"),
        ("?steps=item", "unknown query parameter 'steps'"),
    ],
)
def test_what_cannot_be_asked_is_told(app: App, query: str, said: str) -> None:
    answer = ask(app, query)
    assert (answer.status_code, said in answer.text) == (422, True), answer.text


def test_files_of_a_release_without_paths_are_left_out_and_counted(app: App, tmp_path: Path) -> None:
    folder = engine_of(app).settings.store.closed
    (old, *_), whole = sorted(Path(folder).glob("day=*/*.parquet")), of_closed(folder)
    table = pq.ParquetFile(old).read()
    target = tmp_path / old.parent.name / old.name
    target.parent.mkdir()
    pq.write_table(table.drop_columns(["path_0"]), target)
    found = of_closed(tmp_path)
    assert (len(found), found.pathless) == (0, len(table))
    assert whole.pathless == 0


def test_it_takes_a_secret_key(app: App) -> None:
    keys = KeyFile(Path(engine_of(app).settings.keys.folder))
    public, secret = (keys.create(kind, kind)[1] for kind in ("public", "secret"))
    assert app.gate is not None
    assert app.gate.keys.follow()
    assert ask(app, "?depth=1").status_code == 401
    assert ask(app, "?depth=1", {"authorization": f"Bearer {public}"}).status_code == 403
    assert ask(app, "?depth=1", {"authorization": f"Bearer {secret}"}).status_code == 200
