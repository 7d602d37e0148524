"""A turn: the events that came at the same time, as visits, each in the group that folds and scores its visitor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from features.events import CONSENT_LINK, Event
from features.sessions import HEADER_LAST_AT
from serving.group import TIME, Earlier, EventVisit, Group
from serving.sessions import is_handed_on, key_of, visitor_of, word_of
from serving.stores import Change, Found
from serving.tails import write_token

if TYPE_CHECKING:
    from serving.lineup import Generation, Lineup
    from serving.scorer import Scorer

# An event: the visit that it is part of, and its number there.
Seat = tuple[EventVisit, int]


class Turn:
    """One turn.

    Attributes
    ----------
    lineup: what serves; visits: by visitor; groups: by who scores.
    unlinked: lasting keys of visitors without consent to link whose events are not theirs (accounts). What comes at the
    same time with consent is erased with the rest.
    """

    def __init__(self, lineup: Lineup, events: int, received_ms: int, earlier: Earlier, write: int = 0) -> None:
        """Begin one; write: unlike that of any other turn, by which records know it again; 0 if they need not."""
        self.lineup = lineup
        self.visits: dict[int, EventVisit] = {}
        self.groups: dict[Scorer, Group] = {}
        self.unlinked: list[bytes] = []
        self._events, self._received, self._earlier, self._write = events, received_ms, earlier, write
        self._looked_on = lineup.newest.looked_on()

    def add(self, events: Sequence[Event], raws: Sequence[str], token: bytes = b"") -> list[Seat]:
        """Take more events; raws: the ids of their visitors as the tracker gave them; token: of a visit that was tried
        before.
        """
        visits, newest, seats = self.visits, self.lineup.newest, []
        only = self._group(newest, newest.champions) if events and newest.champions_only else None
        look, received = self._earlier, self._received
        for event, raw in zip(events, raws, strict=True):
            visitor = event.visitor
            visit = visits.get(visitor)
            if visit is None:
                group = only or self._group(newest, newest.scorer(visitor, looked_on=self._looked_on))
                earlier = (look, raw, event.consent & CONSENT_LINK != 0, received)
                if self._write:
                    token = write_token(self._write, len(visits))
                visit = visits[visitor] = EventVisit(group, key_of(visitor), earlier, token)
            seats.append((visit, len(visit.events)))
            visit.group.add(visit, event)
        return seats

    def _group(self, generation: Generation, scorer: Scorer) -> Group:
        group = self.groups.get(scorer)
        if group is None:
            group = self.groups[scorer] = Group(
                generation.sessions, generation.memories, scorer, self._events, self._received
            )
        return group

    def advance(self, found: Sequence[Found]) -> list[Change | None]:
        """Fold the events of some visits; asked again for those whose records were changed meanwhile."""
        if len(self.lineup.generations) > 1:
            for one in found:
                self._bring_home(one)
        if len(self.groups) == 1:
            (group,) = self.groups.values()
            return group.advance(found)
        changes: dict[int, Change | None] = {}
        for group in self.groups.values():
            theirs = [place for place, one in enumerate(found) if one.visit.group is group]  # type: ignore[attr-defined]
            if theirs:
                changes |= zip(theirs, group.advance([found[place] for place in theirs]), strict=True)
        return [changes[place] for place in range(len(found))]

    def _bring_home(self, found: Found) -> None:
        """Have a visit where it is folded, now that its visitor's records are known.

        A session that runs stays in its generation; all others begin in the newest.
        """
        visit, lineup = found.visit, self.lineup
        assert isinstance(visit, EventVisit)
        generation = lineup.newest
        first = int(visit.group.memory.events[visit.events[0], TIME])
        values = [] if found.value is None else [found.value]
        for value in (*values, *(other for _, other in found.others)):
            made = lineup.generation(value)
            if made is None or made is lineup.newest or is_handed_on(value):
                continue
            if first - word_of(value, HEADER_LAST_AT) <= made.sessions.timeout_ms:
                generation = made
                made.used = made.untold = True
        scorer = generation.scorer(visitor_of(visit.key), looked_on=self._looked_on)
        group = self._group(generation, scorer)
        if group is not visit.group:
            group.move_in(visit)

    @property
    def withdrawn(self) -> list[int]:
        """Lasting pseudonyms of visitors who took back their consent to link."""
        return [visitor for group in self.groups.values() for visitor in group.withdrawn]

    @property
    def doubtful(self) -> list[bytes]:
        """Lasting keys of visitors without consent to link, under which nobody has looked."""
        visits = [visit for group in self.groups.values() for visit in group.doubtful]
        found = [others[-1] for visit in visits if (others := visit.others())]
        # with and without consent at the same time: nobody can say which came last
        return [key for key in found if visitor_of(key) not in self.visits]

    def finish(self, *, scored: bool) -> None:
        """Have what became of every event ready, and its scores if they are asked for."""
        for group in self.groups.values():
            group.finish(scored=scored)

    def close(self) -> None:
        """Everything was answered."""
        for group in self.groups.values():
            group.close()
