"""What visitors said about themselves (zero-party data): up to four numbers that the shop defines."""

from __future__ import annotations

from features.aggregations import answered
from features.events import DECLARED_SLOTS

for _slot in range(DECLARED_SLOTS):
    answered(
        f"preference_{_slot}",
        f"Declared preference {_slot}: the latest answer of this visit, 0 for none.",
        of=f"declared_{_slot}",
        consent="personalise",
    )
