"""What of a session its flags depend on, to tell when they may be others: each comparison that a condition makes with
what we know (a score above a threshold, a cart with something in it), and which experiments have assigned.

What a caller passes stays the same, so while nothing of this changes neither does any flag. The reverse is not so: the
rule before may have decided.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec
from growthbook.core import evalCondition

from serving.experiments.ruleset import conditions_of, parts_of

_encode: Final = msgspec.json.Encoder(order="sorted").encode


class Watched:
    """The comparisons of one version."""

    def __init__(self, content: Mapping[str, Any], ours: Collection[str]) -> None:
        """Find them; ours: names of all that we know of a session."""
        found = {_encode(one): one for condition in conditions_of(content) for one in _comparisons(condition, ours)}
        self._comparisons: Sequence[dict[str, Any]] = tuple(found.values())
        self._groups = content.get("savedGroups", {})

    def state(self, version: str, attributes: dict[str, Any], assigned: Iterable[int]) -> str:
        """A text that is another one when a flag may be; assigned: numbers of experiments."""
        holds = bytes(evalCondition(attributes, one, self._groups) for one in self._comparisons)
        numbers = ",".join(map(str, sorted(assigned)))
        return blake2b(holds + f"{version} {numbers}".encode(), digest_size=9).hexdigest()


def _comparisons(condition: Any, ours: Collection[str]) -> Iterator[dict[str, Any]]:
    for path, value in parts_of(condition):
        if path.partition(".")[0] in ours:
            yield {path: value}
