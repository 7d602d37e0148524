"""When a session begins and ends, and what is done with late and repeated events: the rules, once, for live and batch.

A record begins with sixteen 64-bit words, the header. `admit` decides about one event from the header alone; the
compiler emits it into every fold, so live, batch and distributed share this very function.

Rules (all times are event times in ms, UTC):
- a session closes after `timeout_ms` without an event, or when the tracker names another session;
- a visitor has one current session;
- an event that was seen already (one of the latest 7 event ids of the record) changes nothing;
- a late event of the open session folds in arrival order, its gap clamped at zero; one from before the session
  (earlier than a timeout before its start, or of another named session and older than this one) is counted and dropped.
"""

from __future__ import annotations

from typing import Any, Final

HEADER_DIGEST: Final = 0
HEADER_VISITOR: Final = 1
HEADER_SESSION: Final = 2
HEADER_STARTED_AT: Final = 3
HEADER_LAST_AT: Final = 4
HEADER_EVENTS: Final = 5
HEADER_DUPLICATES: Final = 6
HEADER_LATE: Final = 7
HEADER_CONSENT: Final = 8
HEADER_RECENT: Final = 9
RECENT_IDS: Final = 7
HEADER_WORDS: Final = HEADER_RECENT + RECENT_IDS

DUPLICATE: Final = 0
LATE: Final = 1
FOLDED: Final = 2
STARTED: Final = 3
STATUS_NAMES: Final = ("duplicate", "late", "folded", "started")

DEFAULT_TIMEOUT_SECONDS: Final = 1800


def admit(header: Any, timeout_ms: int, visitor: int, session: int, identity: int, time: int) -> int:
    """Decide about one event and note it in the header; returns DUPLICATE, LATE, FOLDED or STARTED.

    header: int64 of shape (HEADER_WORDS,), zeros before the first event; changed in place. The consent word is the
    caller's, because it decides what a new session may keep.
    """
    events = header[HEADER_EVENTS]
    if identity != 0:
        for slot in range(HEADER_RECENT, HEADER_RECENT + RECENT_IDS):
            if header[slot] == identity:
                header[HEADER_DUPLICATES] += 1
                return DUPLICATE
    started = header[HEADER_STARTED_AT]
    other = session != header[HEADER_SESSION] and session != 0 and header[HEADER_SESSION] != 0
    if events > 0 and (time < started - timeout_ms or (other and time < started)):
        header[HEADER_LATE] += 1
        return LATE
    status = FOLDED
    if events == 0 or other or time - header[HEADER_LAST_AT] > timeout_ms:
        status = STARTED
        header[HEADER_VISITOR] = visitor
        header[HEADER_STARTED_AT] = time
        header[HEADER_LAST_AT] = time
        header[HEADER_SESSION] = 0
        header[HEADER_EVENTS] = 0
    if session != 0:
        header[HEADER_SESSION] = session
    if identity != 0:
        # the oldest of the remembered ids makes place
        for slot in range(HEADER_RECENT + RECENT_IDS - 1, HEADER_RECENT, -1):
            header[slot] = header[slot - 1]
        header[HEADER_RECENT] = identity
    header[HEADER_LAST_AT] = max(header[HEADER_LAST_AT], time)
    header[HEADER_EVENTS] += 1
    return status
