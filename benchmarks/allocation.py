"""Allocations on simulated shops whose truth is known: regret beside an even split, the best arm and MABWiser.

`python -m benchmarks.allocation [runs]`. Each day some units come, are assigned by the probabilities of the evening
before, and their outcomes are known in the next night: a batch a day, as from the log of closed sessions. Regret is the
outcome expected under the truth that was missed beside the best arm for each unit, per 1,000 units. MABWiser
(extra `rivals`) gets the same units, the same batches and the same bins, one-hot, where it can see a context.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks.measure import console, report
from features.allocation import DAY_MS, Contextual, Fixed, Goal, Plan, State, Thompson
from features.allocation.evidence import bins_of

DAYS: Final = 30
UNITS: Final = 1000
ARMS: Final = ("control", "banner", "chat")
SHARES: Final = (1 / 3, 1 / 3, 1 / 3)
EDGES: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)

# (score (n,), day) -> expected outcome of each arm, (n, A)
Truth = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Shop:
    """A truth, and whether outcomes are yes or no, or revenue."""

    name: str
    truth: Truth
    kind: str = "binary"
    days: int = DAYS


def _same(score: np.ndarray, day: int) -> np.ndarray:
    del day
    return np.tile([0.050, 0.056, 0.065], (len(score), 1))


def _season(score: np.ndarray, day: int) -> np.ndarray:
    """The whole shop converts better day by day, then worse: whoever is shown more at the peak looks better."""
    return np.tile([0.050, 0.056, 0.065], (len(score), 1)) * (1 + 0.8 * np.sin(2 * np.pi * day / 15))


def _risk(score: np.ndarray, day: int) -> np.ndarray:
    """The banner keeps those who are likely to leave and bothers the others; the chat helps those in the middle."""
    del day
    base = 0.30 * (1 - score) + 0.02
    banner = base * (1 + 0.5 * (score - 0.45))
    chat = base * (1 + 0.25 * np.exp(-(((score - 0.5) / 0.15) ** 2)) - 0.05)
    return np.column_stack([base, banner, chat])


def _turn(score: np.ndarray, day: int) -> np.ndarray:
    """The best arm is another one after 30 of 60 days."""
    rates = [0.050, 0.056, 0.070] if day < 30 else [0.050, 0.070, 0.040]
    return np.tile(rates, (len(score), 1))


def _revenue(score: np.ndarray, day: int) -> np.ndarray:
    del day
    return np.tile([2.0, 2.2, 2.6], (len(score), 1))


SHOPS: Final = (
    Shop("one arm is best", _same),
    Shop("the same in a season", _season),
    Shop("the best arm turns", _turn, days=60),
    Shop("effect by risk", _risk),
    Shop("revenue", _revenue, "revenue"),
)


def drawn(shop: Shop, expected: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Outcomes; revenue is an order of lognormal size in 5 % of sessions."""
    if shop.kind == "binary":
        return (random.random(len(expected)) < expected).astype(float)
    orders = random.random(len(expected)) < 0.05
    return np.where(orders, expected / 0.05 * random.lognormal(-0.32, 0.8, len(expected)), 0.0)


def lotse_regret(shop: Shop, plan: Plan, seed: int) -> float:
    """Of one run of one of our allocations."""
    random = np.random.default_rng(seed)
    state: State = plan.nothing()
    missed = 0.0
    for day in range(shop.days):
        table = plan.table(state, day * DAY_MS)
        score, number = random.random(UNITS), random.random(UNITS)
        held = random.random(UNITS) < plan.holdback
        truth = shop.truth(score, day)
        lines = np.array([*table.bins, table.shares])
        line = lines[np.where(held, len(lines) - 1, bins_of(score, table.edges))]
        arm = np.minimum((line.cumsum(axis=1) <= number[:, None]).sum(axis=1), len(ARMS) - 1)
        got = truth[np.arange(UNITS), arm]
        missed += float((truth.max(axis=1) - got).sum())
        rows = {
            "arm": arm, "score": score, "outcome": drawn(shop, got, random), "exposed_at": np.zeros(UNITS),
        }  # fmt: skip
        state = state.seen("log", day * DAY_MS, plan.sums(rows, now_ms=10**15))
    return missed / (shop.days * UNITS) * 1000


def mabwiser_regret(shop: Shop, policy: Any, contextual: bool, seed: int) -> float:
    """Of one run of MABWiser: fitted by batches, as ours, after a first day by chance."""
    from mabwiser.mab import MAB  # noqa: PLC0415

    random = np.random.default_rng(seed)
    bandit = MAB(list(range(len(ARMS))), policy, seed=seed)
    missed = 0.0
    for day in range(shop.days):
        score = random.random(UNITS)
        truth = shop.truth(score, day)
        context = np.eye(len(EDGES) + 1)[bins_of(score, EDGES)]
        if day == 0:
            arm = random.integers(0, len(ARMS), UNITS)
        elif contextual:
            arm = np.array(bandit.predict(context))
        else:
            arm = np.array([bandit.predict() for _ in range(UNITS)])
        got = truth[np.arange(UNITS), arm]
        missed += float((truth.max(axis=1) - got).sum())
        fit = bandit.fit if day == 0 else bandit.partial_fit
        outcome = drawn(shop, got, random)
        if contextual:
            fit(arm, outcome, context)
        else:
            fit(arm, outcome)
    return missed / (shop.days * UNITS) * 1000


