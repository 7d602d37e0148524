"""What acting from a threshold on would reach: the slow way gives the same, and nothing is told of few."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.training.slices import made_up, slice_of
from training.config import EvaluationSettings
from training.datasets import Slice
from training.segments import LEAST_VISITORS
from training.thresholds import Moment, WhatIf, what_if

SETTINGS = EvaluationSettings(prefixes=(1, 2, 3))


def tables(found: WhatIf) -> dict[str, Moment]:
    return {one.moment: one for one in found.moments}


def naive(part: Slice, score: np.ndarray, moment: str, threshold: float) -> tuple[int, float]:
    """Sessions that are acted on and what became of them, session by session."""
    sessions, answers = 0, 0.0
    for session in np.unique(part.session):
        rows = [row for row in np.flatnonzero(part.session == session) if part.idle_ms[row] == 0]
        rows.sort(key=lambda row: part.prefix[row])
        if moment != "any":
            rows = [row for row in rows if part.prefix[row] == int(moment.removeprefix("prefix_"))]
        reached = [row for row in rows if score[row] >= threshold]
        if reached:
            sessions, answers = sessions + 1, answers + float(part.answer[reached[0]])
    return sessions, answers


@pytest.mark.parametrize("kind", ["conversion", "exit", "value"])
def test_every_line_is_what_acting_there_would_have_done(kind: str) -> None:
    part, score = made_up(700, kind=kind)
    found = tables(what_if(part, score, SETTINGS, "value" if kind == "value" else "binary"))
    assert list(found) == ["any", "prefix_1", "prefix_2", "prefix_3"]
    for moment, table in found.items():
        assert table.base == 700 and list(table.threshold) == sorted(table.threshold, reverse=True)
        for place in {0, len(table.threshold) // 2, len(table.threshold) - 1}:
            sessions, answers = naive(part, score, moment, table.threshold[place])
            assert (table.sessions[place], table.answers[place]) == (sessions, pytest.approx(answers))
        # the last line acts on everybody who is there to act on
        assert table.sessions[-1] == table.asked
    assert found["any"].asked == found["prefix_1"].asked == 700


def test_nothing_is_told_of_fewer_than_fifty_visitors() -> None:
    part, score = made_up(3_000)
    for moment, table in tables(what_if(part, score, SETTINGS)).items():
        rows = part.idle_ms == 0 if moment == "any" else (part.idle_ms == 0) & (part.prefix == int(moment[-1]))
        highest = {
            session: score[rows & (part.session == session)].max() for session in np.unique(part.session[rows])
        }  # fmt: skip
        visitor = dict(zip(part.session, part.visitor, strict=True))
        above = np.inf
        for threshold in table.threshold:
            between = {visitor[session] for session, best in highest.items() if threshold <= best < above}
            assert len(between) >= LEAST_VISITORS, (moment, threshold)
            above = threshold
        assert 5 < len(table.threshold) <= 60
    few, score = made_up(60)
    assert len(np.unique(few.visitor)) < LEAST_VISITORS and what_if(few, score, SETTINGS).moments == ()


def test_drawn_rows_count_as_often_as_they_stand_there() -> None:
    part, score = made_up(2_000)
    # each row in proportion to the rows that it stands for, as a log of drawn rows has them
    first = np.flatnonzero((part.prefix == 1) & (part.idle_ms == 0))
    times = 1 + first % 3
    rows = np.repeat(first, times)
    repeated = replace(part.take(rows), every_row=False)
    found = tables(what_if(repeated, score[rows], SETTINGS))
    assert list(found) == ["prefix_1"]
    assert (found["prefix_1"].base, found["prefix_1"].sessions[-1]) == (times.sum(), times.sum())
    at = found["prefix_1"].threshold[3]
    assert found["prefix_1"].sessions[3] == times[score[first] >= at].sum()
    assert found["prefix_1"].answers[3] == (times * part.answer[first])[score[first] >= at].sum()


def test_errors_are_those_of_drawing_visitors_again() -> None:
    part, score = made_up(4_000)
    table = tables(what_if(part, score, SETTINGS))["prefix_1"]
    place = len(table.threshold) // 3
    rows = np.flatnonzero((part.prefix == 1) & (part.idle_ms == 0))
    hit, answer, visitor = score[rows] >= table.threshold[place], part.answer[rows], part.visitor[rows]
    _, number = np.unique(visitor, return_inverse=True)
    random, reach, precision, caught = np.random.default_rng(3), [], [], []
    for _ in range(400):
        weight = np.bincount(random.integers(0, number.max() + 1, number.max() + 1), minlength=number.max() + 1)[number]
        acted = (weight * hit).sum()
        reach.append(acted / weight.sum())
        precision.append((weight * hit * answer).sum() / acted)
        caught.append((weight * hit * answer).sum() / weight.sum())
    assert table.reach_error[place] == pytest.approx(np.std(reach), rel=0.15)
    assert table.precision_error[place] == pytest.approx(np.std(precision), rel=0.15)
    assert table.caught_error[place] == pytest.approx(np.std(caught), rel=0.15)


def test_equal_scores_are_one_step_and_the_file_says_what_it_is() -> None:
    part = slice_of(answer=np.arange(200) % 2, now=np.arange(200))
    found = what_if(part, np.repeat([0.2, 0.7], 100), SETTINGS)
    (table,) = (one for one in found.moments if one.moment == "prefix_1")
    assert (table.threshold, table.sessions, table.answers) == ((0.7, 0.2), (100, 200), (50.0, 100.0))
    tree = json.loads(found.text())
    assert (tree["format"], tree["least_visitors"], tree["task"], tree["every_row"]) == (1, 50, "binary", True)
    assert (tree["rows"], tree["sessions"], tree["visitors"], tree["first"], tree["last"]) == (200, 200, 200, 0, 199)
