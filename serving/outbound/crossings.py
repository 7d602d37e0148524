"""Which sessions are in which segment, as one worker has seen it: what is told is told once.

In: scores after each event. Out: the segments that a session has entered or left with it. A session is remembered from
when it enters its first segment, and the longest unseen is forgotten where there are too many: it is told again then,
under the same ids.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from features.settings import SettingsError
from serving.outbound import ENTERED, LEFT
from serving.outbound.configuration import SegmentSettings

if TYPE_CHECKING:
    from features.compiler import Fold

# A session: visitor (pseudonym) and start.
Session = tuple[int, int]


class Crossing(NamedTuple):
    """One. type: ENTERED or LEFT; number: 1 the first time that the session does so."""

    segment: str
    type: str
    number: int


class Segments:
    """The segments of one worker; features, heads: names of those that there are; sessions: most that are remembered.

    Raises
    ------
    SettingsError
        One asks for a head or a feature that there is not.
    """

    def __init__(
        self, settings: Mapping[str, SegmentSettings], features: Sequence[str], heads: Sequence[str], sessions: int
    ) -> None:
        self._rules = []
        for place, (name, segment) in enumerate(settings.items()):
            if segment.head not in heads:
                raise SettingsError(
                    f"outbound.segments.{name}.head: unknown head {segment.head!r}; models.heads: {', '.join(heads)}"
                )
            for feature in segment.least:
                if feature not in features:
                    raise SettingsError(
                        f"outbound.segments.{name}.least: unknown feature {feature!r}; `lotse features list` shows all"
                    )
            leaves = segment.threshold * (1 - segment.hysteresis)
            self._rules.append((place, name, segment.head, segment.threshold, leaves, list(segment.least.items())))
        self._none = [0] * len(self._rules)
        self._most = sessions
        # how often a session has crossed into and out of each segment: it is in those with an odd number
        self._counts: OrderedDict[Session, list[int]] = OrderedDict()
        # folds have features at different places
        self._places: dict[str, dict[str, int]] = {}

    def crossed(self, session: Session, scores: Mapping[str, float], row: np.ndarray, fold: Fold) -> list[Crossing]:
        """What a session has entered and left; a score that is missing changes nothing.

        row: float32 (F,), the session's features; fold: whose they are.
        """
        found: list[Crossing] = []
        counts = self._counts.get(session, self._none)
        for place, name, head, threshold, leaves, least in self._rules:
            score = scores.get(head)
            if score is None:
                continue
            count = counts[place]
            if count & 1:
                if score >= leaves:
                    continue
            elif score < threshold or (least and not self._has(least, row, fold)):
                continue
            if counts is self._none:
                counts = self._counts[session] = self._none.copy()
                if len(self._counts) > self._most:
                    self._counts.popitem(last=False)
            counts[place] = count + 1
            found.append(Crossing(name, LEFT if count & 1 else ENTERED, count // 2 + 1))
        if counts is not self._none:
            self._counts.move_to_end(session)
        return found

    def _has(self, least: Sequence[tuple[str, float]], row: np.ndarray, fold: Fold) -> bool:
        """Whether features have come to so much; one that is missing (NaN) has not."""
        places = self._places.get(fold.digest)
        if places is None:
            places = self._places[fold.digest] = {name: place for place, name in enumerate(fold.names)}
        return all(name in places and row[places[name]] >= value for name, value in least)
