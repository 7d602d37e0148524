"""What becomes of a candidate: judged by the gate, and promoted where it passes; all of it noted in MLflow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from training.compare import Comparison, log_comparison
from training.config import TrainingSettings
from training.contest import Contest
from training.gate import judge
from training.promotion import PromotionError, promote
from training.provenance import iso

# MLflow takes longer tags, and cuts them off.
_MOST_TEXT: Final = 4_000


@dataclass(frozen=True)
class Decision:
    """About one head's candidate.

    Attributes
    ----------
    candidate, champion: versions before it; champion None where there was none.
    reasons: why the candidate is not promoted; none where it is. gate: what the gate said of it.
    comparison: what that rests on, None where nothing was compared.
    """

    head: str
    candidate: str
    champion: str | None
    reasons: tuple[str, ...]
    gate: str
    comparison: Comparison | None

    @property
    def promoted(self) -> bool:
        """Whether the candidate is the champion now."""
        return not self.reasons


def decide(
    mlflow: Any,
    settings: TrainingSettings,
    contests: Mapping[str, Contest],
    comparisons: Mapping[str, Comparison],
    obstacles: Mapping[str, str],
    source: str,
    by: str,
) -> Iterator[Decision]:
    """Judge each candidate, and make it the champion if it passes.

    comparisons: by head, of those that could be compared; obstacles: of the others, why not; by: the verb. A version
    that is refused says so in its tags, too: not every refusal has a comparison.
    """
    client = mlflow.MlflowClient()
    for name, contest in contests.items():
        now_ms = time.time_ns() // 1_000_000
        comparison, candidate, champion = comparisons.get(name), contest.candidate, contest.champion
        verdict = judge(contest, comparison, obstacles.get(name, ""), settings.promotion, now_ms)
        instead_of, reasons = None if champion is None else champion.version, verdict.reasons
        if not reasons:
            tags = verdict.figures | {"promoted_by": by}
            try:
                promote(client, settings.tracking, name, candidate.version, instead_of=instead_of, tags=tags)
            except PromotionError as error:
                reasons = (str(error),)
        if reasons:
            refusal = {"refused_at": iso(now_ms), "refused_by": by, "refused_because": "; ".join(reasons)[:_MOST_TEXT]}
            for key, value in refusal.items():
                client.set_model_version_tag(candidate.name, candidate.version, key, value)
        if comparison is not None:
            outcome = {f"refused.{place}": reason for place, reason in enumerate(reasons, 1)}
            log_comparison(mlflow, comparison, source, {"promoted": str(not reasons).lower(), **outcome})
        yield Decision(
            name, candidate.version, instead_of, reasons, verdict.figures.get("gate", "not passed"), comparison
        )
