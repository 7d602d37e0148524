"""The canonical table: what passes, and the error that names row, column and expectation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from features import events as vocabulary
from features.errors import EventError
from features.events import COLUMNS, EVENT_NAMES, Event, check_events
from tests.sessions import START, table


def good() -> pd.DataFrame:
    return table([Event(visitor=1, time=START, name=1), Event(visitor=2, time=START + 5, name=4, price=2.0)])


def test_codes_are_positions_and_columns_are_the_event() -> None:
    for code, name in enumerate(EVENT_NAMES):
        assert getattr(vocabulary, name.upper()) == code
    assert tuple(COLUMNS) == Event._fields
    assert {n: c.default for n, c in COLUMNS.items() if n in Event._field_defaults} == Event._field_defaults


def test_missing_columns_get_their_defaults() -> None:
    checked = check_events(pd.DataFrame({"visitor": [7], "time": [START], "name": [17]}))
    assert list(checked) == list(COLUMNS)
    assert {name: str(checked[name].dtype) for name in checked} == {
        name: str(np.dtype(column.dtype)) for name, column in COLUMNS.items()
    }
    assert checked["quantity"].item() == 1
    assert checked["interactive"].item() == 0  # a scroll is passive


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="time"), "no column 'time'"),
        (lambda t: t.assign(email=1), "unknown event column 'email'"),
        (lambda t: t.assign(time=[START, START // 1000]), "row 1: time is 1700000000; expected milliseconds"),
        (lambda t: t.assign(name=[1, 77]), "row 1: name is 77; expected a code below"),
        (lambda t: t.assign(price=[1.0, np.nan]), "row 1: price is NaN"),
        (lambda t: t.assign(price=[np.inf, 1.0]), "row 0: price is inf; expected a finite number, 0 or more"),
        (lambda t: t.assign(quantity=[1.0, -2.0]), "row 1: quantity is -2.0; expected a finite number, 0 or more"),
        (lambda t: t.assign(consent=[1, 9]), "row 1: consent is 9"),
        (lambda t: t.assign(visitor=["a", "b"]), "column 'visitor' has type"),
        (lambda t: t.assign(name=[1.5, 1.0]), "row 0: name is .*1.5"),
        (lambda t: t.assign(utc_offset=[0, 5000]), "row 1: utc_offset is 5000"),
    ],
)
def test_a_bad_table_is_refused(change: object, message: str) -> None:
    assert callable(change)
    with pytest.raises(EventError, match=message):
        check_events(change(good()))
