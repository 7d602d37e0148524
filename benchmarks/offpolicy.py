"""Off-policy estimates on Open Bandit Data, and Open Bandit Pipeline's beside them on the same arrays.

`python -m benchmarks.offpolicy [obp-python] [folder]`. Reads `../shared/data/open_bandit` in place: 10,000 impressions
a file, assigned at random or by Bernoulli Thompson sampling (bts), of the men's and the women's campaign. What one
policy brought is estimated from the other's log, and compared with what it brought in its own. obp 0.5.7 cannot be
installed beside our lock (it wants torch 1.12, which has no build for Python 3.11; its other old bounds are not ours);
the interpreter of a throwaway environment is given instead:

    uv venv --python 3.11 obp && uv pip install --python obp "numpy<2" "pandas<2.2" "scikit-learn<1.4" "scipy<1.12" \\
        matplotlib seaborn pyyaml tqdm pyieoe torch==2.0.1 && uv pip install --python obp --no-deps obp==0.5.7

Without one, the probabilities of bts are the frequencies of its choices alone, and nothing is compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.measure import console, report
from training.experiments.offpolicy import Estimate, Logged, cross_fitted, direct, doubly_robust, ips, snips

FOLDER: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "open_bandit"
OBP_SIDE: Final = Path(__file__).with_name("offpolicy_obp.py")
POSITIONS: Final = 3


def read(folder: Path, policy: str, campaign: str) -> pd.DataFrame:
    """The impressions of one log."""
    return pd.read_csv(folder / f"{policy}_{campaign}.csv.gz", index_col=0)


def frequencies(log: pd.DataFrame, arms: int) -> np.ndarray:
    """How often a policy chose each item at each position, (POSITIONS, A): of its choices only, no click is used."""
    counts = np.zeros((POSITIONS, arms))
    np.add.at(counts, (log["position"].to_numpy() - 1, log["item_id"].to_numpy()), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def logged_of(log: pd.DataFrame, by_position: np.ndarray) -> tuple[Logged, np.ndarray]:
    """The log beside a policy that looks at the position only, and covariates: position and the user's features."""
    levels = pd.get_dummies(log[["position", *(f"user_feature_{n}" for n in range(4))]].astype(str)).to_numpy(float)
    logged = Logged(
        arm=log["item_id"].to_numpy(np.int64),
        propensity=log["propensity_score"].to_numpy(float),
        outcome=log["click"].to_numpy(float),
        target=by_position[log["position"].to_numpy() - 1],
        cluster=np.arange(len(log)),
    )
    return logged, levels


def of_obp(
    python: str, logged: Logged, covariates: np.ndarray, expected: np.ndarray, position: np.ndarray
) -> dict[str, dict[str, float]]:
    """Its estimates of the same."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "log.npz"), Path(folder, "estimates.json")
        np.savez(
            source, reward=logged.outcome.astype(int), arm=logged.arm, propensity=logged.propensity, position=position,
            target=logged.target, expected=expected, context=covariates, arms=logged.target.shape[1],
        )  # fmt: skip
        subprocess.run([python, str(OBP_SIDE), str(source), str(target)], check=True)
        found: dict[str, dict[str, float]] = json.loads(target.read_text())
        return found


def bts_policy(python: str, campaign: str, arms: int) -> np.ndarray:
    """What obp's replay of the production policy chooses, (POSITIONS, A)."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "log.npz")
        np.savez(source, reward=np.zeros(0), arms=arms, campaign=campaign, target=np.zeros(0))
        subprocess.run([python, str(OBP_SIDE), str(source), ""], check=True)
        chosen = np.load(f"{source}.policy.npy").T
        return np.asarray(chosen / chosen.sum(axis=1, keepdims=True))


