"""Grouping a table of events: by visitor in time, and into sessions by the rules of `features.sessions`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from features import sessions
from features.sessions import DUPLICATE, FOLDED, HEADER_LAST_AT, HEADER_WORDS, STARTED

_admit = njit(cache=True)(sessions.admit)


def order_by_visitor(visitor: np.ndarray, time: np.ndarray) -> np.ndarray | None:
    """Positions that sort events by visitor, then time, ties in their given order; None if they are sorted already.

    A log is mostly in order of time, so visitors are gathered by a hash table and a counting pass, which takes a third
    of the time of a sort by two keys; visitors come out in the order of their first event. Out-of-order logs are
    sorted by time first. visitor, time: int64 (n,). Returns int64 (n,).
    """
    if _is_grouped(visitor, time):
        return None
    first = None
    if not _is_sorted(time):
        first = np.argsort(time, kind="stable")
        visitor = visitor[first]
    order = _gather(visitor)
    return order if first is None else first[order]


def sessionise(
    visitor: np.ndarray, session: np.ndarray, identity: np.ndarray, time: np.ndarray, timeout_ms: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What becomes of each event of a table that is sorted by visitor and time.

    visitor, session, identity, time: int64 (n,).

    Returns
    -------
    statuses: u1 (n,), codes of `features.sessions`.
    silences: int64 (n,), ms to the next event of the same session, or the timeout after its last.
    session_index: int64 (n,), counted from 0 through the table.
    """
    return _sessionise(visitor, session, identity, time, timeout_ms)  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def _sessionise(visitor: Any, session: Any, identity: Any, time: Any, timeout_ms: int) -> Any:
    size = len(visitor)
    statuses = np.zeros(size, np.uint8)
    silences = np.full(size, timeout_ms, np.int64)
    session_index = np.zeros(size, np.int64)
    header = np.zeros(HEADER_WORDS, np.int64)
    current, latest = -1, -1
    for i in range(size):
        if i == 0 or visitor[i] != visitor[i - 1]:
            header[:] = 0
            latest = -1
        before = header[HEADER_LAST_AT]
        status = _admit(header, timeout_ms, visitor[i], session[i], identity[i], time[i])
        statuses[i] = status
        if status == STARTED:
            current += 1
        elif status == FOLDED:
            silences[latest] = max(time[i] - before, 0)
        session_index[i] = current
        if status > DUPLICATE and status >= FOLDED:
            latest = i
    return statuses, silences, session_index


@njit(cache=True, nogil=True)
def _is_sorted(time: Any) -> bool:
    for i in range(1, len(time)):  # noqa: SIM110  (numba compiles loops, not generators)
        if time[i] < time[i - 1]:
            return False
    return True


@njit(cache=True, nogil=True)
def _is_grouped(visitor: Any, time: Any) -> bool:
    """Whether visitors increase and, within one, time does."""
    for i in range(1, len(visitor)):
        if visitor[i] < visitor[i - 1] or (visitor[i] == visitor[i - 1] and time[i] < time[i - 1]):
            return False
    return True


@njit(cache=True, nogil=True)
def _gather(visitor: Any) -> Any:
    """Stable positions that bring equal visitors together, in the order of their first event."""
    size = len(visitor)
    slots = 1
    while slots < 2 * size:
        slots *= 2
    mask = slots - 1
    table = np.full(slots, -1, np.int32)  # slot -> number of the visitor
    keys = np.empty(size, np.int64)  # number -> visitor
    number = np.empty(size, np.int32)  # event -> number of its visitor
    visitors = 0
    for i in range(size):
        key = visitor[i]
        # pseudonyms are uniform, but a history may carry small counting numbers: mix before masking
        slot = ((key ^ (key >> 29)) * 0x9E3779B97F4A7C1) & mask
        while table[slot] >= 0 and keys[table[slot]] != key:
            slot = (slot + 1) & mask
        if table[slot] < 0:
            table[slot] = visitors
            keys[visitors] = key
            visitors += 1
        number[i] = table[slot]
    begin = np.zeros(visitors + 1, np.int64)
    for i in range(size):
        begin[number[i] + 1] += 1
    for v in range(visitors):
        begin[v + 1] += begin[v]
    order = np.empty(size, np.int64)
    for i in range(size):
        order[begin[number[i]]] = i
        begin[number[i]] += 1
    return order
