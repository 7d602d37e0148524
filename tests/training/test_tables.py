"""Learned tables: the right numbers, counted from the past alone, carried in the model."""

from __future__ import annotations

from math import log

import numpy as np
import pandas as pd
import pytest

from features.batch import build_rows
from features.compiler import compile_fold
from features.definitions import CATALOGUE
from features.events import ADD_TO_CART, PAGE_VIEW, PURCHASE, VIEW_ITEM, Event
from features.tables import Table, Tables, Windows
from simulation.shop import simulate
from tests.sessions import START, table
from training.config import TableSettings, TrainingSettings
from training.labels import Outcomes
from training.pipeline import learn
from training.tables import count_keys, fit_tables, key_rows, window_starts

TIMEOUT_SECONDS = 1800.0
HOUR_MS = 3_600_000
LEARNED = [name for name, feature in CATALOGUE.features.items() if feature.table]


def fitted(events: pd.DataFrame, before_ms: int, **settings: float) -> Tables:
    rows = key_rows(events, CATALOGUE, TIMEOUT_SECONDS)
    outcome = Outcomes(rows.events, TrainingSettings().labels, round(TIMEOUT_SECONDS * 1000))
    return fit_tables(count_keys(rows, CATALOGUE, outcome, TIMEOUT_SECONDS), before_ms, TableSettings(**settings))  # type: ignore[arg-type]


def sessions(*steps: list[tuple[int, int]]) -> pd.DataFrame:
    """One visitor each, an hour apart; steps are (event name, item), a second apart."""
    return table(
        [
            Event(visitor=1 + place, time=START + place * HOUR_MS + second * 1000, name=name, item=item)
            for place, session in enumerate(steps)
            for second, (name, item) in enumerate(session)
        ]
    )


SHOES, HATS, BAGS = 11, 22, 33
LOG = sessions(
    [(VIEW_ITEM, SHOES), (PURCHASE, SHOES)],
    [(VIEW_ITEM, SHOES), (VIEW_ITEM, SHOES)],
    [(VIEW_ITEM, HATS), (ADD_TO_CART, HATS), (PURCHASE, HATS), (VIEW_ITEM, BAGS)],
    [(PAGE_VIEW, 0)],
)
FOR_EVER = START + 100 * HOUR_MS


def test_popularity_is_the_share_of_sessions_by_laplaces_rule() -> None:
    found = fitted(LOG, FOR_EVER, min_sessions=1)
    assert found.get("item_popularity", SHOES) == pytest.approx(log((2 + 1) / (4 + 2)))
    assert found.get("item_popularity", BAGS) == pytest.approx(log((1 + 1) / (4 + 2)))
    assert found.get("item_popularity", 99) == pytest.approx(log(1 / (4 + 2)))
    assert np.isnan(found.get("item_popularity", 0))


def test_a_rate_counts_what_came_after_the_product_was_first_shown() -> None:
    """Shoes: one of two sessions bought after them. Bags were shown after the purchase: they led to nothing."""
    found = fitted(LOG, FOR_EVER, min_sessions=1, prior_sessions=3)
    base = 2 / 3  # of (shoes, yes), (shoes, no), (hats, yes)
    assert found.get("item_conversion_rate", SHOES) == pytest.approx((1 + 3 * base) / (2 + 3))
    assert found.get("item_conversion_rate", HATS) == pytest.approx((1 + 3 * base) / (1 + 3))
    assert found.get("item_conversion_rate", BAGS) == pytest.approx(base)


def test_log_odds_compare_a_step_in_sessions_that_buy_and_others() -> None:
    """Steps before a purchase is made; the first event of a session comes after "nothing", code 0."""
    found = fitted(LOG, FOR_EVER)
    landed, again, added, page = (
        before * 30 + after + 1
        for before, after in ((0, VIEW_ITEM), (VIEW_ITEM, VIEW_ITEM), (VIEW_ITEM, ADD_TO_CART), (0, PAGE_VIEW))
    )
    # yes: landed, landed, added; no: landed, again, page
    for key, yes, no in ((landed, 2, 1), (again, 0, 1), (added, 1, 0), (page, 0, 1)):
        expected = log((yes + 1) / (3 + 4)) - log((no + 1) / (3 + 4))
        assert found.get("event_transition", key) == pytest.approx(expected)
    assert found.get("event_transition", 5 * 30 + 5 + 1) == 0.0  # never seen: no sign of either


def test_rare_keys_count_as_never_seen() -> None:
    found = fitted(LOG, FOR_EVER, min_sessions=2)
    assert found.tables["item_popularity"].keys.tolist() == [SHOES]


