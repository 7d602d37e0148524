"""Labels against a slow, obvious reading of the sessions; decided outcomes give no row."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings

from features.batch import build_rows
from features.events import PURCHASE, SCROLL, VIEW_ITEM, Event
from tests.sessions import START, histories, table
from training.config import LabelSettings
from training.heads import HEADS
from training.labels import outcomes

LABELS = LabelSettings()
TIMEOUT_MS = 1_800_000


@settings(max_examples=100, deadline=None)
@given(histories())
def test_outcomes_equal_the_obvious_ones(events: list[Event]) -> None:
    rows = build_rows(table(events), idle_seconds=())
    found = outcomes(rows.events, LABELS, TIMEOUT_MS)
    sessions = [own for _, own in rows.events.groupby("session_index")]
    at = 0
    for own in sessions:
        names = own["name"].tolist()
        clock = np.maximum.accumulate(own["time"].to_numpy())
        for place in range(len(own)):
            assert found.last[at] == (place == len(own) - 1)
            assert found.goal_later[at] == (PURCHASE in names[place + 1 :])
            assert found.goal_reached[at] == (PURCHASE in names[: place + 1])
            assert found.bounced[at] == may_bounce(own, len(own) - 1)
            assert found.bounce_open[at] == may_bounce(own, place)
            assert found.censored[at] == (clock[-1] + TIMEOUT_MS > rows.events["time"].max())
            at += 1
    assert at == len(found.last)


def may_bounce(own: pd.DataFrame, upto: int) -> bool:
    so_far = own.iloc[: upto + 1]
    span = so_far["time"].max() - so_far["time"].iloc[0]
    return bool(so_far["interactive"].sum() <= 1 and span < 10_000 and PURCHASE not in set(so_far["name"]))


def seen(*steps: tuple[float, int]) -> list[Event]:
    return [
        Event(visitor=1, time=START + round(second * 1000), name=name, interactive=int(name != SCROLL))
        for second, name in steps
    ]


def asked_and_answered(head: str, events: list[Event]) -> list[tuple[bool, bool]]:
    rows = build_rows(table(events), idle_seconds=())
    outcome = outcomes(rows.events, LABELS, TIMEOUT_MS)
    return list(zip(HEADS[head].asked(outcome).tolist(), HEADS[head].answer(outcome).tolist(), strict=True))


def test_a_scroll_within_ten_seconds_is_still_a_bounce() -> None:
    assert asked_and_answered("bounce", seen((0, VIEW_ITEM), (6, SCROLL))) == [(True, True), (True, True)]


def test_a_scroll_after_ten_seconds_decides_against_a_bounce() -> None:
    assert asked_and_answered("bounce", seen((0, VIEW_ITEM), (11, SCROLL))) == [(True, False), (False, False)]


def test_a_second_view_decides_against_a_bounce() -> None:
    assert asked_and_answered("bounce", seen((0, VIEW_ITEM), (2, VIEW_ITEM))) == [(True, False), (False, False)]


def test_conversion_is_not_asked_of_a_session_that_has_bought() -> None:
    events = seen((0, VIEW_ITEM), (5, PURCHASE), (9, VIEW_ITEM))
    assert asked_and_answered("conversion", events) == [(True, True), (False, False), (False, False)]


def test_exit_is_asked_of_every_event() -> None:
    events = seen((0, VIEW_ITEM), (5, PURCHASE), (9, VIEW_ITEM))
    assert asked_and_answered("exit", events) == [(True, False), (True, False), (True, True)]


def test_the_service_closes_questions_where_training_does() -> None:
    """Head.decided, in terms of features, says the same as Head.asked, in terms of outcomes."""
    from tests.features.test_conformance import many_visitors  # noqa: PLC0415

    rows = build_rows(many_visitors())
    outcome = outcomes(rows.events, LABELS, TIMEOUT_MS)
    for head in HEADS.values():
        decided = head.decided(LABELS)
        closed = np.zeros(len(rows), bool)
        for feature, least in decided.when if decided else ():
            closed |= rows.matrix[:, rows.names.index(feature)] >= least
        np.testing.assert_array_equal(~closed, head.asked(outcome)[rows.event], err_msg=head.name)
