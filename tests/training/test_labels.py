"""Labels against a slow, obvious reading of the sessions; decided outcomes give no row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from features.batch import build_rows
from features.events import (
    ADD_TO_CART,
    CONSENT_LINK,
    EVENT_NAMES,
    LOGIN,
    PURCHASE,
    SCROLL,
    VIEW_ITEM,
    Event,
)
from tests.sessions import START, histories, table
from training.config import TrainingSettings
from training.heads import COUNTED_BY, heads_of
from training.labels import DAY_MS, Outcomes

SETTINGS = TrainingSettings()
HEADS = heads_of(SETTINGS)
TIMEOUT_MS = 1_800_000


@settings(max_examples=100, deadline=None)
@given(histories())
def test_outcomes_equal_the_obvious_ones(events: list[Event]) -> None:
    rows = build_rows(table(events), idle_seconds=())
    found = Outcomes(rows.events, SETTINGS.labels, TIMEOUT_MS)
    sessions = [own for _, own in rows.events.groupby("session_index")]
    at = 0
    for own in sessions:
        names = own["name"].tolist()
        clock = np.maximum.accumulate(own["time"].to_numpy())
        for place in range(len(own)):
            assert found.last[at] == (place == len(own) - 1)
            assert found.later("purchase")[at] == (PURCHASE in names[place + 1 :])
            assert found.reached("purchase")[at] == (PURCHASE in names[: place + 1])
            assert found.later("view_item")[at] == (VIEW_ITEM in names[place + 1 :])
            bought = [value for name, value in zip(names, own["value"], strict=True) if name == PURCHASE]
            rest = sum(bought[names[: place + 1].count(PURCHASE) :])
            assert found.value_later[at] == pytest.approx(rest, rel=1e-5, abs=1e-5)
            assert found.linked[at] == bool(own["consent"].iloc[place] & CONSENT_LINK)
            assert found.bounced[at] == may_bounce(own, len(own) - 1)
            assert found.bounce_open[at] == may_bounce(own, place)
            assert found.censored(TIMEOUT_MS)[at] == (clock[-1] + TIMEOUT_MS > rows.events["time"].max())
            at += 1
    assert at == len(found.last)


@settings(max_examples=50, deadline=None)
@given(histories())
def test_a_visitor_returns_when_the_next_session_begins_in_time(events: list[Event]) -> None:
    rows = build_rows(table(events), idle_seconds=())
    found = Outcomes(rows.events, SETTINGS.labels, TIMEOUT_MS).returns(0.05)
    starts = rows.events.groupby("session_index").agg(visitor=("visitor", "first"), start=("time", "first"))
    for index, own in rows.events.groupby("session_index"):
        end, visitor = own["time"].max(), own["visitor"].iloc[0]
        later = starts[(starts["visitor"] == visitor) & (starts.index > index)]
        expected = bool(((later["start"] - end) <= 0.05 * DAY_MS).any())
        assert found[own.index].tolist() == [expected] * len(own)


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
    outcome = Outcomes(rows.events, SETTINGS.labels, TIMEOUT_MS)
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
    outcome = Outcomes(rows.events, SETTINGS.labels, TIMEOUT_MS)
    for head in HEADS.values():
        closed = np.zeros(len(rows), bool)
        for feature, least in head.decided.when if head.decided else ():
            closed |= rows.matrix[:, rows.names.index(feature)] >= least
        for feature in head.needs:
            closed |= np.isnan(rows.matrix[:, rows.names.index(feature)])
        np.testing.assert_array_equal(~closed, head.asked(outcome)[rows.event], err_msg=head.name)


@pytest.mark.parametrize("event", EVENT_NAMES[1:])
def test_any_event_is_a_goal_by_one_line_of_configuration(event: str) -> None:
    """While the goal can be told from the features it is asked for until it was reached, else always."""
    chosen = {"heads": {"questions": {"mine": {"kind": "goal", "event": event}}, "train": ["mine"]}}
    head = heads_of(TrainingSettings.model_validate(chosen))["mine"]
    code = EVENT_NAMES.index(event)
    other = VIEW_ITEM if code != VIEW_ITEM else ADD_TO_CART
    rows = build_rows(table(seen((0, other), (1, other), (2, code), (3, other), (4, code))), idle_seconds=())
    outcome = Outcomes(rows.events, SETTINGS.labels, TIMEOUT_MS)
    assert head.answer(outcome).tolist() == [True, True, True, True, False]
    counted = event in COUNTED_BY
    assert head.asked(outcome).tolist() == ([True, True, False, False, False] if counted else [True] * 5)
    if counted:
        assert rows.matrix[:, rows.names.index(COUNTED_BY[event])].tolist() == [0, 0, 1, 1, 2]


def test_an_unknown_goal_a_missing_event_and_an_unknown_kind_are_refused() -> None:
    for question, message in (
        ({"kind": "goal", "event": "buy"}, "unknown event; known: custom, page_view"),
        ({"kind": "goal"}, "Field required"),
        ({"kind": "churn"}, "does not match any of the expected tags"),
        ({"kind": "returns", "days": 0}, "greater than 0"),
    ):
        with pytest.raises(ValueError, match=message):
            TrainingSettings.model_validate({"heads": {"questions": {"mine": question}, "train": ["mine"]}})
    with pytest.raises(ValueError, match="unknown head 'mine' in train; known: bounce, conversion, exit"):
        TrainingSettings.model_validate({"heads": {"train": ["mine"]}})


def test_value_is_the_revenue_of_the_rest_and_login_is_asked_for_again() -> None:
    steps = seen((0, VIEW_ITEM), (1, PURCHASE), (2, LOGIN), (3, PURCHASE))
    valued = [event._replace(value=value) for event, value in zip(steps, (9.0, 20.0, 0.0, 5.5), strict=True)]
    outcome = Outcomes(build_rows(table(valued), idle_seconds=()).events, SETTINGS.labels, TIMEOUT_MS)
    assert HEADS["value"].answer(outcome).tolist() == [25.5, 5.5, 5.5, 0.0]
    assert HEADS["value"].asked(outcome).all()
