"""GET /v1/insight/journeys: the sessions that a service handed on give what the same events give as a history."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
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
from serving.insight import PATH
from serving.keys import KeyFile
from simulation.crowd import _wire
from simulation.shop import simulate
from tests.serving.in_process import client, engine_of, post, start
from tests.workspace import Service, lotse, wait_until, workspace

FUNNELS = ("item > cart add > purchase", "^item >> cart add")
DAY_MS = 86_400_000


class Site:
    """A service in this process, and the loop that it lives in."""

    def __init__(self, app: App, runner: asyncio.Runner) -> None:
        self.app, self.runner = app, runner
        self.engine = engine_of(app)
        self.closed = Path(self.engine.settings.store.closed)

    def ask(self, query: str = "", **headers: str) -> httpx.Response:
        async def asked() -> httpx.Response:
            async with client(self.app) as there:
                return await there.get(f"{PATH}{query}", headers=headers, timeout=60)

        return self.runner.run(asked())


@pytest.fixture(scope="module")
def shop() -> pd.DataFrame:
    """Events of a simulated shop, whose visitors allow visits to be linked."""
    events = simulate(events=5_000, seed=5).events
    return events.assign(consent=np.uint8(CONSENT_MEASURE | CONSENT_LINK), session=0, id=0)


@pytest.fixture(scope="module")
def site(shop: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A service that has met those visitors, and has handed all of their sessions on."""
    folder = tmp_path_factory.mktemp("insight")
    with asyncio.Runner() as runner:
        app = start(folder, f"keys.folder={folder}/keys", "session.max_age_hours=1000000", "insight.cache_seconds=600")
        site = Site(app, runner)

        async def visited() -> None:
            rows = shop.sort_values("time", kind="stable")
            texts = {"visitor": str, "time": int}
            sent = [
                _wire(row, lambda value: f"{value:x}" if value else "")
                | {name: text(getattr(row, name)) for name, text in texts.items()}
                for row in rows.itertuples(index=False)
            ]
            for begin in range(0, len(sent), 500):
                now = int(sent[min(begin + 500, len(sent)) - 1]["time"])
                await post(site.engine, [sent[begin : begin + 500]], now)
                await site.engine.upkeep.sweep(now)
            await site.engine.upkeep.sweep(now + DAY_MS)
            await site.engine.upkeep.hand_over(now + 2 * DAY_MS)

        runner.run(visited())
        yield site
        runner.run(app.journeys.close())


def rounded(value: Any) -> Any:
    """Sums of floats depend on the order of the sessions in their last bits."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("least", [1, 50])
def test_live_is_history(site: Site, shop: pd.DataFrame, least: int) -> None:
    asked = Asked(funnels=tuple(map(parsed, FUNNELS)), least_visitors=least)
    live, history = of_closed(site.closed), of_history([shop], keep_open=True)
    assert len(live) == len(history) > 500
    assert rounded(journeys(live, usual(live, asked))) == rounded(journeys(history, usual(history, asked)))
    for name in FIELDS:
        assert sorted(live[name].tolist()) == sorted(history[name].tolist()), name


def test_the_answer_is_the_report(site: Site) -> None:
    whole = of_closed(site.closed)
    since, until = (int(moment) for moment in np.quantile(whole["started_at"], (0.2, 0.8)))
    sessions = of_closed(site.closed, since, until)
    assert len(sessions) == ((whole["started_at"] >= since) & (whole["started_at"] < until)).sum() > 200
    asked = usual(sessions, Asked(funnels=tuple(map(parsed, FUNNELS)), begin=("item",), depth=3))
    query = f"?begin=item&depth=3&funnel=item > cart add > purchase&funnel=%5Eitem >> cart add&since_ms={since}"
    answer = site.ask(f"{query}&until_ms={until}")
    assert answer.status_code == 200, answer.text
    assert answer.json() == json.loads(json.dumps(journeys(sessions, asked)))
    assert answer.json()["least_visitors"] == 50
    # what was answered a moment ago is not counted again; what has changed is read again
    hidden = [file.rename(file.with_suffix(".away")) for file in site.closed.glob("day=*/*.parquet")]
    try:
        assert site.ask(f"{query}&until_ms={until}").content == answer.content
        assert site.ask("?depth=2").json()["sessions"] is None
    finally:
        for file in hidden:
            file.rename(file.with_suffix(".parquet"))
    assert site.ask("?depth=3").json()["sessions"] == len(whole)


def test_the_command_reports_what_was_handed_on(site: Site) -> None:
    done = lotse(site.closed, "report", "--closed", ".", "--json", "--depth", "2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == site.ask("?depth=2&goal=purchase").json()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?begin=nowhere", "unknown step 'nowhere'"),
        ("?funnel=item > item >> cart", "unknown step"),
        ("?funnel=item >> item", "follows itself"),
        ("?depth=99", "expected a number from 1 to 12"),
        ("?steps=item", "unknown query parameter 'steps'"),
        (f"?{'&'.join(['without=item'] * 11)}", "at most 10 steps"),
    ],
)
def test_what_cannot_be_asked_is_told(site: Site, query: str, said: str) -> None:
    answer = site.ask(query)
    assert (answer.status_code, said in answer.text) == (422, True), answer.text


def test_a_count_that_breaks_off_is_told_and_the_next_one_is_right(site: Site) -> None:
    counter = site.app.journeys._counter
    assert site.ask("?depth=4").status_code == 200 and counter._process is not None
    os.kill(counter._process.pid, signal.SIGKILL)
    site.runner.run(counter._process.wait())
    answer = site.ask("?depth=5")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    again = site.ask("?depth=5").json()
    assert max(move["place"] for move in again["forward"]["moves"]) <= 5


def test_files_of_a_release_without_paths_are_left_out_and_counted(site: Site, tmp_path: Path) -> None:
    old = next(site.closed.glob("day=*/*.parquet"))
    table = pq.ParquetFile(old).read()
    target = tmp_path / old.parent.name / old.name
    target.parent.mkdir()
    pq.write_table(table.drop_columns(["path_0"]), target)
    found = of_closed(tmp_path)
    assert (len(found), found.pathless) == (0, len(table))


def test_it_takes_a_secret_key(site: Site) -> None:
    keys = KeyFile(Path(site.engine.settings.keys.folder))
    public, secret = keys.create("public", "shop")[1], keys.create("secret", "server")[1]
    assert site.app.gate is not None and site.app.gate.keys.follow()
    assert site.ask("?depth=3").status_code == 401
    assert site.ask("?depth=3", authorization=f"Bearer {public}").status_code == 403
    assert site.ask("?depth=3", authorization=f"Bearer {secret}").status_code == 200


def test_a_running_service_has_a_process_beside_it_count(tmp_path: Path) -> None:
    running = Service(workspace(tmp_path / "work"), "models.uri=").start()
    try:
        answer = running.http.get(PATH)
        assert (answer.status_code, answer.json()["sessions"]) == (200, None), answer.text
        (counting,) = (
            pid for pid in running.processes() if b"features.journeys" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
    finally:
        running.stop()
    wait_until(lambda: not Path(f"/proc/{counting}").exists())
