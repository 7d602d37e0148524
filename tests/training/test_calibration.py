"""The calibration: found again where it is known, held to its elders where little is known, never upside down."""

from __future__ import annotations

import json

import numpy as np
import pytest

from training.calibration import Calibration, fit_calibration
from training.config import CalibrationSettings
from training.datasets import Slice

SETTINGS = CalibrationSettings()


def rows(answer: np.ndarray, events: np.ndarray, idle_seconds: np.ndarray, each: int = 1) -> Slice:
    """Rows of these ages; `each` neighbours are one session."""
    size = len(answer)
    nothing = np.zeros(size, np.int64)
    session = np.arange(size) // each
    return Slice(
        name="past",
        names=("events", "idle_seconds"),
        matrix=np.column_stack([events, idle_seconds]).astype(np.float32),
        answer=answer.astype(np.float32),
        prefix=events.astype(np.int32),
        idle_ms=(idle_seconds * 1000).astype(np.int64),
        session=session,
        visitor=session,
        started=nothing,
        now=nothing,
        until=nothing,
        known_at=nothing,
    )


def drawn(slopes: np.ndarray, intercepts: np.ndarray, size: int, seed: int = 0) -> tuple[np.ndarray, Slice]:
    """Margins and answers by one sigmoid at each of the first ages."""
    random = np.random.default_rng(seed)
    margin, at = random.normal(0, 2, size), random.integers(0, len(slopes), size)
    rate = 1 / (1 + np.exp(-(slopes[at] * margin + intercepts[at])))
    events = np.array(SETTINGS.events)[at]
    return margin, rows(random.random(size) < rate, events, np.zeros(size))


POINTS = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])


def linear(found: Calibration, event_age: int, idle_age: int = 0) -> np.ndarray:
    """Calibrated margins of POINTS at an age, float64 (5,)."""
    whole = np.ones(len(POINTS))
    return found.linear(POINTS, found.events[event_age] * whole, found.idle_seconds[idle_age] * whole)


def test_the_sigmoid_of_each_age_is_found_again() -> None:
    slopes, intercepts = np.array([0.6, 1.0, 1.4]), np.array([-1.0, 0.0, 0.5])
    margin, part = drawn(slopes, intercepts, 300_000)
    found = fit_calibration(margin, part, "binary", SETTINGS)
    for age in range(3):
        score = 1 / (1 + np.exp(-linear(found, age)))
        # all ages share a curve, so that each is off where the others bend it
        np.testing.assert_allclose(score, 1 / (1 + np.exp(-slopes[age] * POINTS - intercepts[age])), atol=0.04)


def test_what_no_sigmoid_can_mend_the_curve_does() -> None:
    """Below a margin of -1 it never happens, above 1 as often as at 1: no slope and no intercept tells that."""
    random = np.random.default_rng(7)
    margin = random.normal(0, 2, 200_000)
    rate = np.where(margin < -1, 0.0005, 1 / (1 + np.exp(-np.minimum(margin, 1.0))))
    part = rows(random.random(len(margin)) < rate, np.ones(len(margin)), np.zeros(len(margin)))
    off = {}
    for knots in (0, 6):
        found = fit_calibration(margin, part, "binary", SETTINGS.model_copy(update={"knots": knots}))
        score = found(margin, part.column("events"), part.column("idle_seconds"))
        off[knots] = np.mean([abs((score - rate)[at].mean()) for at in np.array_split(np.argsort(margin), 20)])
        assert (np.diff(found.linear(np.sort(margin), *(np.ones(len(margin)),) * 2)) >= -1e-9).all()
    assert 3 * off[6] < off[0], off


