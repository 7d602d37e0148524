"""Factories for the shapes that come up again and again: count, total, latest, largest, since, decayed, distinct.

Each takes the name and the docstring of what it declares, adds the fields it needs to the catalogue and, where that is
useful, a feature. `when` picks events by name (one code or several); without it every event counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from features.declare import CATALOGUE, Catalogue, Scope
from features.events import PAGE_KIND_OF

When = int | Sequence[int] | None

LN2: Final = 0.6931471805599453
# Half-lives that come from one exponential, in seconds, and how often it is squared: 480 s, 120 s (/4), 30 s (/16).
SHARED_HALF_LIVES: Final = {480.0: 0, 120.0: 2, 30.0: 4}
SHARED_RATE: Final = LN2 / 480_000.0
# Three bits for each event name that may open a page; all of those are among the first 20 names.
PACKED_NAMES: Final = 20
PAGE_KINDS_PACKED: Final = sum(kind << 3 * name for name, kind in PAGE_KIND_OF.items())
# 24.8 days: four bytes, so that a record and its path lie five to a page of the embedded store.
LONGEST_DWELL_MS: Final = 2**31 - 1
# One word of a bit set holds 63 bits: the sign stays out of the way of shifts, in compiled code and in plain Python.
WORD_BITS: Final = 63


def count(
    name: str,
    doc: str,
    *,
    when: When = None,
    feature: bool = True,
    consent: str = "",
    scope: Scope = "session",
    catalogue: Catalogue = CATALOGUE,
) -> None:
    """How many events there were.

    >>> from features.events import ADD_TO_CART
    >>> shop = Catalogue()
    >>> count("cart_adds", "Products put in the cart.", when=ADD_TO_CART, catalogue=shop)
    >>> shop.features["cart_adds"].doc
    'Products put in the cart.'
    """
    if when is None:

        def body(previous: int) -> int:
            return previous + 1

        inputs = {"previous": name}
    else:
        codes = _codes(when)

        def body(previous: int, event: int) -> int:  # type: ignore[misc]
            return previous + ((codes >> event) & 1)

        inputs = {"previous": name, "event": "name"}
    catalogue.add_field(name, "i4", body, scope=scope, doc=doc, inputs=inputs)
    if feature:
        catalogue.expose(name, consent=consent)


def total(
    name: str,
    doc: str,
    *,
    of: str,
    when: When = None,
    feature: bool = True,
    unit: str = "",
    catalogue: Catalogue = CATALOGUE,
) -> None:
    """The sum of the event column or field `of`."""
    codes = _codes(when)

    def body(previous: float, value: float, event: int) -> float:
        return previous + (value if (codes >> event) & 1 else 0.0)

    catalogue.add_field(name, "f8", body, doc=doc, inputs={"previous": name, "value": of, "event": "name"})
    if feature:
        catalogue.expose(name, unit=unit)


def latest(
    name: str,
    doc: str,
    *,
    of: str,
    dtype: str,
    when: When = None,
    feature: bool = True,
    unit: str = "",
    catalogue: Catalogue = CATALOGUE,
) -> None:
    """The value of `of` at the latest event picked by `when`; 0 before the first."""
    codes = _codes(when)

    def body(previous: float, value: float, event: int) -> float:
        return value if (codes >> event) & 1 else previous

    catalogue.add_field(name, dtype, body, doc=doc, inputs={"previous": name, "value": of, "event": "name"})
    if feature:
        catalogue.expose(name, unit=unit)


def answered(name: str, doc: str, *, of: str, consent: str = "", catalogue: Catalogue = CATALOGUE) -> None:
    """The latest value of `of` that is not 0, which stands for "none"."""

    def body(previous: float, value: float) -> float:
        return value if value != 0.0 else previous

    catalogue.add_field(name, "f8", body, doc=doc, inputs={"previous": name, "value": of})
    catalogue.expose(name, consent=consent)


def largest(
    name: str,
    doc: str,
    *,
    of: str,
    when: When = None,
    feature: bool = True,
    unit: str = "",
    catalogue: Catalogue = CATALOGUE,
) -> None:
    """The largest value of `of`, not below 0."""
    codes = _codes(when)

    def body(previous: float, value: float, event: int) -> float:
        return max(previous, value) if (codes >> event) & 1 else previous

    catalogue.add_field(name, "f8", body, doc=doc, inputs={"previous": name, "value": of, "event": "name"})
    if feature:
        catalogue.expose(name, unit=unit)


def since(name: str, doc: str, *, when: When, unit: str = "s", catalogue: Catalogue = CATALOGUE) -> None:
    """Seconds since the latest event picked by `when`, as of now; -1 before the first."""
    at = f"{name}_at"

    def value(now: int, at: int) -> float:
        return (now - at) * 0.001 if at > 0 else -1.0

    latest(at, f"{doc} (time)", of="time", dtype="i8", when=when, feature=False, catalogue=catalogue)
    catalogue.add_feature(name, value, doc=f"{doc}; -1 before the first.", unit=unit, inputs={"at": at})


def decayed(
    name: str, doc: str, *, half_life_seconds: float, when: When = None, catalogue: Catalogue = CATALOGUE
) -> None:
    """The number of events, each counting half after every `half_life_seconds`: exponential decay, read as of now.

    The field holds the value at the latest event, `last_at` its time: v <- v * 2^(-gap / half-life) + 1. Half-lives of
    480 seconds and its halves, quarters, ... share one exponential: the compiler computes it once, the others are its
    powers, which takes three multiplications where an exponential takes 10 ns.
    """
    codes = _codes(when)
    at_event = f"{name}_at_event"
    squarings = SHARED_HALF_LIVES.get(half_life_seconds)
    if squarings is None:
        rate = LN2 / (half_life_seconds * 1000.0)

        def body(previous: float, time: int, last_at: int, event: int) -> float:
            return previous * math.exp(-rate * (time - last_at)) + ((codes >> event) & 1)

        def value(at: float, now: int, last_at: int) -> float:
            return at * math.exp(-rate * (now - last_at)) if now > last_at else at

    elif squarings == 0:

        def body(previous: float, time: int, last_at: int, event: int) -> float:
            return previous * math.exp(-SHARED_RATE * (time - last_at)) + ((codes >> event) & 1)

        def value(at: float, now: int, last_at: int) -> float:
            return at * math.exp(-SHARED_RATE * (now - last_at)) if now > last_at else at

    elif squarings == 2:

        def body(previous: float, time: int, last_at: int, event: int) -> float:
            return previous * fourth_power(math.exp(-SHARED_RATE * (time - last_at))) + ((codes >> event) & 1)

        def value(at: float, now: int, last_at: int) -> float:
            return at * fourth_power(math.exp(-SHARED_RATE * (now - last_at))) if now > last_at else at

    else:

        def body(previous: float, time: int, last_at: int, event: int) -> float:
            power = fourth_power(fourth_power(math.exp(-SHARED_RATE * (time - last_at))))
            return previous * power + ((codes >> event) & 1)

        def value(at: float, now: int, last_at: int) -> float:
            return at * fourth_power(fourth_power(math.exp(-SHARED_RATE * (now - last_at)))) if now > last_at else at

    catalogue.add_field(at_event, "f8", body, doc=doc, inputs={"previous": at_event, "event": "name"})
    catalogue.add_feature(name, value, doc=doc, unit="events", inputs={"at": at_event})


def dwell(name: str, doc: str, *, kind: int, catalogue: Catalogue = CATALOGUE) -> None:
    """Seconds spent on pages of one kind up to the latest event: the time after an event belongs to the open page."""
    field_name = f"{name}_ms"

    def body(previous: int, page_kind: int, time: int, last_at: int) -> int:
        return min(previous + (time - last_at if page_kind == kind else 0), LONGEST_DWELL_MS)

    def seconds(milliseconds: int) -> float:
        return milliseconds * 0.001

    catalogue.add_field(field_name, "i4", body, doc=doc, inputs={"previous": field_name})
    catalogue.add_feature(name, seconds, doc=doc, unit="s", inputs={"milliseconds": field_name})


def opened_page_kind(name: int) -> int:
    """The kind of page that an event of this name opens, 0 for one that stays on the page."""
    return (PAGE_KINDS_PACKED >> (3 * name)) & 7 if name < PACKED_NAMES else 0


def fourth_power(value: float) -> float:
    """value^4, by squaring twice: the same bits in compiled code and in plain Python."""
    square = value * value
    return square * square


def distinct(
    name: str,
    doc: str,
    *,
    of: str,
    words: int = 1,
    feature: bool = True,
    catalogue: Catalogue = CATALOGUE,
) -> None:
    """About how many different values of the hash column `of` there were: a bit set of 63 bits a word, 0 left out.

    A value that sets a new bit adds bits / empty bits: the martingale estimator on a linear-counting bit map (Ting,
    "Streamed approximate counting of distinct elements", KDD 2014). Exact for the first, 1 % low at most for the
    second; standard error about 7 % at 20 values and 63 bits. A full set stays where it is (about 300 at 63 bits).
    """
    bits = words * WORD_BITS
    seen = [f"{name}_bits_{word}" for word in range(words)]
    for word in range(words):
        _bit_word(seen[word], doc, of, word, bits, catalogue)
    if words == 1:

        def body(previous: float, bits_0: int, key: int) -> float:
            return previous + new_bit_weight(bits_0, 0, bits, key)

    elif words == 2:

        def body(previous: float, bits_0: int, bits_1: int, key: int) -> float:  # type: ignore[misc]
            return previous + new_bit_weight(bits_0, bits_1, bits, key)

    else:
        raise ValueError(f"distinct({name!r}, words={words}); allowed: 1 or 2")
    inputs = {"previous": name, "key": of, **{f"bits_{word}": seen[word] for word in range(words)}}
    catalogue.add_field(name, "f8", body, doc=doc, inputs=inputs)
    if feature:
        catalogue.expose(name)


def _bit_word(name: str, doc: str, of: str, word: int, bits: int, catalogue: Catalogue) -> None:
    def body(previous: int, key: int) -> int:
        return previous | bit_of(key, word, bits)

    catalogue.add_field(name, "i8", body, doc=f"{doc} (bit set)", inputs={"previous": name, "key": of})


def bit_of(key: int, word: int, bits: int) -> int:
    """The bit of `key` in this word, or 0: where the key has its bit in another word, or is 0 (no value)."""
    place = (key >> 1) % bits - word * WORD_BITS
    return 1 << place if key != 0 and 0 <= place < WORD_BITS else 0


def new_bit_weight(bits_0: int, bits_1: int, bits: int, key: int) -> float:
    """bits / empty bits if `key` sets a bit that was empty, else 0."""
    known = bits_0 & bit_of(key, 0, bits) | bits_1 & bit_of(key, 1, bits)
    return bits / (bits - popcount(bits_0) - popcount(bits_1)) if known == 0 and key != 0 else 0.0


def popcount(word: int) -> int:
    """Number of set bits of a word of up to 63 bits, by adding neighbours (Hacker's Delight, 5-1)."""
    word = word - ((word >> 1) & 0x5555555555555555)
    word = (word & 0x3333333333333333) + ((word >> 2) & 0x3333333333333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F0F0F0F0F
    word = word + (word >> 8)
    word = word + (word >> 16)
    word = word + (word >> 32)
    return word & 0x7F


def _codes(when: When) -> int:
    """The picked event names as a bit mask: one shift in compiled code, however many names; all bits for any name."""
    if when is None:
        return -1
    return sum(1 << int(code) for code in {*((when,) if isinstance(when, int) else when)})
