"""How good an uplift is: the gain curve, its area (Qini, AUUC) and the effect among those it ranks first.

In: units that the model has not seen, and their scores. Effects are differences of means weighted by inverse
propensities, so an adaptive allocation does not bend them; with equal propensities they are scikit-uplift's
(`benchmarks/uplift.py` asserts it). Intervals by resampling visitors. Radcliffe, "Using control groups to target on
predicted lift", 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from training.experiments.uplift import Units

SMALLEST: Final = 50


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Fifth:
    """Units of similar scores: how many, the effect promised on average, and the one observed."""

    units: int
    promised: float
    observed: Figure


@dataclass(frozen=True)
class UpliftEvaluation:
    """What an uplift is worth on units that it has not seen.

    Attributes
    ----------
    average: the effect on all; at: by share k, the effect on the k with the highest scores; no k with fewer than 50
    units of an arm.
    auuc: area under the gain curve: what is gained a unit when units are given the arm in the order of their scores,
    averaged over how many are given it; qini: the same less that of a random order.
    fifths: lowest scores first, none of fewer than 50 units of an arm.
    """

    units: int
    average: Figure
    at: dict[float, Figure]
    auuc: Figure
    qini: Figure
    fifths: tuple[Fifth, ...]


def gain_curve(units: Units, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the units given the arm, highest scores first, and the gain a unit: float64 (m,) both, from (0, 0).

    Units of equal score come together.
    """
    return _gain(_Arms.of(units, score), np.ones(len(units)))


def evaluate_uplift(
    units: Units, score: np.ndarray, shares: Sequence[float] = (0.1, 0.3), resamples: int = 200, seed: int = 0
) -> UpliftEvaluation:
    """Evaluate scores, float64 (n,), of units of the arm and the control; others are left out.

    Raises
    ------
    ValueError
        Fewer than 50 units of the arm or of the control.
    """
    chosen = units.treated | units.control
    units, score = units.take(chosen), score[chosen]
    for name in ("treated", "control"):
        if (found := int(getattr(units, name).sum())) < SMALLEST:
            raise ValueError(f"{found} units are {name}; an evaluation needs {SMALLEST} of each")
    arms = _Arms.of(units, score)
    random = np.random.default_rng(seed)
    _, number = np.unique(units.visitor, return_inverse=True)
    counts = [np.ones(len(units))]
    visitors = int(number.max()) + 1
    counts += [
        np.bincount(random.integers(0, visitors, visitors), minlength=visitors)[number].astype(float)
        for _ in range(resamples)
    ]
    fifth = np.minimum(np.argsort(np.argsort(score, kind="stable")) * 5 // len(score), 4)
    groups = [fifth == place for place in range(5)]
    table = np.array([_numbers(arms, count, shares, groups) for count in counts])
    figures = [Figure(float(column[0]), *_interval(column[1:])) for column in table.T]
    names = len(shares)
    fifths = tuple(
        Fifth(int(group.sum()), float(score[group].mean()), figures[3 + names + place])
        for place, group in enumerate(groups)
        if _least(units.take(group)) >= SMALLEST
    )
    ranked = np.argsort(-score, kind="stable")
    at = {
        share: figure
        for share, figure in zip(shares, figures[3 : 3 + names], strict=True)
        if _least(units.take(ranked[: int(share * len(units))])) >= SMALLEST
    }
    return UpliftEvaluation(len(units), figures[0], at, figures[1], figures[2], fifths)


@dataclass(frozen=True)
class _Arms:
    """Units in the order of their scores, highest first; ends: the last of each run of equal scores."""

    order: np.ndarray
    ends: np.ndarray
    treated: np.ndarray
    control: np.ndarray
    outcome: np.ndarray

    @classmethod
    def of(cls, units: Units, score: np.ndarray) -> _Arms:
        order = np.argsort(-score, kind="stable")
        ranked = score[order]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        weight = 1.0 / units.propensity[order].astype(np.float64)
        return cls(order, ends, weight * units.treated[order], weight * units.control[order], units.outcome[order])


def _least(units: Units) -> int:
    """Units of the arm or of the control, whichever are fewer."""
    return int(min(units.treated.sum(), units.control.sum()))


def _interval(resampled: np.ndarray) -> tuple[float, float]:
    """Where 95 % of them are; NaN without any."""
    known = resampled[~np.isnan(resampled)]
    low, high = np.quantile(known, (0.025, 0.975)) if len(known) else (np.nan, np.nan)
    return float(low), float(high)


def _gain(arms: _Arms, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count = count[arms.order]
    share = np.cumsum(count)[arms.ends] / count.sum()
    means = []
    for weight in (arms.treated * count, arms.control * count):
        total, answered = np.cumsum(weight)[arms.ends], np.cumsum(weight * arms.outcome)[arms.ends]
        means.append(np.divide(answered, total, out=np.zeros(len(total)), where=total > 0))
    gain = share * (means[0] - means[1])
    return np.append(0.0, share), np.append(0.0, gain)


def _effect(arms: _Arms, count: np.ndarray) -> float:
    """Of units, each counted so often (in the order of their scores)."""
    treated, control = arms.treated * count, arms.control * count
    if not treated.any() or not control.any():
        return float("nan")
    return float((treated @ arms.outcome) / treated.sum() - (control @ arms.outcome) / control.sum())


def _numbers(arms: _Arms, count: np.ndarray, shares: Sequence[float], groups: Sequence[np.ndarray]) -> list[float]:
    share, gain = _gain(arms, count)
    area = float(np.trapezoid(gain, share))
    ordered = count[arms.order]
    average = _effect(arms, ordered)
    reached = np.cumsum(ordered) / ordered.sum()
    first = [_effect(arms, ordered * (reached <= k)) for k in shares]
    return [
        average,
        area,
        area - average / 2,
        *first,
        *(_effect(arms, ordered * group[arms.order]) for group in groups),
    ]
