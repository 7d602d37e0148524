"""Whether the statistics of experiments hold what they promise: false alarms, samples to a decision, ratios, coverage.

    python -m benchmarks.experiments [--runs 10000] [--only aa,decision,...] [--rivals FOLDER ...]

Simulations look after every unit, vectorised over runs, by the statistic that `training.experiments.effects` computes:
a test holds one to the other. spotify-confidence needs pandas 2, ours is newer: `decision` and `peers` run in an
environment of its own (`pip install spotify-confidence tea-tasting pydantic rich`, this project as the working folder).
confseq 0.0.11 does not build under Python 3.11; FOLDER holds a build of it by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import beta, chisquare, norm
from statsmodels.stats.power import NormalIndPower

from benchmarks.measure import console, report
from features.judging.means import PRIOR_UNITS
from features.judging.ratio import ALARM, sequential_p
from features.judging.sequential import critical_value
from tests.training.units import experiment, made_up, units
from training.experiments.bayes import beliefs
from training.experiments.effects import effects
from training.experiments.verdicts import judge

Array = npt.NDArray[np.float64]
LEAST: Final = 50
CHUNK: Final = 50
PARTS: Final = ("aa", "decision", "ratio", "cuped", "clusters", "adaptive", "boundary", "peers")


def running_z(banner: npt.NDArray[np.bool_], outcome: Array, prior_units: float = PRIOR_UNITS) -> tuple[Array, Array]:
    """z of the difference and effective units after every unit; NaN while an arm has fewer than 50.

    banner, outcome: [runs, units]. The same as `effects` gives for the units so far, without scores, in one phase.
    """
    count = np.arange(1, outcome.shape[1] + 1)
    ones = np.cumsum(banner, 1)
    arms = []
    powers = [np.cumsum(outcome**power, 1) / count for power in (1, 2, 3, 4)]
    for mine, size in ((banner, ones), (~banner, count - ones)):
        mean = np.cumsum(outcome * mine, 1) / np.maximum(size, 1)
        variance = np.cumsum(outcome**2 * mine, 1) / np.maximum(size, 1) - mean**2
        arms.append((size, mean, np.maximum(variance, 0)))
    (n1, m1, v1), (n0, m0, v0) = arms
    pooled = (v1 * n1 + v0 * n0) / count
    first, second, third, fourth = powers
    centred = np.maximum(second - first**2, 1e-12)
    kurtosis = np.maximum((fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4) / centred**2, 1)
    square = np.zeros_like(outcome)
    for size, variance in ((n1, v1), (n0, v0)):
        prior = prior_units / (np.maximum(size, 1) / kurtosis + prior_units)
        square += (variance * count / np.maximum(count - 2, 1) + prior * (pooled - variance)) / np.maximum(size, 1)
    enough = (np.minimum(n1, n0) >= LEAST) & (square > 0)
    z = np.where(enough, (m1 - m0) / np.sqrt(np.where(enough, square, 1)), np.nan)
    return z, 4 * n1 * n0 / count


def adjusted_z(banner: npt.NDArray[np.bool_], outcome: Array, score: Array) -> tuple[Array, Array]:
    """The same with a score as covariate, a slope an arm; both arms are taken to know their variances."""
    count = np.arange(1, outcome.shape[1] + 1)
    ones = np.cumsum(banner, 1)
    centre = np.cumsum(score, 1) / count
    spread = np.maximum(np.cumsum(score**2, 1) / count - centre**2, 1e-12)
    means, squares, slopes = [], [], []
    for mine, size in ((banner, np.maximum(ones, 1)), (~banner, np.maximum(count - ones, 1))):
        x, y = np.cumsum(score * mine, 1) / size, np.cumsum(outcome * mine, 1) / size
        xx = np.maximum(np.cumsum(score**2 * mine, 1) / size - x**2, 1e-12)
        slope = (np.cumsum(score * outcome * mine, 1) / size - x * y) / xx
        rest = np.maximum(np.cumsum(outcome**2 * mine, 1) / size - y**2 - slope**2 * xx, 0)
        means.append(y + slope * (centre - x))
        squares.append(rest * count / np.maximum(count - 4, 1) / size * (1 + (centre - x) ** 2 / xx))
        slopes.append(slope)
    square = squares[0] + squares[1] + (slopes[0] - slopes[1]) ** 2 * spread / count
    enough = (np.minimum(ones, count - ones) >= LEAST) & (square > 0)
    z = np.where(enough, (means[0] - means[1]) / np.sqrt(np.where(enough, square, 1)), np.nan)
    return z, 4 * ones * (count - ones) / count


Draw = Callable[[np.random.Generator, tuple[int, int]], Array]
OUTCOMES: Final[dict[str, Draw]] = {
    "rate 0.5 %": lambda random, shape: (random.random(shape) < 0.005) * 1.0,
    "rate 2 %": lambda random, shape: (random.random(shape) < 0.02) * 1.0,
    "rate 10 %": lambda random, shape: (random.random(shape) < 0.1) * 1.0,
    "rate 50 %": lambda random, shape: (random.random(shape) < 0.5) * 1.0,
    "revenue, 2 % buy": lambda random, shape: (random.random(shape) < 0.02) * np.exp(random.normal(3, 1, shape)),
}


def false_positives(
    draw: Draw,
    share: float,
    runs: int,
    size: int = 20_000,
    planned: float = 10_000,
    alpha: float = 0.05,
    prior_units: float = PRIOR_UNITS,
) -> tuple[float, float]:
    """A/A tests looked at after every unit: the share that an always-valid interval, and one of 95 %, ever gets
    wrong."""
    random = np.random.default_rng(1)
    wrong = naive = 0
    chunk = CHUNK if size <= 20_000 else 10
    for _ in range(runs // chunk):
        banner = random.random((chunk, size)) < share
        z, effective = running_z(banner, draw(random, (chunk, size)), prior_units)
        wrong += int((np.abs(z) > critical_value(effective, planned, alpha)).any(axis=1).sum())
        naive += int((np.abs(z) > norm.isf(alpha / 2)).any(axis=1).sum())
    return wrong / runs, naive / runs


def adjusted_false_positives(runs: int, size: int = 20_000) -> tuple[float, float]:
    """The same with a score that knows a third of the outcome's variance."""
    random = np.random.default_rng(2)
    wrong = naive = 0
    for _ in range(runs // CHUNK):
        shape = (CHUNK, size)
        score = random.beta(0.2, 1.8, shape)
        z, effective = adjusted_z(random.random(shape) < 0.5, (random.random(shape) < score) * 1.0, score)
        wrong += int((np.abs(z) > critical_value(effective, 10_000, 0.05)).any(axis=1).sum())
        naive += int((np.abs(z) > norm.isf(0.025)).any(axis=1).sum())
    return wrong / runs, naive / runs


def rate(share: float, runs: int) -> str:
    """A share of runs with its exact 95 % interval."""
    hits = round(share * runs)
    low = beta.ppf(0.025, hits, runs - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, runs - hits) if hits < runs else 1.0
    return f"{share:.2%} ({low:.2%} to {high:.2%})"


def aa(runs: int) -> None:
    """False positives of A/A tests of 20,000 units."""
    rows = []
    for name, draw in OUTCOMES.items():
        for share in (0.5, 0.05):
            wrong, naive = false_positives(draw, share, runs)
            rows.append([name, f"{share:.0%}", rate(wrong, runs), f"{naive:.0%}"])
            console.print("  ", *rows[-1], style="dim")
    few = max(runs * 2 // 5, CHUNK)
    wrong, naive = false_positives(OUTCOMES["rate 10 %"], 0.5, few, size=200_000)
    rows.append([f"rate 10 %, 200,000 units, {few:,} runs", "50%", rate(wrong, few), f"{naive:.0%}"])
    wrong, naive = false_positives(OUTCOMES["rate 0.5 %"], 0.05, few, prior_units=0.0)
    rows.append([f"rate 0.5 %, each arm's own variance alone, {few:,} runs", "5%", rate(wrong, few), f"{naive:.0%}"])
    wrong, naive = adjusted_false_positives(runs)
    rows.append(["rate 10 %, CUPED", "50%", rate(wrong, runs), f"{naive:.0%}"])
    report(
        f"A/A tests of 20,000 units, a look after every unit, {runs:,} runs: ever wrong",
        ["outcome", "share of the arm", "always valid, 95 %", "95 % interval of one look"],
        rows,
    )


def decision(runs: int, solver: Callable[[Array], Array] | None) -> None:
    """Units until a planted lift is found: always valid, after every unit; group sequential; one look."""
    rows = []
    base, lift = 0.1, 0.1
    fixed = _fixed_units(base, lift)
    for planted in (0.0, 0.05, 0.1, 0.2):
        taken = _time_to_decision(base, planted, fixed, runs, solver)
        for name, (power, middle, mean) in taken.items():
            rows.append([f"{planted:+.0%}", name, f"{power:.1%}", f"{middle / fixed:.2f}", f"{mean / fixed:.2f}"])
            console.print("  ", *rows[-1], style="dim")
    report(
        f"Rate 10 %, planned for +10 % with 80 % power: {fixed:,} units; {runs:,} runs; units in those of one look",
        ["planted", "test", "decides", "median units", "mean units"],
        rows,
    )


def _fixed_units(base: float, lift: float, power: float = 0.8) -> int:
    other = base * (1 + lift)
    sd = np.sqrt((base * (1 - base) + other * (1 - other)) / 2)
    return 2 * int(np.ceil(NormalIndPower().solve_power(base * lift / sd, alpha=0.05, power=power)))


def _time_to_decision(
    base: float, lift: float, fixed: int, runs: int, solver: Callable[[Array], Array] | None
) -> dict[str, tuple[float, float, float]]:
    random = np.random.default_rng(3)
    size = 3 * fixed
    looks = (np.arange(1, 21) * fixed // 20).astype(int)
    tests: dict[str, list[Array]] = {}
    for _ in range(runs // CHUNK):
        banner = random.random((CHUNK, size)) < 0.5
        outcome = (random.random((CHUNK, size)) < np.where(banner, base * (1 + lift), base)) * 1.0
        z, effective = running_z(banner, outcome)
        found = np.abs(z) > critical_value(effective, fixed, 0.05)
        tests.setdefault("always valid, at most 3 x", []).append(_first(found, size))
        tests.setdefault("always valid, at most 1 x", []).append(_first(found[:, :fixed], size))
        tests.setdefault("one look", []).append(np.where(np.abs(z[:, fixed - 1]) > 1.96, fixed, np.inf))
        every = np.abs(z[:, :fixed]) > 1.96
        tests.setdefault("95 % of one look, every unit (wrong)", []).append(_first(every, size))
        if solver:
            at = np.abs(z[:, looks - 1]) > solver(looks / fixed)
            tests.setdefault("spotify-confidence, 20 looks", []).append(
                np.where(at.any(axis=1), looks[at.argmax(axis=1)], np.inf)
            )
    summary = {}
    for name, chunks in tests.items():
        taken = np.concatenate(chunks)
        most = size if "3 x" in name else fixed
        stopped = np.minimum(taken, most)
        summary[name] = (float((taken <= most).mean()), float(np.median(stopped)), float(stopped.mean()))
    return summary


def _first(found: npt.NDArray[np.bool_], size: int) -> Array:
    del size
    return np.where(found.any(axis=1), found.argmax(axis=1) + 1.0, np.inf)


def ratio(runs: int) -> None:
    """A loss of one arm: how surely it is found, and how often there is an alarm without one."""
    random = np.random.default_rng(4)
    rows = []
    for loss in (0.0, 0.01, 0.02, 0.05):
        for size in (50_000, 200_000, 700_000, 1_500_000):
            kept = 0.5 * (1 - loss) / (1 - 0.5 * loss)
            ones = random.binomial(size, kept, runs)
            counts = np.stack([size - ones, ones], axis=1)
            alarms = (chisquare(counts, axis=1).pvalue < ALARM).mean()
            always = np.mean([sequential_p(count, np.array([0.5, 0.5])) < ALARM for count in counts[:1000]])
            rows.append([f"{loss:.0%}", f"{size:,}", f"{alarms:.2%}", f"{always:.2%}"])
    daily = _daily_alarms(runs)
    report(f"Sample ratio, {runs:,} runs", ["lost of one arm", "units", "alarm (p < 0.001)", "at all looks"], rows)
    console.print(f"nothing lost, a look a day for 30 days of 10,000 units: an alarm ever in {rate(daily, runs)}")


def _daily_alarms(runs: int) -> float:
    random = np.random.default_rng(5)
    ones = np.cumsum(random.binomial(10_000, 0.5, (runs, 30)), axis=1)
    size = 10_000 * np.arange(1, 31)
    square = (2 * ones - size) ** 2 / size
    return float((square > norm.isf(ALARM / 2) ** 2).any(axis=1).mean())


def cuped(runs: int) -> None:
    """How much the scores narrow, beside theory; and how often intervals hold the planted lift."""
    definition = experiment(planned_units=5_000)
    rows = []
    for tells in (20.0, 2.0, 0.5, 0.2):
        narrowed, known, single, always = [], [], [], []
        for seed in range(runs):
            table = made_up(5_000, 0.1, tells=tells, seed=seed, rate=0.1)
            # the planted lift of the mean: rates that would pass 1 are cut
            truth = float((np.minimum(table["conversion"] * 1.1, 1).mean()) / table["conversion"].mean() - 1)
            effect = effects(units(table, definition), definition.goals[0])[0]
            assert effect is not None
            result = judge(effect, None, definition)
            narrowed.append(effect.narrowed)
            known.append(_known(table))
            single.append(result.fixed_low <= truth <= result.fixed_high)
            always.append(result.low <= truth <= result.high)
        rows.append(
            [
                f"{np.mean(known):.1%}", f"{np.mean(narrowed):.1%}", f"{1 - np.sqrt(1 - np.mean(narrowed)):.1%}",
                rate(float(np.mean(single)), runs), rate(float(np.mean(always)), runs),
            ]
        )  # fmt: skip
    report(
        f"CUPED by the score at the trigger, 5,000 units, +10 % planted, {runs:,} runs",
        [
            "theory: variance known",
            "variance taken away",
            "intervals narrower by",
            "95 % holds the truth",
            "always valid",
        ],
        rows,
    )


def clusters(runs: int) -> None:
    """Visitors with five sessions each, who keep their arm: how often intervals hold that nothing happened."""
    definition = experiment(planned_units=5_000)
    rows = []
    for name in ("clustered by visitor", "as if independent"):
        single, always = [], []
        for seed in range(runs):
            table = made_up(5_000, tells=0.2, seed=seed, sessions_a_visitor=5, by_visitor=True).assign(
                conversion=np.nan
            )
            if name == "as if independent":
                table["visitor"] = table["unit"]
            (effect,) = effects(units(table, definition), definition.goals[0])
            assert effect is not None
            result = judge(effect, None, definition)
            single.append(result.fixed_low <= 0 <= result.fixed_high)
            always.append(result.low <= 0 <= result.high)
        rows.append([name, rate(float(np.mean(single)), runs), rate(float(np.mean(always)), runs)])
    report(
        f"1,000 visitors with 5 sessions each, {runs:,} runs",
        ["errors", "95 % holds the truth", "always valid"],
        rows,
    )


def _known(table: pd.DataFrame) -> float:
    """Squared correlation of score and outcome within arms, in equal parts."""
    parts = [part[["conversion", "purchases"]].corr().iloc[0, 1] ** 2 for _, part in table.groupby("arm")]
    return float(np.mean(parts))


def adaptive(runs: int) -> None:
    """Thompson sampling in 20 batches while the base rate falls: plain averages beside what the report does."""
    definition = experiment(allocation={"name": "thompson"}, holdback=0.1, minimum_share=0.05, planned_units=10_000)
    rows = []
    for lift in (0.0, 0.3):
        plain, ours, covered, always, held = [], [], [], [], []
        for seed in range(runs):
            table = thompson(lift, seed)
            means = table.groupby("arm")["purchases"].mean()
            plain.append(means["banner"] / means["control"] - 1)
            found = units(table, definition)
            effect = effects(found, definition.goals[0])[0]
            kept = effects(found.take(found.frame["holdback"].to_numpy()), definition.goals[0], least=5)[0]
            assert effect is not None
            result = judge(effect, None, definition)
            ours.append(effect.lift)
            covered.append(result.fixed_low <= lift <= result.fixed_high)
            always.append(result.low <= lift <= result.high)
            held.append(kept.lift if kept else np.nan)
        rows += [
            [f"{lift:+.0%}", "plain averages", _bias(plain, lift), f"{np.std(plain):.3f}", "", ""],
            [
                f"{lift:+.0%}", "weighted, within phases", _bias(ours, lift), f"{np.std(ours):.3f}",
                rate(float(np.mean(covered)), runs), rate(float(np.mean(always)), runs),
            ],
            [f"{lift:+.0%}", "the holdback alone", _bias(held, lift), f"{np.nanstd(held):.3f}", "", ""],
        ]  # fmt: skip
    report(
        f"Thompson sampling, 20,000 units in 20 phases, the rate falls from 15 % to 5 %, {runs:,} runs",
        ["planted", "estimate", "bias of the lift", "spread", "95 % holds the truth", "always valid"],
        rows,
    )


def _bias(lifts: list[float], truth: float) -> str:
    error = np.nanstd(lifts) / np.sqrt(len(lifts))
    return f"{np.nanmean(lifts) - truth:+.4f} ± {1.96 * error:.4f}"


def thompson(lift: float, seed: int, size: int = 20_000, phases: int = 20) -> pd.DataFrame:
    """Units allocated by Thompson sampling between batches, a tenth held back, at least 5 % an arm."""
    random = np.random.default_rng(seed)
    batch = size // phases
    wins, losses = np.ones(2), np.ones(2)
    parts = []
    for phase, base in enumerate(np.linspace(0.15, 0.05, phases)):
        draws = random.beta(wins[:, None], losses[:, None], (2, 2_000))
        share = float(np.clip((draws[1] > draws[0]).mean(), 0.05, 0.95))
        holdback = random.random(batch) < 0.1
        chance = np.where(holdback, 0.5, share)
        banner = random.random(batch) < chance
        bought = random.random(batch) < base * np.where(banner, 1 + lift, 1)
        for place, mine in enumerate((~banner, banner)):
            wins[place] += bought[mine].sum()
            losses[place] += (~bought[mine]).sum()
        parts.append(
            pd.DataFrame(
                {
                    "experiment": "banner", "phase": phase + 1, "arm": np.where(banner, "banner", "control"),
                    "propensity": np.where(banner, chance, 1 - chance), "holdback": holdback,
                    "unit": phase * batch + np.arange(batch), "purchases": bought * 1.0,
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def boundary() -> None:
    """Our boundary beside confseq's, where that is importable."""
    try:
        from confseq.boundaries import normal_mixture_bound  # noqa: PLC0415
    except ImportError as error:
        console.print(f"confseq is not there ({error}): its boundary is not compared", style="yellow")
        return
    rows = []
    for size in (100.0, 1_000.0, 10_000.0, 100_000.0):
        theirs = normal_mixture_bound(size, 0.05, 10_000.0, 0.05, False) / np.sqrt(size)
        rows.append([f"{size:,.0f}", f"{critical_value(size, 10_000, 0.05):.6f}", f"{theirs:.6f}"])
    report("Critical value, tuned to 10,000 units", ["units", "ours", "confseq"], rows)


def peers() -> None:
    """One table by other packages: single-look intervals, with and without the score, and a probability."""
    table = made_up(40_000, 0.1, tells=0.5)
    found = units(table)
    goal = found.definition.goals[0]
    (bare,), (adjusted,) = effects(found, goal, adjust=False), effects(found, goal)
    assert bare and adjusted
    (belief,) = beliefs([bare], 0.05, prior_sd=100.0)
    assert belief
    rows = [
        _peer("Lotse", *bare.difference_interval(1.95996)),
        _peer("Lotse, CUPED", *adjusted.difference_interval(1.95996)),
    ]
    better = [f"Lotse, flat prior {belief.better:.4f}"]
    try:
        import tea_tasting as tea  # noqa: PLC0415

        metrics = {"plain": tea.Mean("purchases"), "cuped": tea.Mean("purchases", "conversion")}
        plain = table[["purchases", "conversion"]].assign(variant=(table["arm"] == "banner").astype(int))
        result = tea.Experiment(metrics).analyze(plain)
        for name, label in (("plain", "tea-tasting"), ("cuped", "tea-tasting, CUPED")):
            rows.append(_peer(label, result[name].effect_size_ci_lower, result[name].effect_size_ci_upper))
    except ImportError as error:
        console.print(f"tea-tasting is not there ({error})", style="yellow")
    try:
        from spotify_confidence import BetaBinomial, ZTest  # noqa: PLC0415

        sums = table.groupby("arm")["purchases"].agg(["sum", "size"]).reset_index()
        columns = {"numerator_column": "sum", "denominator_column": "size", "categorical_group_columns": "arm"}
        line = ZTest(sums, numerator_sum_squares_column="sum", **columns).difference("control", "banner").iloc[0]
        rows.append(_peer("spotify-confidence", line["ci_lower"], line["ci_upper"]))
        np.random.seed(0)
        exact = BetaBinomial(sums, **columns).difference("control", "banner").iloc[0]
        better.append(f"spotify-confidence {exact['P(level_2 > level_1)']:.4f}")
    except (ImportError, KeyError) as error:
        console.print(f"spotify-confidence cannot be asked, it needs pandas 2: {error!r}", style="yellow")
    report("One table of 40,000 units: 95 % interval of the difference, one look", ["package", "low", "high"], rows)
    console.print(f"probability that the banner is better: {'; '.join(better)}")


def _peer(name: str, low: float, high: float) -> list[str]:
    return [name, f"{low:+.6f}", f"{high:+.6f}"]


def spotify_bounds() -> Callable[[Array], Array] | None:
    """The solver of spotify-confidence's group sequential tests, with the spending that its z-test uses."""
    try:
        from spotify_confidence.analysis.frequentist.sequential_bound_solver import bounds  # noqa: PLC0415
    except ImportError as error:
        console.print(f"spotify-confidence is not there ({error}): not compared", style="yellow")
        return None
    known: dict[bytes, Any] = {}

    def solve(times: Array) -> Array:
        key = times.tobytes()
        if key not in known:
            found = bounds(times, alpha=0.05, rho=2, ztrun=8, sides=2, max_nints=1000)
            known[key] = found.df["zb"].to_numpy()
        return known[key]

    return solve


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--rivals", nargs="*", default=[])
    arguments = parser.parse_args()
    sys.path += arguments.rivals
    few = max(arguments.runs // 10, CHUNK)
    parts: dict[str, Callable[[], None]] = {
        "aa": lambda: aa(arguments.runs),
        "decision": lambda: decision(few, spotify_bounds()),
        "ratio": lambda: ratio(arguments.runs),
        "cuped": lambda: cuped(few),
        "clusters": lambda: clusters(few),
        "adaptive": lambda: adaptive(few),
        "boundary": boundary,
        "peers": peers,
    }
    for name in arguments.only.split(","):
        parts[name]()


if __name__ == "__main__":
    main()