def plans(shop: Shop) -> dict[str, Plan]:
    """Our allocations, bare (no holdback, no smallest share) and inside the frame that they ship with."""
    goal = Goal("binary" if shop.kind == "binary" else "revenue")

    def bare(allocation: Any, share: float = 0.0, holdback: float = 0.0) -> Plan:
        return Plan(ARMS, SHARES, allocation, goal, holdback, share)

    return {
        "even split": bare(Fixed()),
        "thompson": bare(Thompson()),
        "thompson, never forgetting": bare(Thompson(half_life_days=None, recent_days=None)),
        "contextual": bare(Contextual(edges=EDGES)),
        "thompson, shares >= 5 %": bare(Thompson(), 0.05),
        "thompson, shares >= 5 %, holdback 10 %": bare(Thompson(), 0.05, 0.1),
        "contextual, shares >= 5 %, holdback 10 %": bare(Contextual(edges=EDGES), 0.05, 0.1),
    }


def candidates(shop: Shop, rivals: bool) -> dict[str, Callable[[int], float]]:
    """name -> seed -> regret."""
    found: dict[str, Callable[[int], float]] = {
        name: (lambda seed, plan=plan: lotse_regret(shop, plan, seed)) for name, plan in plans(shop).items()
    }
    if rivals:
        from mabwiser.mab import LearningPolicy  # noqa: PLC0415

        if shop.kind == "binary":
            found["MABWiser Thompson"] = lambda seed: mabwiser_regret(
                shop, LearningPolicy.ThompsonSampling(), False, seed
            )
        for alpha in (1.0, 0.1):
            found[f"MABWiser LinTS, alpha {alpha:g}, bins"] = lambda seed, alpha=alpha: mabwiser_regret(
                shop, LearningPolicy.LinTS(alpha=alpha), True, seed
            )
    return found


def choosing() -> list[list[str]]:
    """Microseconds of a choice, and of what happens when a state changes."""
    rows = []
    for name, allocation in (("thompson", Thompson()), ("contextual", Contextual(edges=EDGES))):
        plan = Plan(ARMS, SHARES, allocation)
        random = np.random.default_rng(0)
        state = plan.nothing()
        for day in range(90):
            rows_of_day = {
                "arm": random.integers(0, 3, 10_000), "score": random.random(10_000),
                "outcome": (random.random(10_000) < 0.05).astype(float), "exposed_at": np.zeros(10_000),
            }  # fmt: skip
            state = state.seen("log", day * DAY_MS, plan.sums(rows_of_day, now_ms=10**15))
        text = state.to_json()
        begin = time.perf_counter()
        table = plan.table(state, 90 * DAY_MS)
        made = time.perf_counter() - begin
        scores, numbers = random.random(100_000).tolist(), random.random(100_000).tolist()
        best = min(_seconds(table, numbers, scores) for _ in range(5))
        rows.append([name, f"{best / 100_000 * 1e6:.2f} us", f"{made * 1000:.0f} ms", f"{len(text) / 1000:.0f} kB"])
    return rows


def _seconds(table: Any, numbers: list[float], scores: list[float]) -> float:
    begin = time.perf_counter()
    for number, score in zip(numbers, scores, strict=True):
        table.choose(number, score)
    return time.perf_counter() - begin


def main(runs: int) -> None:
    """Every shop, every allocation, the same seeds."""
    warnings.simplefilter("ignore")
    try:
        import mabwiser  # noqa: F401, PLC0415

        rivals = True
    except ImportError:
        rivals = False
        console.print("MABWiser is not installed: pip install 'lotse[rivals]'")
    for shop in SHOPS:
        lines = []
        for name, call in candidates(shop, rivals).items():
            few = runs
            begin = time.perf_counter()
            regrets = np.array([call(seed) for seed in range(few)])
            took = (time.perf_counter() - begin) / few
            half = 1.96 * regrets.std(ddof=1) / np.sqrt(few)
            lines.append([name, f"{regrets.mean():.2f} +- {half:.2f}", f"{few}", f"{took:.2f} s"])
            console.print(shop.name, *lines[-1], style="dim")
        report(f"{shop.name}: missed per 1,000 units", ["allocation", "regret", "runs", "a run"], lines)
    report("Choosing", ["allocation", "a choice", "a new table", "state after 90 days"], choosing())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