def test_an_age_with_few_visitors_stays_with_its_elders() -> None:
    margin, part = drawn(np.array([1.0, 1.0]), np.array([0.0, 0.0]), 20_000)
    few = np.random.default_rng(1).normal(0, 2, 4)
    together = rows(
        np.append(part.answer, np.ones(4)), np.append(part.column("events"), np.full(4, 20)), np.zeros(20_004)
    )
    found = fit_calibration(np.append(margin, few), together, "binary", SETTINGS)
    oldest = len(SETTINGS.events) - 1
    # four visitors that all said yes, against a prior of ten: moved, but not far
    assert 0 < found.intercept[oldest, 0] < 1.5
    assert found.intercept[0, 0] == pytest.approx(0.0, abs=0.1)


def test_an_age_nobody_was_seen_at_has_the_common_sigmoid() -> None:
    margin, part = drawn(np.array([0.7]), np.array([-0.4]), 50_000)
    found = fit_calibration(margin, part, "binary", SETTINGS)
    np.testing.assert_allclose(linear(found, 5, 3), 0.7 * POINTS - 0.4, atol=0.08)
    np.testing.assert_allclose(linear(found, 5, 3), linear(found, 0, 0), atol=0.02)


def test_rows_of_one_visitor_count_as_one_visitor() -> None:
    """A hundred rows of four visitors move an age as little as four rows do."""
    margin, part = drawn(np.array([1.0]), np.array([0.0]), 20_000)
    moved = []
    for each in (1, 25):
        size = 4 * each
        together = rows(
            np.append(part.answer, np.ones(size)),
            np.append(part.column("events"), np.full(size, 20)),
            np.zeros(20_000 + size),
        )
        session = np.append(np.arange(20_000), 20_000 + np.arange(size) // each)
        together = Slice(**{**vars(together), "session": session, "visitor": session})
        settings = SETTINGS.model_copy(update={"priors": (10,)})
        found = fit_calibration(np.append(margin, np.zeros(size)), together, "binary", settings)
        moved.append((linear(found, -1) - linear(found, 0))[2])
    assert moved[1] == pytest.approx(moved[0], rel=0.3)


def test_too_few_positives_leave_scores_as_they_are_and_noise_becomes_the_base_rate() -> None:
    margin, part = drawn(np.array([1.0]), np.array([0.0]), 40)
    assert fit_calibration(margin, part, "binary", SETTINGS).slope.tolist() == [[1.0]]
    margin, part = drawn(np.array([-1.0]), np.array([0.0]), 20_000)
    found = fit_calibration(margin, part, "binary", SETTINGS)
    assert (np.diff(linear(found, 0)) >= -1e-9).all()
    score = found(margin, part.column("events"), part.column("idle_seconds"))
    assert score.std() < 0.05
    assert score.mean() == pytest.approx(part.answer.mean(), abs=0.02)


def test_amounts_are_right_on_average_at_every_age() -> None:
    random = np.random.default_rng(3)
    margin, events = random.normal(1, 1, 200_000), random.choice([1, 2, 6], 200_000)
    mean = np.exp(0.5 * margin + np.where(events == 1, 0.0, 0.8))
    amount = np.where(random.random(len(mean)) < 0.2, 5 * mean, 0.0)
    part = rows(amount, events, np.zeros(len(mean)))
    score = fit_calibration(margin, part, "value", SETTINGS)(margin, events, np.zeros(len(mean)))
    for age in (1, 2, 6):
        assert score[events == age].mean() == pytest.approx(amount[events == age].mean(), rel=0.02)
        assert np.corrcoef(np.log(score[events == age]), np.log(mean[events == age]))[0, 1] > 0.99


def test_a_calibration_survives_json() -> None:
    margin, part = drawn(np.array([0.6, 1.0]), np.array([-1.0, 0.0]), 20_000)
    for task in ("binary", "value"):
        found = fit_calibration(margin, part, task, SETTINGS)
        read = Calibration.from_json(json.loads(json.dumps(found.as_json())))
        ages = part.column("events"), part.column("idle_seconds")
        np.testing.assert_array_equal(read(margin, *ages), found(margin, *ages))
        assert read.task == task
