"""Grouping a table of events: by visitor in time, and into sessions by the rules of `features.sessions`."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from features import sessions
from features.sessions import FOLDED, HEADER_LAST_AT, HEADER_VISITOR, HEADER_WORDS

_BLOCK_EVENTS: Final = 4096
_admit = njit(cache=True)(sessions.admit)


def order_by_visitor(visitor: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Positions that sort events by visitor, then time, ties in their given order.

    A log is mostly in order of time, so visitors are gathered by a hash table and a counting pass, which takes a third
    of the time of a sort by two keys; visitors come out in the order of their first event. Out-of-order logs are
    sorted by time first. visitor, time: int64 (n,). Returns int32 (n,), half the memory to move of int64.

    Raises
    ------
    ValueError
        The table has 2^31 rows or more.
    """
    if len(visitor) >= 2**31:
        raise ValueError(f"{len(visitor):,} events in one table; cut it by visitors into tables of less than 2^31")
    if _is_grouped(visitor, time):
        return np.arange(len(visitor), dtype=np.int32)
    if _is_sorted(time):
        return _gather(visitor)
    first = np.argsort(time, kind="stable").astype(np.int32)
    return first[_gather(visitor[first])]


@njit(cache=True, nogil=True)
def sessionise(
    first: int, last: int, order: Any, visitor: Any, session: Any, identity: Any, time: Any, timeout_ms: int,
    checkpoints: Any, statuses: Any, silences: Any,
) -> int:  # fmt: skip
    """Note what becomes of the events at the places [first, last) of the order, whole visitors; returns their rows.

    order: int32 (n,), from `order_by_visitor`; visitor, session, identity, time: int64 (n,), in the table's order;
    checkpoints: int64, sorted. Written: statuses u1 (n,), codes of `features.sessions`; silences int32 (n,), ms to the
    next event of the same session, or the timeout after its last.
    """
    header = np.zeros(HEADER_WORDS, np.int64)
    latest, rows = first, 0
    # gathered a block at a time and column by column, so that a cache miss of one event overlaps those of the next
    own = np.empty((4, _BLOCK_EVENTS), np.int64)
    for block in range(first, last, _BLOCK_EVENTS):
        size = min(_BLOCK_EVENTS, last - block)
        places = order[block : block + size]
        for i in range(size):
            own[0, i] = visitor[places[i]]
        for i in range(size):
            own[1, i] = session[places[i]]
        for i in range(size):
            own[2, i] = identity[places[i]]
        for i in range(size):
            own[3, i] = time[places[i]]
        for i in range(size):
            place = block + i
            if own[0, i] != header[HEADER_VISITOR] or place == first:
                header[:] = 0
            before = header[HEADER_LAST_AT]
            status = _admit(header, timeout_ms, own[0, i], own[1, i], own[2, i], own[3, i])
            statuses[place] = status
            silences[place] = timeout_ms
            if status == FOLDED:
                silences[latest] = max(own[3, i] - before, 0)
            if status >= FOLDED:
                latest = place
    for place in range(first, last):
        if statuses[place] >= FOLDED:
            rows += 1
            for checkpoint in checkpoints:
                rows += checkpoint < silences[place]
    return rows


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
def _slot(key: int, slots: int) -> int:
    """Where to look for a key first: pseudonyms are uniform, but a history may carry small counting numbers."""
    return ((key ^ (key >> 29)) * 0x9E3779B97F4A7C1) & (slots - 1)


@njit(cache=True, nogil=True)
def _gather(visitor: Any) -> Any:
    """Stable positions that bring equal visitors together, in the order of their first event."""
    size = len(visitor)
    slots = 1 << 12
    table = np.full(slots, -1, np.int32)  # slot -> number of the visitor
    keys = np.empty(size, np.int64)  # number -> visitor
    number = np.empty(size, np.int32)  # event -> number of its visitor
    visitors = 0
    for i in range(size):
        key = visitor[i]
        slot = _slot(key, slots)
        while table[slot] >= 0 and keys[table[slot]] != key:
            slot = (slot + 1) & (slots - 1)
        if table[slot] < 0:
            table[slot] = visitors
            keys[visitors] = key
            visitors += 1
            if 2 * visitors > slots:  # a table that grows with the visitors, not the events, stays in the cache
                slots *= 4
                table = np.full(slots, -1, np.int32)
                for v in range(visitors):
                    slot = _slot(keys[v], slots)
                    while table[slot] >= 0:
                        slot = (slot + 1) & (slots - 1)
                    table[slot] = v
            number[i] = visitors - 1
        else:
            number[i] = table[slot]
    begin = np.zeros(visitors + 1, np.int64)
    for i in range(size):
        begin[number[i] + 1] += 1
    for v in range(visitors):
        begin[v + 1] += begin[v]
    order = np.empty(size, np.int32)
    for i in range(size):
        order[begin[number[i]]] = i
        begin[number[i]] += 1
    return order
