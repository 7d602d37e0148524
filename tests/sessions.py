"""Random sessions, tables from events, and the smallest events: what the tests speak in."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from hypothesis import strategies as st

from features.events import COLUMNS, EVENT_NAMES, Event

START = 1_700_000_000_000


def table(events: Sequence[Event]) -> pd.DataFrame:
    """The events as a canonical table."""
    frame = pd.DataFrame(list(events), columns=list(COLUMNS))
    return frame.astype({name: column.dtype for name, column in COLUMNS.items()})


@st.composite
def histories(draw: st.DrawFn, visitors: int = 3, most: int = 40) -> list[Event]:
    """Events of a few visitors: ties, long pauses, repeated ids, named sessions, every event name, changing consent."""
    size = draw(st.integers(0, most))
    hashes = st.sampled_from([0, 1, -5, 7919, 2**61, -(2**62) + 3])
    gaps = st.one_of(st.integers(0, 3), st.integers(0, 60_000), st.integers(1_700_000, 1_900_000))
    time = START
    events = []
    for number in range(size):
        time += draw(gaps)
        events.append(
            Event(
                visitor=draw(st.integers(1, visitors)),
                session=draw(st.sampled_from([0, 0, 0, 11, 12])),
                id=draw(st.sampled_from([0, number + 1, 1, 2])),
                time=time,
                name=draw(st.integers(0, len(EVENT_NAMES) - 1)),
                page=draw(hashes),
                item=draw(hashes),
                category=draw(hashes),
                campaign=draw(st.sampled_from([0, 0, 5])),
                price=draw(st.sampled_from([0.0, 1.5, 19.99, 1e6])),
                quantity=float(draw(st.integers(0, 3))),
                value=draw(st.sampled_from([0.0, 40.0])),
                channel=draw(st.integers(0, 7)),
                device=draw(st.integers(0, 5)),
                interactive=draw(st.integers(0, 1)),
                consent=draw(st.sampled_from([1, 3, 7])),
                utc_offset=draw(st.sampled_from([-480, 0, 60])),
                declared_0=draw(st.sampled_from([0.0, 2.0])),
            )
        )
    return events
