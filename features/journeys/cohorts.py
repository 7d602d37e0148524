"""Sessions that left at once against those that stayed: what differs, and how much.

In: sessions, and what is brief and what is long. Out: effect sizes with 95 % intervals by statsmodels: of yes-or-no
traits the difference of the shares (Newcombe) and Cohen's h; of amounts the probability that a session that stayed has
more than one that left (Brunner-Munzel), a half where nothing differs. How a visit begins may tell who stays; what
happened in its course differs also because a long visit has more of everything, so the two are told apart. Intervals
take sessions as independent: visitors with many sessions make them too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from features.journeys.paths import Walk
from features.journeys.segments import segments
from features.journeys.sessions import Sessions

BRIEF_SECONDS = 10.0
LONG_SECONDS = 300.0
_IN_ITS_COURSE = {
    "searched": "searches",
    "looked at a product": "item_views",
    "put something in the cart": "cart_adds",
    "bought": "purchases",
}
# Of so many of a group the ranks are compared; a larger sample is drawn from, evenly.
_MOST_RANKED = 200_000


@dataclass(frozen=True)
class Trait:
    """One difference. brief, long: shares, or medians of an amount; effect with low and high: the difference of the
    shares, or the probability of more; h: Cohen's, NaN for an amount. members: bool (n,), sessions with the trait."""

    name: str
    at_start: bool
    brief: float
    long: float
    effect: float
    low: float
    high: float
    h: float
    members: np.ndarray | None


def cohorts(
    sessions: Sessions, brief_seconds: float = BRIEF_SECONDS, long_seconds: float = LONG_SECONDS
) -> tuple[np.ndarray, np.ndarray]:
    """Which sessions left within `brief_seconds` and which stayed longer than `long_seconds`: bool (n,) each."""
    duration = (sessions["last_at"] - sessions["started_at"]) * 0.001
    return duration <= brief_seconds, duration > long_seconds


def differences(sessions: Sessions, way: Walk, brief: np.ndarray, long: np.ndarray) -> list[Trait]:
    """What differs, those of the start first, the largest effect first; nothing without sessions on both sides."""
    if not brief.any() or not long.any():
        return []
    found: list[Trait | None] = [_share(name, True, members, brief, long) for name, members in _at_start(sessions, way)]
    for name, field in _IN_ITS_COURSE.items():
        if (sessions[field] > 0).any():
            found.append(_share(name, False, sessions[field] > 0, brief, long))
    found.append(_amount("events", sessions["events"], brief, long))
    found.append(_amount("kinds of steps", way_kinds(sessions), brief, long))
    return sorted((one for one in found if one), key=lambda one: (not one.at_start, -_size(one)))


def way_kinds(sessions: Sessions) -> np.ndarray:
    """Different kinds of steps: int64 (n,)."""
    bits = sessions["steps_seen_bits"] >> 1
    return np.array([(bits >> place) & 1 for place in range(15)]).sum(axis=0)


def _size(trait: Trait) -> float:
    return abs(trait.h) if trait.members is not None else abs(2 * trait.effect - 1)


def _at_start(sessions: Sessions, way: Walk) -> Iterator[tuple[str, np.ndarray]]:
    for dimension, (labels, codes) in segments(sessions, way).items():
        for code, label in enumerate(labels):
            members = codes == code
            if members.any() and not members.all():
                yield f"{dimension}: {label}", members


def _share(name: str, at_start: bool, members: np.ndarray, brief: np.ndarray, long: np.ndarray) -> Trait:
    from statsmodels.stats.proportion import confint_proportions_2indep, proportion_effectsize  # noqa: PLC0415

    counts = [int((members & side).sum()) for side in (long, brief)]
    sizes = [int(side.sum()) for side in (long, brief)]
    shares = [count / size for count, size in zip(counts, sizes, strict=True)]
    low, high = confint_proportions_2indep(
        counts[0], sizes[0], counts[1], sizes[1], method="newcomb", compare="diff"
    )  # fmt: skip
    h = float(proportion_effectsize(*shares))
    return Trait(name, at_start, shares[1], shares[0], shares[0] - shares[1], float(low), float(high), h, members)


def _amount(name: str, amount: np.ndarray, brief: np.ndarray, long: np.ndarray) -> Trait | None:
    from statsmodels.stats.nonparametric import rank_compare_2indep  # noqa: PLC0415

    sides = [_thinned(amount[side]) for side in (long, brief)]
    if min(map(len, sides)) < 2 or all(np.ptp(side) == 0 for side in sides):
        return None
    found = rank_compare_2indep(*sides)
    low, high = found.conf_int()
    medians = [float(np.median(side)) for side in sides]
    return Trait(name, False, medians[1], medians[0], float(found.prob1), float(low), float(high), float("nan"), None)


def _thinned(amount: np.ndarray) -> np.ndarray:
    return amount[:: -(-len(amount) // _MOST_RANKED)] if len(amount) > _MOST_RANKED else amount
