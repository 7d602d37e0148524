"""A turn while generations change: a visit whose session runs in an older one is folded there, others in the newest.

Only once the store has brought a record it is known where its session runs. So the turn of an older generation takes
the same events at the same places, and of these folds those of its visits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from features.events import Event
from serving.lineup import Generation, Lineup
from serving.scorer import Scorer, Sheet
from serving.stores import Change, Found
from serving.turn import EventVisit, Turn


class Split:
    """One turn of the newest generation, and those of older ones as they are needed.

    Attributes
    ----------
    away: the turns of older generations, and their scorers. events: those of the turn, in its order.
    """

    def __init__(
        self, lineup: Lineup, turn: Turn, begin: Callable[[Generation], tuple[Turn, Scorer]], events: Sequence[Event]
    ) -> None:
        self.away: dict[Generation, tuple[Turn, Scorer]] = {}
        self._lineup, self._turn, self._begin = lineup, turn, begin
        self._places: dict[int, tuple[Generation, list[int]]] = {}
        self._events = events

    def advance(self, found: Sequence[Found]) -> list[Change | None]:
        """What `Turn.advance` does, each visit in its generation."""
        sorted_out: dict[Generation, list[int]] = {}
        for index, one in enumerate(found):
            assert isinstance(one.visit, EventVisit)
            generation = self._lineup.home(one, self._events[one.visit.events[0]].time)
            sorted_out.setdefault(generation, []).append(index)
            self._places[one.visit.number] = generation, one.visit.events
        changes: list[Change | None] = [None] * len(found)
        for generation, indices in sorted_out.items():
            turn = self._turn
            if generation is not self._lineup.newest:
                if generation not in self.away:
                    self.away[generation] = self._begin(generation)
                turn = self.away[generation][0]
            for index, change in zip(indices, turn.advance([found[index] for index in indices]), strict=True):
                changes[index] = change
        return changes

    def score(self) -> dict[int, tuple[Sheet, dict[str, str]]]:
        """After the turn was scored: score what is away, put what became of it into the turn, and tell for each of its
        places on which sheet it stands, and the versions that score there."""
        elsewhere = {}
        sheets = {generation: turn.score() for generation, (turn, _) in self.away.items()}
        for generation, places in self._places.values():
            if generation not in sheets:
                continue
            turn, scorer = self.away[generation]
            for place in places:
                for ours, theirs in (
                    (self._turn.statuses, turn.statuses),
                    (self._turn.starts, turn.starts),
                    (self._turn.counts, turn.counts),
                ):
                    ours[place] = theirs[place]
                elsewhere[place] = sheets[generation], scorer.versions
        for generation, sheet in sheets.items():
            self.away[generation][1].give_back(sheet)
        return elsewhere
