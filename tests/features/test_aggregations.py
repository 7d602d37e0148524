"""The factories: events in, values out."""

from __future__ import annotations

import numpy as np
import pytest

from features.aggregations import count, decayed, distinct, largest, latest, popcount, total
from features.compiler import compile_fold
from features.declare import Catalogue
from features.events import ADD_TO_CART, PAGE_VIEW, VIEW_ITEM, Event
from tests.sessions import START


def values(catalogue: Catalogue, events: list[Event], later_ms: int = 0) -> dict[str, float]:
    fold = compile_fold(catalogue)
    record, out = fold.new_record(), fold.new_row()
    for event in events:
        fold.advance(record, out, 1_800_000, fold.nothing_learned, *event)
    fold.read(record, events[-1].time + later_ms, out, fold.nothing_learned)
    return dict(zip(fold.names, out.tolist(), strict=True))


def seen(*names: int, gap_seconds: float = 1, **columns: float) -> list[Event]:
    gap_ms = round(gap_seconds * 1000)
    return [Event(visitor=1, time=START + i * gap_ms, name=name, **columns) for i, name in enumerate(names)]  # type: ignore[arg-type]


def test_count_total_latest_largest() -> None:
    shop = Catalogue()
    count("all", "All.", catalogue=shop)
    count("either", "Two names.", when=(VIEW_ITEM, ADD_TO_CART), catalogue=shop)
    total("spent", "Sum.", of="price", when=ADD_TO_CART, catalogue=shop)
    latest("last_price", "Latest.", of="price", dtype="f8", when=VIEW_ITEM, catalogue=shop)
    largest("dearest", "Largest.", of="price", catalogue=shop)
    events = [
        Event(visitor=1, time=START, name=VIEW_ITEM, price=5),
        Event(visitor=1, time=START, name=ADD_TO_CART, price=5),
        Event(visitor=1, time=START, name=PAGE_VIEW, price=9),
        Event(visitor=1, time=START, name=VIEW_ITEM, price=2),
    ]
    assert values(shop, events) == {"all": 4, "either": 3, "spent": 5, "last_price": 2, "dearest": 9}


def test_decayed_halves_after_a_half_life() -> None:
    shop = Catalogue()

    @shop.field("i8")
    def last_at(time: int) -> int:
        """Latest."""
        return time

    decayed("pulse", "Activity.", half_life_seconds=60, catalogue=shop)
    assert values(shop, seen(PAGE_VIEW))["pulse"] == 1
    assert values(shop, seen(PAGE_VIEW), later_ms=60_000)["pulse"] == pytest.approx(0.5)
    assert values(shop, seen(PAGE_VIEW, PAGE_VIEW, gap_seconds=60))["pulse"] == pytest.approx(1.5)


@pytest.mark.parametrize(("words", "most"), [(1, 40), (2, 80)])
def test_distinct_is_near_the_truth(words: int, most: int) -> None:
    shop = Catalogue()
    distinct("items", "Items.", of="item", words=words, catalogue=shop)
    random = np.random.default_rng(3)
    errors = []
    for _ in range(100):
        true = int(random.integers(1, most))
        items = random.integers(-(2**62), 2**62, true)
        events = [Event(visitor=1, time=START, name=VIEW_ITEM, item=int(i)) for i in [*items, *items]]
        errors.append(values(shop, events)["items"] / true - 1)
    assert abs(np.mean(errors)) < 0.03
    assert np.std(errors) < 0.12


def test_distinct_leaves_out_events_without_a_value_and_holds_when_full() -> None:
    shop = Catalogue()
    distinct("items", "Items.", of="item", catalogue=shop)
    assert values(shop, seen(VIEW_ITEM, VIEW_ITEM))["items"] == 0
    many = [Event(visitor=1, time=START, name=VIEW_ITEM, item=i * 2) for i in range(1, 5000)]
    assert 200 < values(shop, many)["items"] < 400


@pytest.mark.parametrize("word", [0, 1, 2**62, 2**63 - 1, 0x5A5A5A5A5A5A5A5])
def test_popcount(word: int) -> None:
    assert popcount(word) == word.bit_count()
