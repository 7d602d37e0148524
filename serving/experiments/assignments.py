"""What experiments have assigned to a session: a line of 64 bytes each, behind its record.

It is written once, at the trigger, with what the session looked like then, and is the log of exposures as well: a
session that is over is handed on with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple

from features.experiments import MOST_GOALS, VISITOR

_LINE: Final = Struct(f"<qqfffffIHHB3x{MOST_GOALS}f")
ASSIGNMENT_BYTES: Final = _LINE.size
MOST: Final = 15


class Assignment(NamedTuple):
    """One.

    experiment: `features.events.hash64` of its key; exposed_at: ms UTC; propensity: of the arm, then.
    age_seconds, age_events: of the session then; bounce, conversion, exit: scores then, NaN where there was none.
    arm: its place among the arms; phase: of the experiment; flags: VISITOR, HOLDBACK, FORCED.
    before_1 ...: what the session had of the experiment's goals at the trigger, in their order.
    """

    experiment: int
    exposed_at: int
    propensity: float
    age_seconds: float
    bounce: float
    conversion: float
    exit: float
    age_events: int
    arm: int
    phase: int
    flags: int = 0
    before_1: float = 0.0
    before_2: float = 0.0
    before_3: float = 0.0
    before_4: float = 0.0


def pack(assignments: Iterable[Assignment]) -> bytes:
    """As they lie in a store.

    >>> one = Assignment(7, 1_700_000_000_000, 0.5, 3.0, 0.75, 0.25, 0.5, 2, 1, 1)
    >>> unpack(pack([one, one._replace(arm=0)])) == [one, one._replace(arm=0)]
    True
    """
    return b"".join(_LINE.pack(*one) for one in assignments)


def unpack(packed: bytes) -> list[Assignment]:
    """What lies there."""
    return [Assignment._make(values) for values in _LINE.iter_unpack(packed)]


def for_later(packed: bytes) -> bytes:
    """Those that hold for the visitor's later sessions."""
    return pack(one for one in unpack(packed) if one.flags & VISITOR)


def of_session_only(packed: bytes) -> bytes:
    """The same for this session, and none of them for later ones."""
    return pack(one._replace(flags=one.flags & ~VISITOR) for one in unpack(packed))


def merged(packed: bytes, more: Iterable[Assignment]) -> bytes:
    """With those of experiments that had assigned nothing yet: what was assigned first stays."""
    there = unpack(packed)
    known = {one.experiment for one in there}
    return pack([*there, *(one for one in more if one.experiment not in known)][:MOST])
