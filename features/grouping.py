"""Grouping a table of events: by visitor in time, and into sessions by the rules of `features.sessions`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any, Final

import numpy as np
from numba import njit

from features import sessions
from features.sessions import FOLDED, HEADER_LAST_AT, HEADER_VISITOR, HEADER_WORDS

_BLOCK_EVENTS: Final = 4096
# A log is cut into at most 32 slices for threads to share, and no thread is troubled for less than 2^16 events.
_MOST_SLICES_BITS: Final = 5
_LEAST_SLICE_BITS: Final = 16
# About 2^15 events a bucket: its hash table stays in the second-level cache. More buckets than 2^10 would cost more in
# writing to all of them at once than they save.
_BUCKET_EVENTS_BITS: Final = 15
_MOST_BUCKETS_BITS: Final = 10
_LEAST_SLOTS_BITS: Final = 12
_admit = njit(cache=True)(sessions.admit)


def order_by_visitor(visitor: np.ndarray, time: np.ndarray, pool: Executor | None = None) -> np.ndarray:
    """Positions that sort events by visitor, then time, ties in their given order.

    A log is mostly in order of time, so visitors are gathered by hashing, which takes a tenth of the time of a sort by
    two keys; visitors come out in the order of their first event. Out-of-order logs are sorted by time first. visitor,
    time: int64 (n,). Returns int32 (n,), half the memory to move of int64.

    pool: threads to share the work; the caller's alone by default. Must not be called from one of them: it waits for
    them. The order does not depend on it.

    Raises
    ------
    ValueError
        The table has 2^31 rows or more.
    """
    if len(visitor) >= 2**31:
        raise ValueError(f"{len(visitor):,} events in one table; cut it by visitors into tables of less than 2^31")
    if _is_grouped(visitor, time):
        return np.arange(len(visitor), dtype=np.int32)
    slice_bits = max(_LEAST_SLICE_BITS, len(visitor).bit_length() - _MOST_SLICES_BITS)
    share = pool.map if pool and len(visitor) > 1 << slice_bits else map
    if all(share(lambda part: _is_sorted(*part, time), _slices(len(time), 1 << slice_bits))):
        return _gather(visitor, slice_bits, share)
    first = np.argsort(time, kind="stable").astype(np.int32)
    return first[_gather(visitor[first], slice_bits, share)]


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


def _slices(size: int, step: int) -> list[tuple[int, int]]:
    return [(first, min(first + step, size)) for first in range(0, size, step)]


def _gather(visitor: np.ndarray, slice_bits: int, share: Callable[..., Iterator[Any]]) -> np.ndarray:
    """Stable positions that bring equal visitors together, in the order of their first event.

    One hash table of all visitors would be far larger than the cache and take 40 ns an event. So events are first dealt
    out to buckets by a hash of their visitor, grouped within each bucket, and the groups of all buckets then merged.
    visitor: int64 (n,), in the order of time; slices of 2^slice_bits events and ranges of buckets go through `share`,
    a `map`. Returns int32 (n,).
    """
    size = len(visitor)
    bits = min(max(0, size.bit_length() - 1 - _BUCKET_EVENTS_BITS), _MOST_BUCKETS_BITS)
    buckets = 1 << bits
    slices = _slices(size, 1 << slice_bits)

    counts = np.zeros((len(slices), buckets), np.int64)
    list(share(lambda part, count: _count(*part, visitor, bits, count), slices, counts))
    borders = np.append(0, np.cumsum(counts.sum(axis=0)))
    keys, places = np.empty(size, np.int64), np.empty(size + 1, np.int32)
    begins = borders[:-1] + np.cumsum(counts, axis=0) - counts
    list(share(lambda part, begin: _deal(*part, visitor, bits, begin, keys, places), slices, begins))

    led = np.zeros((buckets, len(slices)), np.int64)
    places[size] = -1  # ends the last group
    most = int(np.diff(borders).max())
    parts = _slices(buckets, max(1, buckets >> _MOST_SLICES_BITS))
    list(share(lambda part: _group(*part, borders, most, bits, slice_bits, keys, places, led), parts))

    order = np.empty(size, np.int32)
    begins = borders[:-1] + (np.cumsum(led, axis=1) - led).T
    outs = np.cumsum(led.sum(axis=0)) - led.sum(axis=0)
    list(share(lambda part, *begin: _merge(*part, *begin, visitor, bits, places, order), slices, outs, begins))
    return order


@njit(cache=True, nogil=True)
def _is_sorted(first: int, last: int, time: Any) -> bool:
    """Whether no event of [first, last) is earlier than the one before it."""
    for i in range(max(first, 1), last):  # noqa: SIM110  (numba compiles loops, not generators)
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
def _hash_bits(key: int, skip: int, bits: int) -> int:
    """`bits` bits of a key's hash after the first `skip`: pseudonyms are uniform, but a history may carry small
    counting numbers, which the high bits of a product with the golden ratio spread evenly."""
    return (((key ^ (key >> 29)) * 0x9E3779B97F4A7C1) >> (60 - skip - bits)) & ((1 << bits) - 1)


@njit(cache=True, nogil=True)
def _count(first: int, last: int, visitor: Any, bits: int, counts: Any) -> None:
    """Add the events of [first, last) to the counts of the buckets, int64 (buckets,)."""
    for i in range(first, last):
        counts[_hash_bits(int(visitor[i]), 0, bits)] += 1


@njit(cache=True, nogil=True)
def _deal(first: int, last: int, visitor: Any, bits: int, ends: Any, keys: Any, places: Any) -> None:
    """Write the events of [first, last) into their buckets: visitors to keys int64, positions to places int32.

    ends: int64 (buckets,), where each bucket goes on.
    """
    for i in range(first, last):
        key = int(visitor[i])  # plain Python then hashes without a warning of numpy's
        bucket = _hash_bits(key, 0, bits)
        at = ends[bucket]
        keys[at] = key
        places[at] = i
        ends[bucket] = at + 1


@njit(cache=True, nogil=True)
def _group(
    first: int, last: int, borders: Any, most: int, bits: int, slice_bits: int, keys: Any, places: Any, led: Any
) -> None:
    """Bring equal visitors together within each of the buckets [first, last), in the order of their first event.

    borders: int64 (buckets + 1,), in keys and places; most: events of the largest bucket. Written: places, grouped, the
    first of each group as ~place; led int64 (buckets, slices), events of the groups whose first event is in a slice.
    Keys are lost.
    """
    numbers = np.empty(most, np.int32)  # event -> number of its visitor
    own, ends = np.empty(most, np.int64), np.empty(most, np.int32)  # number -> visitor, number -> where it goes on
    slot_bits = _LEAST_SLOTS_BITS
    table = np.empty(1 << slot_bits, np.int32)  # slot -> number
    for bucket in range(first, last):
        begin, size = borders[bucket], borders[bucket + 1] - borders[bucket]
        table[:] = -1
        visitors = 0
        for i in range(size):
            key = int(keys[begin + i])
            keys[begin + i] = places[begin + i]  # kept here while places are written
            slot = _hash_bits(key, bits, slot_bits)
            number = table[slot]
            while number >= 0 and own[number] != key:
                slot = (slot + 1) & (len(table) - 1)
                number = table[slot]
            if number < 0:
                number = visitors
                table[slot] = number
                own[number] = key
                ends[number] = 0
                visitors += 1
                if 4 * visitors > len(table):  # grows with the visitors, not the events, so stays in the cache
                    slot_bits += 2
                    table = np.empty(1 << slot_bits, np.int32)
                    table[:] = -1
                    for v in range(visitors):
                        slot = _hash_bits(int(own[v]), bits, slot_bits)
                        while table[slot] >= 0:
                            slot = (slot + 1) & (len(table) - 1)
                        table[slot] = v
            numbers[i] = number
            ends[number] += 1
        at = begin
        for v in range(visitors):
            count = ends[v]
            ends[v] = at
            at += count
        for i in range(size):
            places[ends[numbers[i]]] = keys[begin + i]
            ends[numbers[i]] += 1
        at = begin
        for v in range(visitors):
            led[bucket, places[at] >> slice_bits] += ends[v] - at
            places[at] = ~places[at]
            at = ends[v]


@njit(cache=True, nogil=True)
def _merge(first: int, last: int, out: int, begins: Any, visitor: Any, bits: int, places: Any, order: Any) -> None:
    """Write the groups whose first event is in [first, last) to the order, from `out` on.

    Groups of a bucket are in the order of their first event, so its next group is due when the scan comes upon that
    event. begins: int64 (buckets,), the first group of each bucket to write.
    """
    due = np.empty(len(begins), np.int32)
    for bucket in range(len(begins)):
        due[bucket] = ~places[begins[bucket]]
    for i in range(first, last):
        bucket = _hash_bits(int(visitor[i]), 0, bits)
        if due[bucket] == i:
            at, place = begins[bucket], i
            while place >= 0:
                order[out] = place
                out += 1
                at += 1
                place = places[at]
            due[bucket] = ~place
            begins[bucket] = at
