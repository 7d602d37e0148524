"""Readers: a file in the log's own columns in, canonical events out; bad rows named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from features.errors import EventError
from features.events import ADD_TO_CART, EVENT_NAMES, PAGE_VIEW, PURCHASE, hash64
from features.pseudonyms import Pseudonymiser, load_key
from features.settings import SettingsError
from features.shop import ShopSettings, load_shop
from features.sources import read_events
from tests.shared import TAOBAO

KEY = Pseudonymiser(b"0123456789abcdef")
SHOP = load_shop()
HEAD = (
    "visitor_id,session_id,event_id,time,event,path,product_id,category,price,quantity,value,currency,channel,device\n"
)
ROW = "jane,s1,e1,2026-01-05T10:00:00Z,pageview,/p/123?utm=x,,,,,,,organic,mobile\n"


def read(tmp_path: Path, text: str, shop: ShopSettings = SHOP) -> pd.DataFrame:
    path = tmp_path / "log.csv"
    path.write_text(text)
    return read_events("csv", path, shop, KEY)


def test_taobao_has_the_published_numbers() -> None:
    whole = SHOP.model_copy(
        update={"sources": {"taobao": SHOP.source("taobao").model_copy(update={"start": None, "end": None})}}
    )
    assert len(read_events("taobao", TAOBAO, whole, KEY)) == 45_183
    events = read_events("taobao", TAOBAO, SHOP, KEY)
    assert len(events) == pytest.approx(45_163, abs=10)  # some 20 lie outside the nine days
    assert (events["name"] == PURCHASE).sum() == pytest.approx(854, abs=3)
    assert set(events["utc_offset"]) == {480}
    assert events["visitor"].nunique() == pytest.approx(413, abs=2)


def test_csv_becomes_canonical(tmp_path: Path) -> None:
    events = read(tmp_path, HEAD + ROW + "jane,s1,e2,2026-07-05T10:00:01.5Z,cart_add,/cart,sku-1,shoes,10,2,20,USD,,\n")
    first, second = events.iloc[0], events.iloc[1]
    assert first["visitor"] == second["visitor"] == KEY.visitor("jane")
    assert (first["name"], second["name"]) == (PAGE_VIEW, ADD_TO_CART)
    assert first["page"] == hash64("/p/:id")
    assert (first["price"], first["quantity"]) == (0, 1)
    assert second["price"] == pytest.approx(9.2)
    assert second["item"] == hash64("sku-1")
    assert second["time"] == pd.Timestamp("2026-07-05T10:00:01.5Z").value // 1_000_000
    assert (first["utc_offset"], second["utc_offset"]) == (60, 120)  # Berlin, winter and summer


def test_an_empty_file_with_columns_gives_no_events(tmp_path: Path) -> None:
    assert len(read(tmp_path, HEAD)) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("visitor_id,time\n", "no column 'session_id', which .* maps to 'session'; found: visitor_id, time"),
        (HEAD + ROW + ROW.replace("2026-01-05T10:00:00Z", "yesterday"), "row 1: time is 'yesterday'; expected a time"),
        (HEAD + ROW + ROW.replace("pageview", "kaufen"), r"unknown event 'kaufen' in row 1; .*map it in .*\[events\]"),
        (HEAD + ROW.replace("jane", ""), "row 0: visitor is .*; expected a value in every row"),
        (HEAD + ROW.replace(",,,,,,,organic", ",,,NaN,,,,organic"), "row 0: price is .*; expected a finite number"),
        (HEAD + ROW.replace(",,,,,,,organic", ",,,ten,,,,organic"), "row 0: price is 'ten'; expected a number"),
        (HEAD + ROW.replace(",,,,,,,organic", ",,,,-3,,,organic"), "row 0: quantity is -3.0; expected a finite"),
        (HEAD + ROW.replace(",,,,,,,organic", ",,,5,,,JPY,organic"), "row 0: no rate for currency 'JPY'"),
        (HEAD + ROW.replace("organic", "carrier pigeon"), "unknown channel 'carrier pigeon' in row 0; known"),
        (HEAD + ROW + "jane,s1\n", "cannot be read"),
    ],
)  # fmt: skip
def test_bad_rows_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EventError, match=message):
        read(tmp_path, text)


def test_unknown_events_can_fold_into_custom(tmp_path: Path) -> None:
    events = read(
        tmp_path, HEAD + ROW.replace("pageview", "kaufen"), SHOP.model_copy(update={"unknown_events": "custom"})
    )
    assert EVENT_NAMES[events["name"].item()] == "custom"


def test_unknown_sources_and_files_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="unknown source 'matomo'; configs/shop.toml has: csv, lotse, taobao"):
        read_events("matomo", "x", SHOP, KEY)
    with pytest.raises(EventError, match="no file"):
        read_events("csv", tmp_path / "none.csv", SHOP, KEY)


def test_a_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "data" / "pseudonym.key"
    key = load_key(path)
    assert load_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert Pseudonymiser(key).visitor("jane") != KEY.visitor("jane")