def test_before_anything_is_over_nothing_is_known() -> None:
    assert fitted(LOG, START + 1000).tables == {}


def test_an_outcome_counts_when_its_session_is_over() -> None:
    """The first session ends a second after its start; it may go on for half an hour."""
    over = START + 1000 + round(TIMEOUT_SECONDS * 1000)
    assert fitted(LOG, over - 1).tables == {}
    assert fitted(LOG, over, min_sessions=1).get("item_popularity", SHOES) == pytest.approx(log(2 / 3))


def test_a_session_reads_the_tables_that_were_known_when_it_began() -> None:
    events = table(
        [Event(visitor=1, time=START + minutes * 60_000, name=VIEW_ITEM, item=7) for minutes in (0, 10, 20, 100, 110)]
    )
    known = [Tables({"item_popularity": Table(np.array([7]), np.array([value]), -9.0)}) for value in (-1.0, -2.0)]
    windows = Windows(np.array([START + 15 * 60_000, START + 105 * 60_000]), known)
    fold = compile_fold(CATALOGUE.select(["item_popularity"]))
    found = build_rows(events, fold, idle_seconds=(), tables=windows).matrix[:, fold.names.index("item_popularity")]
    # the first session began before anything was known, and keeps to it; the second before the second tables
    np.testing.assert_array_equal(found, np.float32([np.nan, np.nan, np.nan, -1.0, -1.0]))


@pytest.fixture(scope="module")
def shop() -> pd.DataFrame:
    return simulate(events=60_000, seed=5).events


def learned_rows(events: pd.DataFrame, windows: Windows) -> pd.DataFrame:
    """The learned features of every row, by visitor and time."""
    rows = build_rows(events, compile_fold(CATALOGUE.select(LEARNED)), idle_seconds=(), tables=windows)
    session = rows.events["session_index"].to_numpy()
    began = pd.Series(rows.events["time"].to_numpy()).groupby(session).transform("min").to_numpy()
    return rows.frame()[LEARNED].assign(began=began[rows.event])


def with_another_future(events: pd.DataFrame, border: int) -> pd.DataFrame:
    """The same log up to the border; after it nobody buys who did, everybody else does, and products change places."""
    future = events["time"].to_numpy() > border
    name, item = events["name"].to_numpy().copy(), events["item"].to_numpy().copy()
    bought = name == PURCHASE
    name[future & ~bought & (name == VIEW_ITEM)] = PURCHASE
    name[future & bought] = PAGE_VIEW
    item[future] = np.roll(item[future], 1)
    return events.assign(name=name, item=item)


def test_no_row_knows_the_future(shop: pd.DataFrame) -> None:
    """Rows of sessions that began before a border are the same whatever happens after it."""
    settings = TrainingSettings()
    windows = learn(shop, settings)
    assert len(windows.tables) == settings.tables.windows
    borders = windows.starts[2:-1:2]
    for border in borders:
        other = with_another_future(shop, int(border))
        changed = learn(other, settings)
        assert changed.starts.tolist() == windows.starts.tolist()
        before, after = learned_rows(shop, windows), learned_rows(other, changed)
        known = (before["began"] <= border).to_numpy()
        # of a session that is open at the border only the rows before it: the key itself is of the event
        time = build_rows(shop, compile_fold(CATALOGUE.select(["events"])), idle_seconds=()).now
        known = known & (time <= border)
        assert known.sum() > 1000
        pd.testing.assert_frame_equal(before[known], after[known])
        assert before[LEARNED].notna().any(axis=1)[known].sum() > 1000


def test_tables_of_the_whole_log_would_be_caught(shop: pd.DataFrame) -> None:
    """The test above can fail: fitted on everything, the rows before a border move with what comes after it."""
    border = int(learn(shop, TrainingSettings()).starts[4])

    def leaking(events: pd.DataFrame) -> pd.DataFrame:
        everything = fitted(events, FOR_EVER * 2)
        rows = learned_rows(events, Windows(np.array([0]), [everything]))
        return rows[(rows["began"] <= border)]

    assert not leaking(shop).equals(leaking(with_another_future(shop, border)))


def test_the_last_tables_end_where_the_test_begins(shop: pd.DataFrame) -> None:
    settings = TrainingSettings()
    span = shop["time"].max() - shop["time"].min()
    assert learn(shop, settings).starts[-1] == int(shop["time"].min() + settings.split.test_from * span)


def test_windows_hold_about_as_many_sessions_each() -> None:
    starts = window_starts(np.arange(100), 80, 4)
    assert starts.tolist() == [20, 40, 60, 80]
    assert window_starts(np.array([90]), 80, 4).tolist() == [80]