def coverage(runs: int = 400) -> list[list[str]]:
    """How often 95 % intervals hold the truth, of simulated logs whose truth is known."""
    rows = []
    for units, rate in ((1_000, 0.3), (1_000, 0.05), (10_000, 0.05), (10_000, 0.005)):
        hits = dict.fromkeys(("IPS", "SNIPS", "DR"), 0)
        widths: dict[str, list[float]] = {name: [] for name in hits}
        for seed in range(runs):
            random = np.random.default_rng(seed)
            score = random.random(units)
            truth = rate * np.column_stack([2 * (1 - score), 0.5 + score, np.ones(units)])
            behaviour = np.column_stack([0.6 - 0.3 * score, 0.2 + 0.3 * score, np.full(units, 0.2)])
            target = np.column_stack([0.1 + 0.2 * score, np.full(units, 0.1), 0.8 - 0.2 * score])
            arm = (behaviour.cumsum(axis=1) < random.random(units)[:, None]).sum(axis=1)
            at = np.arange(units), arm
            outcome = (random.random(units) < truth[at]).astype(float)
            logged = Logged(arm, behaviour[at], outcome, target, np.arange(units))
            value = rate * np.mean([(0.1 + 0.2 * s) * 2 * (1 - s) + 0.1 * (0.5 + s) + (0.8 - 0.2 * s) for s in GRID])
            expected = cross_fitted(logged, score[:, None])
            for one in (ips(logged), snips(logged), doubly_robust(logged, expected)):
                hits[one.estimator] += one.low <= value <= one.high
                widths[one.estimator].append(one.high - one.low)
        rows.append(
            [f"{units:,}", f"{rate:.1%}"]
            + [f"{hits[name] / runs:.1%}, {np.mean(widths[name]) / rate:.2f}" for name in hits]
        )
    return rows


GRID: Final = (np.arange(1000) + 0.5) / 1000


def main(python: str | None, folder: Path) -> None:
    """Both campaigns, both directions."""
    for campaign in ("men", "women"):
        logs = {policy: read(folder, policy, campaign) for policy in ("random", "bts")}
        arms = int(max(log["item_id"].max() for log in logs.values())) + 1
        even = np.full((POSITIONS, arms), 1 / arms)
        targets = [("random", "bts", "frequencies of its choices", frequencies(logs["bts"], arms))]
        if python:
            targets.append(("random", "bts", "obp's replay of it", bts_policy(python, campaign, arms)))
        targets.append(("bts", "random", "even", even))
        for source, target, what, by_position in targets:
            log, clicks = logs[source], logs[target]["click"].to_numpy(float)
            truth, error = clicks.mean(), clicks.std(ddof=1) / np.sqrt(len(clicks))
            logged, covariates = logged_of(log, by_position)
            expected = cross_fitted(logged, covariates)
            mine = [ips(logged), snips(logged), direct(logged, expected), doubly_robust(logged, expected)]
            lines = [_line(f"Lotse {one.estimator}", vars(one), float(truth)) for one in mine]
            if python:
                theirs = of_obp(python, logged, covariates, expected, log["position"].to_numpy() - 1)
                lines += [_line(f"obp {name}", one, float(truth)) for name, one in theirs.items()]
                for one in mine:
                    assert abs(one.value - theirs[one.estimator]["value"]) < 1e-9, (one, theirs)
            own = replace(logged, target=even[log["position"].to_numpy() - 1])
            report(
                f"{campaign}: {target} ({what}) from the log of {source}; its own: {truth:.3%} +- {1.96 * error:.3%}",
                ["estimator", "value", "95 % interval", "relative error", "interval holds the truth"],
                lines,
            )
            one: Estimate = mine[0]
            console.print(
                f"{int(log['click'].sum())} clicks of {len(log):,} in the log of {source}; effective units "
                f"{one.effective:,.0f}, heaviest {one.heaviest:.1%}; mean of the log itself {own.outcome.mean():.3%}",
                style="dim",
            )
    report("Coverage of 95 % intervals, width over the rate", ["units", "rate", "IPS", "SNIPS", "DR"], coverage())


def _line(name: str, one: dict[str, Any], truth: float) -> list[str]:
    return [
        name,
        f"{one['value']:.3%}",
        f"{one['low']:.3%} to {one['high']:.3%}",
        f"{abs(one['value'] - truth) / truth:.0%}",
        "yes" if one["low"] <= truth <= one["high"] else "no",
    ]


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] != "-" else None,
        Path(sys.argv[2]) if len(sys.argv) > 2 else FOLDER,
    )
