"""Mistakes in a declaration are refused with the place, what was found and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from features import memory
from features.compiler import compile_fold
from features.declare import Catalogue, CatalogueError
from features.events import ADD_TO_CART, PURCHASE, Event
from tests.sessions import START

STEP = 2


def doubled(value: int) -> int:
    return value * STEP


def small() -> Catalogue:
    catalogue = Catalogue()

    @catalogue.field("i4", feature=True)
    def cart_adds(cart_adds: int, name: int) -> int:
        """Products put in the cart so far."""
        return cart_adds + (name == ADD_TO_CART)

    @catalogue.feature
    def twice(cart_adds: int) -> int:
        """Twice the products."""
        return doubled(cart_adds)

    return catalogue


def run(catalogue: Catalogue, *names: int) -> dict[str, float]:
    fold = compile_fold(catalogue)
    record, out = fold.new_record(), fold.new_row()
    for second, name in enumerate(names):
        fold.advance(
            record, out, 1_800_000, fold.nothing_learned, *Event(visitor=1, time=START + second * 1000, name=name)
        )
    return dict(zip(fold.names, out.tolist(), strict=True))


def test_a_small_catalogue_folds() -> None:
    assert run(small(), ADD_TO_CART, PURCHASE, ADD_TO_CART) == {"cart_adds": 2.0, "twice": 4.0}


def test_unknown_parameter_names_the_nearest() -> None:
    catalogue = small()

    @catalogue.feature
    def typo(cart_add: int) -> int:
        """Misspelled."""
        return cart_add

    with pytest.raises(
        CatalogueError, match=r"'typo' at test_declare.py:\d+ asks for unknown 'cart_add'; did you mean"
    ):
        catalogue.check()


def test_identity_is_no_input() -> None:
    catalogue = Catalogue()

    @catalogue.field("i8")
    def who(visitor: int) -> int:
        """Who it is."""
        return visitor

    with pytest.raises(CatalogueError, match="unknown 'visitor'"):
        catalogue.check()


def test_a_circle_is_named() -> None:
    catalogue = Catalogue()

    @catalogue.feature
    def hen(egg: int) -> int:
        """First."""
        return egg

    @catalogue.feature
    def egg(hen: int) -> int:
        """Second."""
        return hen

    with pytest.raises(CatalogueError, match="circle: .*hen.*egg|circle: .*egg.*hen"):
        catalogue.check()


def test_a_duplicate_names_both_places() -> None:
    catalogue = small()
    with pytest.raises(CatalogueError, match=r"declared already at test_declare.py:\d+"):

        @catalogue.feature
        def twice(cart_adds: int) -> int:
            """Again."""
            return cart_adds


def test_a_missing_docstring() -> None:
    with pytest.raises(CatalogueError, match="has no docstring; write one sentence"):

        @Catalogue().feature
        def silent(now: int) -> int:
            return now


def test_an_unknown_dtype() -> None:
    with pytest.raises(CatalogueError, match="dtype 'u8'; allowed: i8"):

        @Catalogue().field("u8")
        def wide(wide: int) -> int:
            """Too wide."""
            return wide


def test_the_name_of_an_event_column() -> None:
    with pytest.raises(CatalogueError, match="the name of an event column"):

        @Catalogue().field("i8")
        def price(price: float) -> float:
            """Taken."""
            return price


def test_a_body_that_reaches_what_cannot_be_compiled() -> None:
    catalogue = Catalogue()
    table = {1: 2}

    @catalogue.feature
    def looked_up(now: int) -> int:
        """By a dict."""
        return table[now]

    with pytest.raises(CatalogueError, match="uses 'table', which is a dict; allowed: numbers"):
        compile_fold(catalogue)


def test_a_body_that_numba_cannot_compile_is_named_with_its_place() -> None:
    catalogue = small()

    @catalogue.feature
    def spelled(cart_adds: int) -> int:
        """A text and a number."""
        if cart_adds > 3:
            return cart_adds
        letter = "a"
        return letter + cart_adds  # type: ignore[operator, no-any-return]

    place = rf"test_declare.py:{spelled.__code__.co_firstlineno}"
    with pytest.raises(CatalogueError, match=rf"feature 'spelled' \({place}\) cannot be compiled: .*add"):
        compile_fold(catalogue)


def summed(value: int) -> int:
    total = ()
    for _ in range(3):
        total = total + value  # type: ignore[operator]
    return total  # type: ignore[return-value]


def test_a_helper_that_numba_cannot_compile_is_named_with_who_calls_it() -> None:
    catalogue = small()

    @catalogue.field("i4")
    def three_times(name: int) -> int:
        """By a helper that adds a number to a tuple."""
        return summed(name)

    place = rf"test_declare.py:{summed.__code__.co_firstlineno}"
    with pytest.raises(CatalogueError, match=rf"'summed' \({place}\).*cannot be compiled"):
        compile_fold(catalogue)


def test_the_steps_of_a_longer_body_are_pasted_with_its_branches() -> None:
    catalogue = Catalogue()

    @catalogue.field("f8", feature=True)
    def balance(balance: float, name: int, quantity: float) -> float:
        """Adds less purchases; nothing goes below zero."""
        change = quantity
        if name == ADD_TO_CART:
            return balance + change
        if name == PURCHASE:
            change = -2.0 * quantity
            if balance + change < 0.0:
                return 0.0
        else:
            change = 0.0
        return balance + change

    assert run(catalogue, ADD_TO_CART, ADD_TO_CART, ADD_TO_CART)["balance"] == 3.0
    assert run(catalogue, ADD_TO_CART, ADD_TO_CART, ADD_TO_CART, PURCHASE)["balance"] == 1.0
    assert run(catalogue, ADD_TO_CART, PURCHASE)["balance"] == 0.0
    assert run(catalogue, ADD_TO_CART, 1)["balance"] == 1.0


def test_fields_update_at_once_whatever_their_order() -> None:
    def swapped(first: bool) -> Catalogue:
        catalogue = Catalogue()

        def previous_name(current_name: int) -> int:
            """The name before."""
            return current_name

        def current_name(name: int) -> int:
            """The name now."""
            return name

        for body in (previous_name, current_name) if first else (current_name, previous_name):
            catalogue.field("i4", feature=True)(body)
        return catalogue

    assert run(swapped(True), 3, 5) == run(swapped(False), 3, 5) == {"previous_name": 3.0, "current_name": 5.0}


def test_the_digest_covers_helpers_and_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    before = compile_fold(small())
    assert compile_fold(small()).digest == before.digest
    monkeypatch.setattr("tests.features.test_declare.STEP", 3)
    after = compile_fold(small())
    assert after.digest != before.digest
    assert after.field_digest == before.field_digest  # the record is the same: only a feature has changed
    assert run(small(), ADD_TO_CART)["twice"] == 3.0


def test_a_changed_helper_is_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    before = compile_fold(small())

    def doubled(value: int) -> int:
        return value * STEP + 1

    monkeypatch.setattr("tests.features.test_declare.doubled", doubled)
    assert compile_fold(small()).digest != before.digest
    assert run(small(), ADD_TO_CART)["twice"] == 3.0
    monkeypatch.undo()
    assert compile_fold(small()).digest == before.digest
    assert run(small(), ADD_TO_CART)["twice"] == 2.0


def test_the_digest_covers_how_memory_is_read_and_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = compile_fold(small())
    changed = tmp_path / "memory.py"
    changed.write_text(Path(memory.__file__).read_text() + "# another one\n")
    monkeypatch.setattr(memory, "__file__", str(changed))
    assert compile_fold(small()).digest != before.digest


def test_a_selection_takes_what_it_needs() -> None:
    chosen = small().select(["twice"])
    assert list(chosen.fields) == ["cart_adds"]
    assert run(chosen, ADD_TO_CART)["twice"] == 2.0
    with pytest.raises(CatalogueError, match="unknown 'thrice'"):
        small().select(["thrice"])
