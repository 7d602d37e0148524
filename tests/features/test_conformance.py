"""What every feature must be: finite on 0, 1 and 1,000 events, documented, and unmoved by events after its prefix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from features.batch import Rows, build_rows
from features.compiler import compile_fold
from features.definitions import CATALOGUE
from features.events import CONSENT_MEASURE, CONSENTS, EVENT_NAMES, Event
from features.tables import Table, Tables
from tests.sessions import START, table

FOLD = compile_fold()
ALL_CONSENTS = sum(CONSENTS.values())
TABLES = tuple(CATALOGUE.tables)
LEARNED = Tables({name: Table(np.array([7]), np.array([0.25]), 0.1) for name in TABLES})


def random_events(size: int, *, consent: int = ALL_CONSENTS, seed: int = 0) -> list[Event]:
    random = np.random.default_rng(seed)
    gaps = random.lognormal(9, 1.5, size).astype(int).clip(0, 1_200_000)
    times = START + np.cumsum(gaps)
    return [
        Event(
            visitor=1,
            time=int(times[i]),
            name=int(random.integers(0, len(EVENT_NAMES))),
            page=int(random.integers(-(2**62), 2**62)),
            item=int(random.integers(-(2**62), 2**62)),
            category=int(random.integers(1, 40)),
            campaign=3,
            price=float(random.lognormal(3, 2)),
            quantity=float(random.integers(0, 5)),
            channel=int(random.integers(0, 8)),
            consent=consent,
        )
        for i in range(size)
    ]


@pytest.mark.parametrize("size", [0, 1, 1_000])
@pytest.mark.parametrize("idle_ms", [0, 1_700_000])
def test_finite(size: int, idle_ms: int) -> None:
    record, out = FOLD.new_record(), FOLD.new_row()
    last = START
    for event in random_events(size):
        FOLD.advance(record, out, 1_800_000, LEARNED.pack(TABLES), *event)
        last = event.time
    FOLD.read(record, last + idle_ms, out, LEARNED.pack(TABLES))
    for name, value in zip(FOLD.names, out, strict=True):
        # an empty record knows of no consent yet, and has no product to look up
        missing = not size and (CATALOGUE.features[name].consent or CATALOGUE.features[name].table)
        assert np.isfinite(value) or missing, f"{name} is {value}"


def test_consent_masks_the_same_features_live_and_in_batch() -> None:
    masked = {name for name, feature in CATALOGUE.features.items() if feature.consent}
    assert masked >= {"visits_before", "days_since_visit", "purchases_before"}
    for consent, missing in ((CONSENT_MEASURE, masked), (ALL_CONSENTS, set())):
        events = random_events(5, consent=consent)
        rows = build_rows(table(events), FOLD, idle_seconds=(), tables=LEARNED)
        record, out = FOLD.new_record(), FOLD.new_row()
        for event in events:
            FOLD.advance(record, out, 1_800_000, LEARNED.pack(TABLES), *event)
        for vector in (rows.matrix[-1], out):
            assert {n for n, value in zip(FOLD.names, vector, strict=True) if np.isnan(value)} == missing


@pytest.mark.parametrize("name", list(CATALOGUE.features))
def test_documented(name: str) -> None:
    feature = CATALOGUE.features[name]
    assert feature.doc.endswith("."), f"{name} ({feature.origin}): the docstring is one sentence with a full stop"
    assert feature.group


Build = Callable[[pd.DataFrame], tuple[Rows, pd.DataFrame]]


def moved_by_the_future(build: Build, events: pd.DataFrame) -> set[str]:
    """Features whose value at a moment differs between the log up to that moment and the whole log."""
    whole, values = build(events)
    moved: set[str] = set()
    for cut in np.quantile(events["time"], [0.2, 0.5, 0.8]):
        part, part_values = build(events[events["time"] <= cut])
        keys = ["visitor", "time", "prefix", "idle"]
        left, right = _keyed(part, part_values, keys), _keyed(whole, values, keys)
        both = left.join(right.add_suffix("_later"), how="inner")
        assert len(both) == len(left) > 0
        for name in values.columns:
            same = (both[name] == both[f"{name}_later"]) | (both[name].isna() & both[f"{name}_later"].isna())
            if not same.all():
                moved.add(name)
    return moved


def _keyed(rows: Rows, values: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    right_after = rows.idle_ms == 0  # whether an idle row exists is known only later, its value is not moved
    frame = values[right_after].assign(
        visitor=rows.events["visitor"].to_numpy()[rows.event[right_after]],
        time=rows.now[right_after],
        prefix=rows.prefix[right_after],
        idle=rows.idle_ms[right_after],
    )
    return frame.set_index(keys)


def honest(events: pd.DataFrame) -> tuple[Rows, pd.DataFrame]:
    rows = build_rows(events, FOLD)
    return rows, rows.frame()


def leaking(events: pd.DataFrame) -> tuple[Rows, pd.DataFrame]:
    rows, values = honest(events)
    length = rows.events.groupby("session_index")["time"].transform("size").to_numpy()
    return rows, values.assign(planted_session_length=length[rows.event])


def many_visitors() -> pd.DataFrame:
    events = [
        event._replace(visitor=visitor)
        for visitor in range(1, 30)
        for event in random_events(40, seed=visitor)
    ]  # fmt: skip
    return table(events).drop_duplicates(["visitor", "time"])


def test_no_feature_is_moved_by_the_future() -> None:
    assert moved_by_the_future(honest, many_visitors()) == set()


def test_a_planted_leak_is_caught() -> None:
    assert moved_by_the_future(leaking, many_visitors()) == {"planted_session_length"}
