"""What variants do to the crowd: effects that are planted, so that an experiment's answer is known beforehand.

A visitor to whom a flag shows something new reacts by the true probability of a purchase at that moment, which the
simulated shop knows (`simulation.truth`): with a lift of 0.2 and a probability of 0.1 it is 0.12 from then on. Some of
those who would have left are won, and go on to the till; with a lift below 0 some who would have bought are lost, and
leave before they pay. What a visitor does under each variant follows from the seed alone, whichever is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from simulation.crowd import Visit

# The true probabilities at the trigger (`bounce`, `conversion`, `exit`) -> relative change of that of a purchase.
Lift = Callable[[Mapping[str, float]], float]

_TO_THE_TILL: Final = ("add_to_cart", "view_cart", "begin_checkout", "add_payment_info", "purchase")
_STEP_SECONDS: Final = 9.0
_MOST: Final = 0.98
_VALUE: Final = 40.0


def no_lift(truth: Mapping[str, float]) -> float:
    """An A/A test's."""
    del truth
    return 0.0


@dataclass
class Reaction:
    """How a visit met the flag. place: of the event at whose answer; shown: the value; chances: of each value."""

    place: int
    shown: str
    chances: dict[str, float] = field(default_factory=dict)

    @property
    def missed(self) -> float:
        """Probability of a purchase that the best value would have had more than what was shown."""
        return max(self.chances.values()) - self.chances[self.shown]


@dataclass(frozen=True)
class Persuasion:
    """What the values of one flag do.

    flag: its key; lifts: by value, those of all arms, of the control `no_lift`; seed: settles who is won and lost.

    >>> banner = Persuasion("help", {"none": no_lift, "banner": lambda truth: 0.2})
    >>> banner.chances({"conversion": 0.1})
    {'none': 0.1, 'banner': 0.12}
    """

    flag: str
    lifts: Mapping[str, Lift]
    seed: int = 0

    def chances(self, truth: Mapping[str, float]) -> dict[str, float]:
        """The probability of a purchase later in the visit under each value."""
        before = truth["conversion"]
        return {value: min(max(before * (1 + lift(truth)), 0.0), _MOST) for value, lift in self.lifts.items()}

    def meet(self, visit: Visit, place: int, flags: Mapping[str, Mapping[str, Any]]) -> None:
        """Let a visit see the flags in the answer to its event at a place: only the first time counts."""
        told = flags.get(self.flag, {})
        shown = str(told.get("value"))
        if self.flag in visit.reactions or place >= len(visit.truth) or shown not in self.lifts:
            return
        # a flag that is the same for everybody outside an experiment is nothing new
        if told.get("reason") not in ("SPLIT", "TARGETING_MATCH"):
            return
        chances = self.chances(visit.truth[place])
        visit.reactions[self.flag] = Reaction(place, shown, chances)
        before, after = visit.truth[place]["conversion"], chances[shown]
        number = float(np.random.default_rng((self.seed, visit.number)).random())
        names = [event["name"] for event in visit.events[place + 1 :]]
        buys = "purchase" in names
        if buys and after < before and number > after / before:
            end = place + 1 + names.index("purchase")
            del visit.events[end:], visit.offsets[end:]
        elif not buys and after > before and number < (after - before) / (1 - before):
            _goes_to_the_till(visit)


def _goes_to_the_till(visit: Visit) -> None:
    """The visit goes on after what would have been its last event."""
    last = visit.events[-1]
    about = {name: last[name] for name in ("channel", "device", "consent", "utc_offset")}
    for name in _TO_THE_TILL:
        priced = {"value": _VALUE} if name != "view_cart" else {}
        visit.events.append({"name": name, "interactive": True, "quantity": 1.0, **about, **priced})
        visit.offsets.append(visit.offsets[-1] + _STEP_SECONDS)
