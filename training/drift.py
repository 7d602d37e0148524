"""Whether a later window still looks, scores and turns out as the rows in a model's histogram did.

In: a `Histogram`, the later rows of the same head and their scores. Out: a `Drift`: of each feature and of the scores
the population stability index and the Kolmogorov-Smirnov distance, and what became of the sessions beside what the
scores promised. Beside each number stands what chance alone gives, counted over visitors, because the rows of a visitor
are nearly one observation. Missing values are a bin of their own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from scipy.stats import chi2

from features.settings import SettingsError
from training.config import DriftSettings
from training.datasets import Slice
from training.histogram import Distribution, Histogram, drawn, spread
from training.realised import Realised, realised

# Once in so many windows without drift, chance alone may raise an alarm about any of the features.
_WINDOWS: Final = 100


@dataclass(frozen=True)
class Change:
    """How the distribution of one number changed.

    Attributes
    ----------
    psi: population stability index; psi_noise: what it is on average without drift; psi_alarm: from where on it counts.
    ks: Kolmogorov-Smirnov distance at the bins' ends, NaN for codes: a lower bound, because between them it may be
        larger, and exact where every value has a bin; ks_alarm: from where on it counts.
    counts: whether it decides about drift.
    """

    name: str
    psi: float
    psi_noise: float
    psi_alarm: float
    ks: float
    ks_alarm: float
    before: Distribution
    later: Distribution
    counts: bool = True

    @property
    def severity(self) -> float:
        """From 1 on it drifted: the larger of the two numbers, each over its alarm."""
        return float(np.nanmax([self.psi / self.psi_alarm, self.ks / self.ks_alarm]))

    @property
    def drifted(self) -> bool:
        """Whether it changed more than the configured bounds and than chance explains."""
        return self.severity >= 1


@dataclass(frozen=True)
class Drift:
    """A later window beside a model's histogram.

    Attributes
    ----------
    rows, sessions, visitors: of the window; first, last: its moments, ms UTC.
    features: the worst first, those that do not count last; realised: None where too few answers are known yet.
    """

    rows: int
    sessions: int
    visitors: int
    first: int
    last: int
    features: tuple[Change, ...]
    score: Change
    realised: Realised | None

    @property
    def found(self) -> list[str]:
        """What drifted, in words; nothing where all is as it was."""
        features = [one for one in self.features if one.counts and one.drifted]
        told = [f"feature {one.name}: PSI {one.psi:.2f}, KS {one.ks:.2f}" for one in features]
        if self.score.drifted:
            told.insert(0, f"scores: PSI {self.score.psi:.2f}, KS {self.score.ks:.2f}")
        if self.realised and self.realised.off:
            told.insert(0, f"calibration: {self.realised.ratio:.2f} of what the scores promise happens")
        return told

    @property
    def drifted(self) -> bool:
        """Whether anything drifted that counts."""
        return bool(self.found)

    def as_json(self) -> dict[str, Any]:
        """Plain numbers and texts; what is not a number is None."""
        features = [_numbers(one) for one in self.features]
        tree = asdict(replace(self, features=(), realised=None)) | {"features": features, "score": _numbers(self.score)}
        tree["realised"] = asdict(self.realised) | {"off": self.realised.off} if self.realised else None
        plain: dict[str, Any] = _without_nan({"drifted": self.drifted, "found": self.found, **tree})
        return plain


def compare(histogram: Histogram, later: Slice, score: np.ndarray, settings: DriftSettings) -> Drift:
    """Hold the window's rows and their scores, float64 (n,), to the histogram.

    `later.answer` is NaN where the outcome is not known yet. Of many rows visitors are drawn, as for the histogram.

    Raises
    ------
    SettingsError
        The window has too few rows, or other features than the histogram.
    """
    if len(later) < settings.min_rows:
        raise SettingsError(
            f"the window has {len(later):,} rows, at least {settings.min_rows:,} are needed; take a longer one, or "
            "lower [drift] min_rows"
        )
    if later.names != tuple(histogram.features):
        raise SettingsError("the window has other features than the model's histogram; train again with this release")
    unknown = set(settings.ignore) - set(later.names)
    if unknown:
        raise SettingsError(f"[drift] ignore names {', '.join(sorted(unknown))}; no such feature (lotse features list)")
    chosen = drawn(later.visitor)
    later, score = later.take(chosen), np.asarray(score, np.float64)[chosen]
    _, visitor = np.unique(later.visitor, return_inverse=True)
    sizes = (histogram.sessions, later.sessions)

    changes = []
    for name, before in histogram.features.items():
        after = spread(later.column(name), before.edges, visitor, ordered=before.ordered)
        changes.append(_change(name, before, after, sizes, settings.psi, settings.ks, of=len(histogram.features)))
    changes = [replace(one, counts=one.name not in settings.ignore) for one in changes]
    spread_score = spread(score, histogram.score.edges, visitor)
    return Drift(
        rows=len(later),
        sessions=sizes[1],
        visitors=int(visitor.max()) + 1,
        first=int(later.now.min()),
        last=int(later.now.max()),
        features=tuple(sorted(changes, key=lambda one: (not one.counts, -one.severity))),
        score=_change("score", histogram.score, spread_score, sizes, settings.score_psi, settings.ks, of=1),
        realised=realised(histogram, later, score, settings),
    )


def population_stability(before: np.ndarray, later: np.ndarray, sizes: tuple[int, int]) -> float:
    """PSI of two sets of shares, float (b,): sum of (later - before) * ln(later / before) (Siddiqi 2006).

    sizes: sessions on each side. Half a session is added to every bin, so that an empty one has a logarithm.

    >>> round(population_stability(np.array([0.5, 0.5]), np.array([0.3, 0.7]), (10**6, 10**6)), 3)
    0.169
    """
    p, q = (
        (shares * size + 0.5) / (size + 0.5 * len(shares)) for shares, size in zip((before, later), sizes, strict=True)
    )
    return float(((q - p) * np.log(q / p)).sum())


def _change(
    name: str, before: Distribution, later: Distribution, sizes: tuple[int, int], psi: float, ks: float, *, of: int
) -> Change:
    """`of`: how many numbers are looked at, any of which chance may drive up."""
    p, q = np.array(before.shares), np.array(later.shares)
    noise, freedom = _noise(before, later)
    unlikely = 1 / (_WINDOWS * of)
    limit = noise * float(chi2.isf(unlikely, freedom)) / freedom if freedom else 0.0
    distance = float(np.abs(np.cumsum(p[:-1] / _all(p[:-1])) - np.cumsum(q[:-1] / _all(q[:-1]))).max())
    # Kolmogorov's tail 2 exp(-2 n d^2); noise / freedom is 1/n + 1/m, the visitors' resemblance included
    ks_limit = np.sqrt(np.log(2 / unlikely) / 2 * noise / freedom) if freedom else 0.0
    return Change(
        name=name,
        psi=population_stability(p, q, sizes),
        psi_noise=noise,
        psi_alarm=max(psi, limit),
        ks=distance if before.ordered else float("nan"),
        ks_alarm=max(ks, float(ks_limit)),
        before=before,
        later=later,
    )


def _noise(before: Distribution, later: Distribution) -> tuple[float, float]:
    """The mean of the PSI where nothing drifted, and its degrees of freedom.

    Near no drift the PSI is the sum over bins of (q - p)^2 / p, which has the mean sum of (var p + var q) / p: with n
    and m independent rows (bins - 1) (1/n + 1/m), as Yurdakul and Naranjo (2020) have it, and more where rows resemble
    each other. Degrees of freedom by Satterthwaite (1946), bins taken as independent.
    """
    p, q = np.array(before.shares), np.array(later.shares)
    variance = np.array(before.variances) + np.array(later.variances)
    # without drift both sides tell of the same share; the surer one more
    weight = 1 / (np.array([np.sum(before.variances), np.sum(later.variances)]) + 1e-12)
    pooled = (weight[0] * p + weight[1] * q) / weight.sum()
    terms = np.divide(variance, pooled, out=np.zeros_like(pooled), where=pooled > 0)
    noise = float(terms.sum())
    # one degree is lost: shares add up to 1
    freedom = noise**2 / float((terms**2).sum()) if noise else 0.0
    return noise, max(freedom - 1, 1.0) if noise else 0.0


def _all(shares: np.ndarray) -> float:
    return float(shares.sum()) or 1.0


def _numbers(one: Change) -> dict[str, Any]:
    return {
        "name": one.name,
        "drifted": one.drifted,
        "counts": one.counts,
        "psi": one.psi,
        "psi_noise": one.psi_noise,
        "psi_alarm": one.psi_alarm,
        "ks": one.ks,
        "ks_alarm": one.ks_alarm,
        "missing_before": one.before.missing,
        "missing_later": one.later.missing,
    }


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_nan(value) for value in tree]
    return None if isinstance(tree, float) and not np.isfinite(tree) else tree
