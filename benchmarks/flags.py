"""What a flag takes of processor time: in the answer to an event, at the first exposure, over OFREP; and of memory.

    python -m benchmarks.flags [--requests 500] [--runs 40] [--evaluations 1000000]

The ASGI application is called in this process, its store is in memory, no model is loaded. The candidates take turns; a
figure is the median of the runs, what a flag takes the median of its differences to the run without flags beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import logging
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from benchmarks.measure import report
from features.experiments import SCORES
from features.shop import load_shop
from serving.app import App
from serving.engine import Engine
from serving.experiments.attributes import Names
from serving.experiments.configuration import parse
from serving.experiments.flags import Evaluator, Subject
from serving.experiments.learned import Published, standings
from serving.settings import load_serving

ROOT: Final = Path(__file__).resolve().parents[1]
HEADERS: Final = [(b"host", b"shop.example"), (b"content-type", b"application/json"), (b"accept", b"*/*")]
EVENT: Final = b'{"visitor":"%s%d","name":"view_item","page":"/product/:id","item":"shoes-7","price":9.5}'
VISITORS: Final = 500
COUNTED: Final = ("purchases", "page_views")
NAMES: Final = Names(frozenset((*SCORES, *COUNTED)), frozenset(COUNTED))
SHOWN: Final = {"bounce": {"$gte": 0.0}, "events": {"$gte": 1}}
CONTENT: Final[dict[str, Any]] = {
    "features": {
        "plain": {"defaultValue": "none"},
        "rule": {"defaultValue": "none", "rules": [{"condition": {"bounce": {"$gt": 0.99}}, "force": "help"}]},
        "trial": {"defaultValue": "none", "rules": [{"key": "offer", "condition": SHOWN, "variations": ["a", "b"]}]},
        "second": {
            "defaultValue": "none",
            "rules": [
                {"condition": {"purchases": {"$gt": 0}}, "force": "thanks"},
                {"key": "other", "condition": SHOWN, "variations": ["a", "b"]},
            ],
        },
        **{
            f"f{number}": {
                "defaultValue": 0,
                "rules": [{"condition": {"exit": {"$gt": 0.9}, "page_views": {"$lt": number}}, "force": 1}],
            }
            for number in range(16)
        },
    },
    "experiments": {
        key: {"arms": ["a", "b"], "goals": [{"name": "purchase", "column": "purchases", "primary": True}]}
        for key in ("offer", "other")
    },
}


async def ask(app: App, path: str, query: bytes, bodies: Iterator[bytes], method: str, requests: int) -> float:
    """Microseconds a request, one after the other."""

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200, message

    here = ("127.0.0.1", 3000)
    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": HEADERS}
    scope |= {"client": here, "server": here}
    sent = [next(bodies) for _ in range(requests)]
    begin = time.thread_time()
    for body in sent:

        async def receive(body: bytes = body) -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        await app(dict(scope), receive, send)
    return (time.thread_time() - begin) / requests * 1e6


def _app(folder: Path) -> App:
    file = folder / "experiments.json"
    file.write_text(json.dumps(CONTENT))
    overrides = ["store.url=memory:", "models.uri=", f"models.cache={folder}/models", f"keys.folder={folder}"]
    overrides += [f"store.closed={folder}/closed", f"store.spool={folder}/spool", f"experiments.file={file}"]
    app = App()
    app.engine = Engine(load_serving(ROOT / "configs/serving.toml", overrides), load_shop(ROOT / "configs/shop.toml"))
    return app


async def costs(requests: int, runs: int) -> dict[str, tuple[float, float]]:
    """By what is asked: microseconds a request, and how many more than the same without flags."""
    with tempfile.TemporaryDirectory() as name:
        app = _app(Path(name))
        assert app.engine is not None
        known = itertools.cycle([EVENT % (b"known", number) for number in range(VISITORS)])
        new = (EVENT % (b"new", number) for number in itertools.count())
        await ask(app, "/v1/events", b"flags=all", known, "POST", VISITORS)  # now they have their arms
        view = await app.engine.looks.look_at("known0")
        assert view is not None
        token = app.engine.looks.token_of(view)
        body = itertools.repeat(json.dumps({"context": {"targetingKey": token}}).encode())
        session = f"/v1/sessions/{token}"
        bulk = "/ofrep/v1/evaluate/flags"
        candidates = {
            "event": ("/v1/events", b"", known, "POST", "event"),
            "event, a flag without rules": ("/v1/events", b"flags=plain", known, "POST", "event"),
            "event, a flag whose rule asks for a score": ("/v1/events", b"flags=rule", known, "POST", "event"),
            "event, a flag with the session's arm": ("/v1/events", b"flags=trial", known, "POST", "event"),
            "event, the same behind another rule": ("/v1/events", b"flags=second", known, "POST", "event"),
            "event, 20 flags": ("/v1/events", b"flags=all", known, "POST", "event"),
            "first event": ("/v1/events", b"", new, "POST", "first event"),
            "first event, exposed": ("/v1/events", b"flags=trial", new, "POST", "first event"),
            "a look at the session": (session, b"", itertools.repeat(b""), "GET", "a look at the session"),
            "OFREP, one flag": (f"{bulk}/rule", b"", body, "POST", "a look at the session"),
            "OFREP, 20 flags": (bulk, b"", body, "POST", "a look at the session"),
        }
        found: dict[str, list[float]] = {about: [] for about in candidates}
        for run in range(runs + 1):
            for about, (path, query, bodies, method, _) in candidates.items():
                gc.collect()
                took = await ask(app, path, query, bodies, method, requests)
                if run:
                    found[about].append(took)
        return {
            about: (median(found[about]), median(a - b for a, b in zip(found[about], found[base], strict=True)))
            for about, (*_, base) in candidates.items()
        }


def memory(evaluations: int) -> tuple[float, float]:
    """Microseconds an evaluation of a session with two flags, one of them exposed, and MB that so many leave behind."""
    configuration = parse(json.dumps(CONTENT).encode(), NAMES)
    evaluator = Evaluator(configuration, standings(configuration.trials, Published()), COUNTED)
    row, scores = np.array([0.0, 3.0], np.float32), {"bounce": 0.5, "conversion": 0.1, "exit": 0.3}

    def run(sessions: range) -> float:
        begin = time.thread_time()
        for visitor in sessions:
            evaluator.evaluate(Subject(visitor, visitor, 3, 0.0, 5.0, scores, row, 1, ()), ("trial", "rule"), 0)
        return time.thread_time() - begin

    run(range(10_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took = run(range(10_000, 10_000 + evaluations))
    return took / evaluations * 1e6, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--evaluations", type=int, default=1_000_000)
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    rows = [
        [about, f"{whole:.1f}", f"{more:+.1f}" if more else ""]
        for about, (whole, more) in asyncio.run(costs(options.requests, options.runs)).items()
    ]
    took, left = memory(options.evaluations)
    about = f"two flags, one exposed, evaluated alone; {options.evaluations:,} leave {left:.1f} MB behind"
    rows.append([about, f"{took:.1f}", ""])
    text = json.dumps(CONTENT).encode()
    begin = time.thread_time()
    for _ in range(20):
        parse(text, NAMES)
    rows.append(["a version checked and parsed, 20 flags", f"{(time.thread_time() - begin) / 20 * 1e6:.0f}", ""])
    report("What flags take, us of processor time", ["what", "in all", "more than without"], rows)


if __name__ == "__main__":
    main()
