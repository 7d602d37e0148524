"""The order by visitor equals a sort by the obvious keys, whatever the log looks like and however it is shared."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import grouping
from features.grouping import order_by_visitor

# so few events a slice and a bucket that small logs have several of each
SMALL = {"_LEAST_SLICE_BITS": 1, "_BUCKET_EVENTS_BITS": 1}


def reference(visitor: np.ndarray, time: np.ndarray) -> list[int]:
    """Visitors in the order of their first event in time, their events by time, ties as given; grouped logs as is."""
    given_order = list(range(len(visitor)))
    pairs = list(zip(visitor.tolist(), time.tolist(), strict=True))
    if pairs == sorted(pairs):
        return given_order
    by_time = sorted(given_order, key=lambda i: (pairs[i][1], i))
    rank: dict[int, int] = {}
    for i in by_time:
        rank.setdefault(pairs[i][0], len(rank))
    return sorted(given_order, key=lambda i: (rank[pairs[i][0]], pairs[i][1], i))


def assert_ordered(visitor: np.ndarray, time: np.ndarray) -> None:
    """Without threads and with 1, 2 and 3 of them."""
    expected = reference(visitor, time)
    order = order_by_visitor(visitor, time)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(order, expected)
    for threads in (1, 2, 3):
        with ThreadPoolExecutor(threads) as pool:
            np.testing.assert_array_equal(order_by_visitor(visitor, time, pool), expected)


COUNTED = st.integers(0, 6)
HASHED = st.integers(-(2**63), 2**63 - 1)
ENDS = st.sampled_from([-(2**63), -(2**63) + 1, -1, 0, 1, 2**63 - 1])


@given(st.data(), st.sampled_from(["sorted", "shuffled"]), st.sampled_from(["usual", "small"]))
def test_any_log_is_ordered(data: st.DataObject, times: str, sizes: str) -> None:
    visitor = data.draw(st.one_of(*(st.lists(keys, max_size=80) for keys in (COUNTED, HASHED, ENDS))))
    time = data.draw(st.lists(st.integers(0, 30), min_size=len(visitor), max_size=len(visitor)))
    log = np.array(visitor, np.int64), np.array(sorted(time) if times == "sorted" else time, np.int64)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items() if sizes == "small" else ():
            patch.setattr(grouping, name, value)
        assert_ordered(*log)


def visitors(kind: str, size: int) -> np.ndarray:
    random = np.random.default_rng(size)
    return {
        "counted": random.integers(0, size // 8 + 1, size),
        "hashed": random.integers(-(2**63), 2**63 - 1, size // 8 + 1)[random.integers(0, size // 8 + 1, size)],
        "multiples": random.integers(0, size // 8 + 1, size) << 40,
        "distinct": np.arange(size)[::-1].copy(),
        "one but for the last": np.append(np.full(size - 1, 7), 5),
    }[kind]


KINDS = ("counted", "hashed", "multiples", "distinct", "one but for the last")


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_of_many_slices_and_buckets_is_ordered(kind: str) -> None:
    visitor = visitors(kind, 300_000)
    assert_ordered(visitor, np.arange(len(visitor)) // 3)


# one event less and more than fill a slice and turn one bucket into two
@pytest.mark.parametrize("size", [2**16 - 1, 2**16, 2**16 + 1, 2**17 - 1, 2**17, 2**17 + 1])
def test_a_log_around_a_slice_is_ordered(size: int) -> None:
    assert_ordered(visitors("hashed", size), np.arange(size))


def test_a_single_step_back_in_time_is_seen_between_slices() -> None:
    time = np.arange(200_000)
    time[2**16] = 3
    assert_ordered(visitors("hashed", len(time)), time)


@pytest.mark.parametrize("visitor", [[], [1], [1, 1, 2, 5], [-3, 4, 4]])
def test_a_grouped_log_stays_as_it_is(visitor: list[int]) -> None:
    order = order_by_visitor(np.array(visitor, np.int64), np.arange(len(visitor)))
    assert order.dtype == np.int32
    assert order.tolist() == list(range(len(visitor)))


def test_visitors_come_in_the_order_of_their_first_event_in_time() -> None:
    visitor, time = np.array([9, 4, 9, 4, 6]), np.array([20, 10, 10, 10, 30])
    assert order_by_visitor(visitor, time).tolist() == [1, 3, 2, 0, 4]
