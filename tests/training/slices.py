"""Rows of sessions made up for tests of what is measured, drawn and told: with the true probability of every row."""

from __future__ import annotations

import numpy as np

from training.config import TrainingSettings
from training.datasets import Slice
from training.findings import Findings, find
from training.heads import heads_of
from training.model import HeadModel, fit_head

NAMES = ("device_kind", "entry_channel", "visits_before", "events", "idle_seconds", "page_views")
TIMEOUT_MS = 1_800_000
SMALL = TrainingSettings.model_validate(
    {
        "lightgbm": {"num_boost_round": 15, "min_data_in_leaf": 20, "lambda_l2": 1.0, "num_threads": 1},
        "linear": {"inverse_penalties": [0.01], "lightgbm": {}},
        "split": {"inner_folds": 2},
        "evaluation": {"resamples": 20, "segment_rows": 100},
    }
)


def slice_of(**columns: object) -> Slice:
    """A slice of exactly these rows; by default each is a session and a visitor of its own, right after an event."""
    size = len(np.asarray(columns["answer"]))
    filled = {
        "matrix": np.zeros((size, 1), np.float32),
        "prefix": np.ones(size, np.int32),
        "idle_ms": np.zeros(size, np.int64),
        "session": np.arange(size),
        "started": np.zeros(size, np.int64),
        "now": np.zeros(size, np.int64),
    }
    filled |= {name: np.asarray(values) for name, values in columns.items() if name != "names"}
    filled.setdefault("visitor", filled["session"])
    filled.setdefault("until", filled["now"] + TIMEOUT_MS)
    filled.setdefault("known_at", filled["until"])
    filled["answer"] = filled["answer"].astype(np.float32)
    filled["matrix"] = filled["matrix"].astype(np.float32)
    return Slice(name="test", names=tuple(columns.get("names", ("events",))), **filled)  # type: ignore[arg-type]


def made_up(sessions: int, seed: int = 0, kind: str = "conversion") -> tuple[Slice, np.ndarray]:
    """Sessions of about three events, each with a row of silence, and the true probability (or mean) of each row.

    kind: "conversion", one answer a session; "exit", one an event; "value", an amount for those who convert.
    """
    random = np.random.default_rng(seed)
    lengths = np.minimum(random.geometric(0.3, sessions), 12)
    session = np.repeat(np.arange(sessions), 2 * lengths)
    place = np.arange(len(session)) - np.repeat(np.cumsum(2 * lengths) - 2 * lengths, 2 * lengths)
    prefix, idle_ms = (place // 2 + 1).astype(np.int32), np.where(place % 2, 10_000, 0)
    started = np.repeat(random.integers(0, 2_000_000_000, sessions), 2 * lengths)
    now = started + (prefix - 1) * 15_000 + idle_ms
    until = np.append(now[1:], 0)
    last = np.append(session[1:] != session[:-1], True)
    until[last] = now[last] + TIMEOUT_MS
    visitor = random.integers(0, max(sessions // 2, 1), sessions)
    device, channel = random.integers(1, 4, sessions), random.integers(1, 8, sessions)
    before = random.choice([0.0, 1.0, 2.0, np.nan], sessions)
    chance = 1 / (1 + np.exp(-(-2.2 + 0.9 * (device == 1) + 0.5 * random.normal(size=sessions))))
    if kind == "exit":
        truth = np.clip(chance[session] + 0.05 * (idle_ms > 0) + 0.02 * prefix, 0, 1)
        answer = (np.repeat(random.random(int(lengths.sum())), 2) < truth).astype(float)
    else:
        truth = chance[session]
        answer = (random.random(sessions) < chance).astype(float)[session]
    if kind == "value":
        truth, answer = truth * 40.0, answer * random.gamma(2.0, 20.0, sessions)[session]
    pages = np.maximum(prefix - random.integers(0, 2, len(prefix)), 1)
    matrix = np.column_stack([device[session], channel[session], before[session], prefix, idle_ms / 1000, pages])
    part = slice_of(
        names=NAMES, matrix=matrix, answer=answer, prefix=prefix, idle_ms=idle_ms, session=session,
        visitor=visitor[session], started=started, now=now, until=until,
    )  # fmt: skip
    return part, truth


def fitted(kind: str, sessions: int = 1500) -> tuple[HeadModel, Slice, Findings]:
    """A small model of made-up sessions, what it learned from, and what is found of it on others."""
    head = heads_of(SMALL)[kind]
    past, _ = made_up(sessions, seed=1, kind=kind)
    test, truth = made_up(sessions, seed=2, kind=kind)
    model = fit_head(past, head, SMALL)
    scores = {
        "lotse": model.score(test.matrix),
        "logistic": np.clip(truth * 1.3, 0, None if kind == "value" else 1),
        "base_rate": np.full(len(truth), past.answer.mean()),
        "my forest": truth,
    }
    return model, past, find(head, model, test, scores, SMALL.evaluation)
