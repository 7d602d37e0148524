"""The gate that a candidate has to pass to replace the champion; every reason against it is told, with numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from training.compare import Comparison
from training.config import PromotionSettings
from training.contest import Contest


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a candidate.

    Attributes
    ----------
    reasons: why it is refused, all of them; none where it may be promoted.
    figures: what was measured, as tags for the version.
    """

    reasons: tuple[str, ...]
    figures: dict[str, str]


@dataclass(frozen=True)
class Measure:
    """One thing that the gate looks at: less is better, and the candidate may have so much more than the champion."""

    name: str
    candidate: float
    champion: float
    allowed: float
    key: str
    segment: str = ""

    @property
    def passed(self) -> bool:
        """Whether the candidate's is at most what is allowed; what cannot be measured does not pass."""
        return self.candidate <= self.allowed


def judge(
    contest: Contest, comparison: Comparison | None, obstacle: str, settings: PromotionSettings, now_ms: int
) -> Verdict:
    """Whether the candidate may replace the champion.

    comparison: None where none is possible, and `obstacle` says why. Where there is no champion, or none that this
    release's service could use, nothing is compared, and the candidate only has to be usable itself.
    """
    candidate, champion = contest.candidate, contest.champion
    if champion is None or champion.defects:
        return Verdict(candidate.defects, {"gate": f"not compared: {obstacle}"})
    reasons = list(candidate.defects)
    hours = (now_ms - candidate.registered_ms) / 3_600_000
    if hours < settings.min_age_hours:
        reasons.append(
            f"{candidate.name} version {candidate.version} was registered {hours:.1f} hours ago, at least "
            f"{settings.min_age_hours:g} are needed (promotion.min_age_hours)"
        )
    if comparison is None:
        return Verdict(tuple(reasons) if candidate.defects else (*reasons, obstacle), {})
    if comparison.rows < settings.min_rows:
        reasons.append(
            f"the holdout has {comparison.rows:,} rows, at least {settings.min_rows:,} are needed (promotion.min_rows)"
        )
    measured = list(measures(comparison, settings))
    for one in measured:
        if not one.passed:
            reasons.append(
                f"{one.name}: version {candidate.version} has {one.candidate:.4f}, the champion {one.champion:.4f}; at "
                f"most {one.allowed:.4f} is allowed (promotion.{one.key})"
            )
    return Verdict(tuple(reasons), {"gate": "passed", "gate_rows": str(comparison.rows), **_tags(measured)})


def _tags(measured: list[Measure]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for one in measured:
        if not one.segment:
            name = f"gate_{one.name.lower().replace(' ', '_')}"
            tags |= {name: f"{one.candidate:.6g}", f"{name}_champion": f"{one.champion:.6g}"}
    segments = [one for one in measured if one.segment]
    if segments:
        worst = max(segments, key=lambda one: one.candidate - one.allowed)
        tags["gate_worst_segment"] = f"{worst.name}: {worst.candidate:.6g}, the champion's {worst.champion:.6g}"
    return tags


def measures(comparison: Comparison, settings: PromotionSettings) -> Iterator[Measure]:
    """Loss and calibration over all rows, and the loss of each segment.

    The loss of a yes-or-no question is the log loss; of amounts the share of the Tweedie deviance left unexplained.
    Calibration is the expected calibration error; of amounts how far expected over observed revenue is from 1.
    """
    table = comparison.table.set_index("age")
    binary = comparison.task == "binary"
    loss = "log loss" if binary else "unexplained deviance"
    candidate, champion = (
        table[f"log_loss_{side}"] if binary else 1 - table[f"d2_{side}"] for side in ("other", "one")
    )
    least = champion["all"]
    yield Measure(loss, candidate["all"], least, least + settings.log_loss_tolerance, "log_loss_tolerance")
    if binary:
        off, before = (table[f"ece_{side}"]["all"] for side in ("other", "one"))
        yield Measure("ECE", off, before, before + settings.ece_tolerance, "ece_tolerance")
    else:
        off, before = (abs(table[f"ratio_{side}"]["all"] - 1) for side in ("other", "one"))
        yield Measure("ratio less 1", off, before, before + settings.ratio_tolerance, "ratio_tolerance")
    for segment in table.index[table.index.str.contains("=")]:
        one, least = candidate[segment], champion[segment]
        if pd.notna(one) and pd.notna(least):  # of amounts: something was bought there
            allowed = least * (1 + settings.segment_tolerance)
            yield Measure(f"{loss} of {segment}", one, least, allowed, "segment_tolerance", segment)
