"""What moves a model's scores: the features with the largest mean contribution, and what the catalogue says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from serving.model_health.measured import Tree, number

# Features that are told.
_TOLD: Final = 20


def reasons(lines: Iterable[Mapping[str, str]]) -> list[Tree]:
    """Lines of importance.csv, the largest first: mean absolute contribution to the raw score, meaning and unit.

    A feature that this release's catalogue does not have has no meaning.
    """
    from features.definitions import CATALOGUE  # noqa: PLC0415  (compiling is for those who compute features)

    found: list[Tree] = []
    for line in lines:
        added = number(line["contribution"])
        if added and len(found) < _TOLD:
            entry = CATALOGUE.features.get(line["feature"])
            meaning = " ".join(entry.doc.split()) if entry else None
            told = {"feature": line["feature"], "contribution": added, "meaning": meaning}
            found.append({**told, "unit": entry.unit if entry else None})
    return found
