"""The Adobe Analytics reader: hits of a data feed as Adobe documents them in, canonical events out."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from features.errors import EventError
from features.events import CHANNELS, CONSENT_MEASURE, DEVICES, EVENT_NAMES, hash64
from features.pseudonyms import Pseudonymiser
from features.shop import ShopSettings
from features.sources import concatenate, open_source, read_chunks
from features.sources.adobe_events import products
from features.sources.adobe_hit import (
    BACKGROUND,
    EXCLUDED,
    NO_VISITOR,
    REPEATED_PURCHASE,
    TARGET,
    UPLOADED,
    event_numbers,
)
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM, Notes

KEY = Pseudonymiser(b"0123456789abcdef")
SHOP = ShopSettings(rates={"USD": 0.5})
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36"
HIT = {
    "hitid_high": "3001",
    "hitid_low": "4001",
    "post_visid_high": "1001",
    "post_visid_low": "2001",
    "post_visid_type": "5",
    "visit_num": "2",
    "visit_start_time_gmt": "1767603600",
    "visit_page_num": "1",
    "hit_time_gmt": "1767603605",
    "post_cust_hit_time_gmt": "1767603600",
    "date_time": "2026-01-05 10:00:00",
    "ip": "192.0.2.7",
    "exclude_hit": "0",
    "hit_source": "1",
    "post_page_event": "0",
    "page_url": "https://shop.example/p/123?utm_source=x",
    "post_page_url": "https://shop.example/p/123?ref=x",
    "post_pagename": "shop:product",
    "post_referrer": "https://www.google.com/",
    "ref_type": "3",
    "paid_search": "0",
    "post_campaign": "",
    "va_closer_id": "4",
    "post_event_list": "",
    "post_product_list": "",
    "currency": "USD",
    "post_currency": "USD",
    "duplicate_purchase": "0",
    "post_purchaseid": "",
    "user_agent": CHROME,
    "mobile_id": "0",
    "post_t_time_info": "5/0/2026 10:0:0 1 -60",
    "post_customer_perspective": "0",
    "dataprivacyconsentoptout": "",
    "post_evar1": "",
}
EVENTS = "1\tPurchase\n12\tCart Add\n100\tInstance of eVar1\n211\tInternal Search\n20100\tCustom Event 101\n"


def row(hit: dict[str, str]) -> str:
    return "\t".join(hit[name] for name in HIT) + "\n"


def feed(folder: Path, *hits: dict[str, str], headers: dict[str, str] = HIT) -> Path:
    """A folder with the hits and their lookup files, all loose."""
    folder.mkdir(exist_ok=True)
    (folder / "hit_data.tsv").write_text("".join("\t".join(hit[name] for name in headers) + "\n" for hit in hits))
    (folder / "column_headers.tsv").write_text("\t".join(headers) + "\n")
    (folder / "event.tsv").write_text(EVENTS)
    (folder / "browser.tsv").write_text("1\tSome browser\n")
    return folder


def read(path: Path, chunk_rows: int = 100_000, **overrides: Any) -> tuple[pd.DataFrame, Notes]:
    reader, reading = open_source("adobe", path, SHOP, KEY, chunk_rows=chunk_rows, overrides=overrides)
    return concatenate(list(read_chunks(reader, reading))), reading.notes


def read_hits(tmp_path: Path, *hits: dict[str, str], **overrides: Any) -> tuple[pd.DataFrame, Notes]:
    return read(feed(tmp_path / "feed", *hits), **overrides)


def names(events: pd.DataFrame) -> list[str]:
    return [EVENT_NAMES[name] for name in events["name"]]


def test_a_page_view_becomes_canonical(tmp_path: Path) -> None:
    events, notes = read_hits(tmp_path, HIT)
    event = events.iloc[0]
    assert names(events) == ["page_view"]
    assert event["visitor"] == KEY.visitor("1001-2001")
    assert (event["session"], event["id"]) == (hash64("1001-2001-2-1767603600"), hash64("3001-4001"))
    assert event["time"] == 1_767_603_600_000  # the visitor's clock, not Adobe's
    assert event["page"] == hash64("/p/:id")
    assert (CHANNELS[int(event["channel"])], DEVICES[int(event["device"])]) == ("organic", "desktop")
    assert (event["utc_offset"], event["consent"], event["interactive"]) == (60, CONSENT_MEASURE, 1)
    assert notes == Notes(rows=1)


def test_a_purchase_is_one_event_a_product_with_unit_prices_and_the_revenue_once(tmp_path: Path) -> None:
    bought = {
        **HIT,
        "post_event_list": "1,100,200=5",
        "post_product_list": "Shoes;Runner;2;59.90;event1=3;eVar1=x,;Sock;10;30",
    }
    events, notes = read_hits(tmp_path, bought)
    assert names(events) == ["page_view", "purchase", "purchase"]
    assert list(events["id"]) == [hash64("3001-4001"), hash64("3001-4001/1"), hash64("3001-4001/2")]
    assert list(events["item"]) == [0, hash64("Runner"), hash64("Sock")]
    assert list(events["category"]) == [0, hash64("Shoes"), 0]
    assert list(events["price"]) == pytest.approx([0, 29.95, 3.0])
    assert list(events["quantity"]) == [1, 2, 10]
    assert list(events["value"]) == pytest.approx([0, 89.90, 0])  # in the report suite's currency already
    assert list(events["interactive"]) == [1, 0, 0]
    assert notes.rows == 1
    assert notes.unmapped == {"event1": 1}


def test_amounts_are_of_the_report_suite_or_of_the_hit_where_adobe_did_not_convert_them(tmp_path: Path) -> None:
    bought = {**HIT, "post_event_list": "1", "post_product_list": ";Runner;1;60.00"}
    events, _ = read_hits(tmp_path, bought, options={"currency": "USD"})
    assert events["value"].iloc[1] == 30.0
    headers = {{"post_product_list": "product_list"}.get(name, name): cell for name, cell in HIT.items()}
    events, _ = read(feed(tmp_path / "raw", {**bought, "product_list": ";Runner;1;50.00"}, headers=headers))
    assert events["value"].iloc[1] == 25.0


def test_a_repeated_purchase_is_left_out_and_its_page_view_kept(tmp_path: Path) -> None:
    bought = {**HIT, "post_event_list": "1", "post_product_list": ";a;1;5", "duplicate_purchase": "1"}
    events, notes = read_hits(tmp_path, bought)
    assert names(events) == ["page_view"]
    assert notes.skipped == {REPEATED_PURCHASE: 1}


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ("2", ["page_view", "view_item"]),
        ("10", ["page_view", "add_to_cart"]),
        ("10,12", ["page_view", "add_to_cart"]),
        ("13", ["page_view", "remove_from_cart"]),
        ("14", ["page_view", "view_cart"]),
        ("11", ["page_view", "begin_checkout"]),
        ("12:serial,2", ["page_view", "add_to_cart", "view_item"]),
        ("20,100,10000,500", ["page_view"]),
    ],
)
def test_shopping_events_have_our_names(tmp_path: Path, numbers: str, expected: list[str]) -> None:
    events, notes = read_hits(tmp_path, {**HIT, "post_event_list": numbers, "post_product_list": "c;a;1;8"})
    assert names(events) == expected
    assert not notes.unmapped
    for name, event in zip(expected, events.itertuples(), strict=True):
        assert event.item == (hash64("a") if name in ("view_item", "add_to_cart", "remove_from_cart") else 0)
        assert event.value == (8.0 if name in ("view_cart", "begin_checkout") else 0)


def test_a_view_of_several_products_is_a_list(tmp_path: Path) -> None:
    events, _ = read_hits(tmp_path, {**HIT, "post_event_list": "2", "post_product_list": "c;a,c;b"})
    assert names(events) == ["page_view", "view_item_list"]
    assert list(events["category"]) == [0, hash64("c")]


def test_custom_events_are_mapped_by_their_number_or_their_name(tmp_path: Path) -> None:
    hits = [{**HIT, "post_event_list": numbers} for numbers in ("211", "20100", "299,211")]
    events, notes = read_hits(tmp_path, *hits, events={"event12": "search", "event101": "sign_up"})
    assert names(events) == ["page_view", "search", "page_view", "sign_up", "page_view", "search"]
    assert notes.unmapped == {"event100": 1}
    events, _ = read_hits(tmp_path, hits[0], events={"Internal Search": "search"})
    assert names(events) == ["page_view", "search"]


def test_an_unknown_event_can_be_an_error(tmp_path: Path) -> None:
    hits = (HIT, {**HIT, "post_event_list": "211"})
    assert read_hits(tmp_path, *hits)[1].unmapped == {"event12 (Internal Search)": 1}
    with pytest.raises(EventError, match="unknown event 'event12' in row 1"):
        read_hits(tmp_path, *hits, unknown_events="error")


@pytest.mark.parametrize(
    ("column", "kind", "expected"),
    [
        ("post_page_event", "100", "click"),
        ("post_page_event", "101", "file_download"),
        ("post_page_event", "102", "click"),
        ("post_page_event", "76", "video_start"),
        ("post_page_event", "77", "video_progress"),
        ("post_page_event", "53", "video_progress"),
        ("post_page_event", "51", "video_complete"),
        ("post_page_event", "80", "custom"),
        ("page_event", "10", "click"),
        ("page_event", "11", "file_download"),
        ("page_event", "31", "video_start"),
    ],
)
def test_links_and_media_have_our_names(tmp_path: Path, column: str, kind: str, expected: str) -> None:
    headers = {{"post_page_event": column}.get(name, name): cell for name, cell in HIT.items()}
    hit = {**HIT, column: kind, "post_page_url": "", "page_url": ""}
    events, notes = read(feed(tmp_path / "feed", hit, headers=headers))
    assert names(events) == [expected]
    assert events["page"].item() == 0  # still on the page that is open
    assert not notes.unmapped


def test_a_custom_link_that_carries_an_event_is_that_event(tmp_path: Path) -> None:
    hit = {**HIT, "post_page_event": "100", "post_event_list": "12", "post_product_list": ";a;1"}
    events, _ = read_hits(tmp_path, hit)
    assert names(events) == ["add_to_cart"]
    assert (events["id"].item(), events["interactive"].item()) == (hash64("3001-4001"), 1)


def test_an_unknown_kind_of_hit_is_custom_and_counted(tmp_path: Path) -> None:
    events, notes = read_hits(tmp_path, {**HIT, "post_page_event": "99"})
    assert names(events) == ["custom"]
    assert notes.unmapped == {"page_event 99": 1}


def test_what_adobes_reports_leave_out_is_left_out_and_counted(tmp_path: Path) -> None:
    target = {**HIT, "post_page_event": "70"}
    events, notes = read_hits(
        tmp_path,
        HIT,
        {**HIT, "exclude_hit": "4"},
        *({**HIT, "hit_source": source} for source in "5789"),
        {**HIT, "hit_source": "10"},
        {**HIT, "post_customer_perspective": "1"},
        {**HIT, "post_visid_high": "0", "post_visid_low": "0"},
        target,
        {**target, "post_page_url": "", "page_url": "", "post_pagename": ""},
    )
    assert names(events) == ["page_view"] * 3
    assert notes.skipped == {EXCLUDED: 1, UPLOADED: 4, BACKGROUND: 1, NO_VISITOR: 1, TARGET: 1}
    assert notes.rows == 11


def test_a_visitor_known_by_address_only_is_another_one_in_each_visit(tmp_path: Path) -> None:
    by_address = {**HIT, "post_visid_type": "1"}
    opted_out = {**HIT, "dataprivacyconsentoptout": "SELL"}
    events, _ = read_hits(
        tmp_path, HIT, by_address, {**by_address, "visit_num": "3"}, opted_out, consent=("measure", "link")
    )
    assert list(events["visitor"]) == [
        KEY.visitor("1001-2001"),
        KEY.visitor("1001-2001-2-1767603600"),
        KEY.visitor("1001-2001-3-1767603600"),
        KEY.visitor("1001-2001"),
    ]
    assert list(events["consent"]) == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("cells", "channel", "campaign"),
    [
        ({"ref_type": "1"}, "internal", ""),
        ({"ref_type": "2"}, "referral", ""),
        ({"ref_type": "6", "post_referrer": ""}, "direct", ""),
        ({"ref_type": "7"}, "email", ""),
        ({"ref_type": "8"}, "unknown", ""),
        ({"ref_type": "9"}, "social", ""),
        ({"ref_type": "3", "paid_search": "1", "post_campaign": "spring"}, "paid", "spring"),
        ({"ref_type": "2", "post_page_url": "https://shop.example/?utm_medium=cpc&utm_campaign=may"}, "paid", "may"),
        ({"ref_type": ""}, "organic", ""),
        ({"ref_type": "6", "va_closer_id": "7"}, "email", ""),
    ],
)
def test_channels_come_from_marketing_channels_ads_and_the_type_of_referrer(
    tmp_path: Path, cells: dict[str, str], channel: str, campaign: str
) -> None:
    events, notes = read_hits(tmp_path, {**HIT, **cells}, options={"marketing_channels": {"7": "email"}})
    assert (CHANNELS[events["channel"].item()], events["campaign"].item()) == (channel, hash64(campaign))
    assert not notes.unmapped


def test_a_feed_without_user_agents_tells_devices_by_the_mobile_attributes(tmp_path: Path) -> None:
    folder = feed(
        tmp_path / "feed", *({**HIT, "user_agent": "", "mobile_id": number} for number in ("0", "11", "12", "13"))
    )
    (folder / "mobile_attributes.tsv").write_text("11\tAcme\tPad\tTablet\tOS\n12\tAcme\tOne\tMobile Phone\tOS\n")
    events, _ = read(folder)
    assert [DEVICES[device] for device in events["device"]] == ["unknown", "tablet", "mobile", "mobile"]


def test_an_app_has_its_pages_by_name_and_adobes_time_where_no_other_is(tmp_path: Path) -> None:
    hit = {
        **HIT,
        "page_url": "",
        "post_page_url": "",
        "post_cust_hit_time_gmt": "0",
        "post_t_time_info": "",
        "visit_num": "",
    }
    events, _ = read_hits(tmp_path, hit, timezone="Asia/Tokyo")
    assert (events["page"].item(), events["time"].item()) == (hash64("/shop:product"), 1_767_603_605_000)
    assert (events["session"].item(), events["utc_offset"].item()) == (0, 540)


def test_special_characters_are_taken_as_documented(tmp_path: Path) -> None:
    folder = feed(tmp_path / "feed", HIT)
    tabs = row({**HIT, "post_pagename": "a\\\tb", "post_evar1": "C:\\\\temp\\\\"})
    breaks = row({**HIT, "post_pagename": "a\\\nb\\\\\\\nc"})
    written = row({**HIT, "post_evar1": "a\\tb\\n", "post_product_list": "c^;d;x^,y^^;1;4", "post_event_list": "12"})
    (folder / "hit_data.tsv").write_bytes(
        (tabs + breaks + written).encode() + row(HIT).replace("123", "äöü").encode("latin-1")
    )
    events, notes = read(folder)
    assert names(events) == ["page_view"] * 3 + ["add_to_cart", "page_view"]
    assert events["item"].iloc[3] == hash64("x,y^")
    assert events["category"].iloc[3] == hash64("c;d")
    assert events["page"].iloc[4] == hash64("/p/äöü")
    assert notes.rows == 4


def test_product_and_event_lists_are_split_at_their_own_separators() -> None:
    assert products("") == products(",;;;") == []
    assert [each.item for each in products(";a,b;c;1")] == ["a", "c"]
    assert [each.record()["price"] for each in products(";a;0;5,;b;;6,;c;3;9")] == [5.0, 6.0, 3.0]
    assert event_numbers("") == []
    assert event_numbers("1=3,200:x,14") == ["1", "200", "14"]


def _tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


HEADERS = ("\t".join(HIT) + "\n").encode()


def test_parts_are_read_with_the_lookup_archive_of_their_own_day(tmp_path: Path) -> None:
    turned = dict(reversed(HIT.items()))  # a feed whose columns were rearranged on the next day
    days = {"2026-01-05": HIT, "2026-01-06": turned}
    for day, headers in days.items():
        for number in (1, 2):
            cells = {**headers, "hitid_low": f"{day}/{number}"}
            (tmp_path / f"0{number}-suite_{day}.tsv.gz").write_bytes(
                gzip.compress("\t".join(cells.values()).encode() + b"\n")
            )
        lookup = {"column_headers.tsv": ("\t".join(headers) + "\n").encode(), "event.tsv": EVENTS.encode()}
        _tar(tmp_path / f"suite_{day}-lookup_data.tar.gz", lookup)
        (tmp_path / f"suite_{day}.txt").write_text("Datafeed-Manifest-Version: 1.0\n")
    events, notes = read(tmp_path)
    assert list(events["id"]) == [hash64(f"3001-{day}/{number}") for number in (1, 2) for day in days]
    assert set(events["visitor"]) == {KEY.visitor("1001-2001")}
    assert notes == Notes(rows=4)
    one, _ = read(tmp_path / "02-suite_2026-01-06.tsv.gz")
    assert list(one["id"]) == [hash64("3001-2026-01-06/2")]


def test_a_daily_archive_holds_all_it_needs(tmp_path: Path) -> None:
    content = {"hit_data.tsv": row(HIT).encode() * 3, "column_headers.tsv": HEADERS, "browser.tsv": b"1\tx\n"}
    _tar(tmp_path / "suite_2026-01-05.tar.gz", content)
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        entry = tarfile.TarInfo("column_headers.tsv")
        entry.size = len(HEADERS)
        archive.addfile(entry, io.BytesIO(HEADERS))
    _tar(
        tmp_path / "suite_2026-01-06.tar.gz",
        {"hit_data.tsv": row(HIT).encode(), "suite_2026-01-06-lookup_data.tar.gz": inner.getvalue()},
    )
    with zipfile.ZipFile(tmp_path / "suite_2026-01-07.zip", "w") as zipped:
        for name, text in content.items():
            zipped.writestr(name, text)
    assert [len(read(path)[0]) for path in sorted(tmp_path.iterdir())] == [3, 1, 3]
    assert len(read(tmp_path)[0]) == 7


def test_small_chunks_give_the_same_table(tmp_path: Path) -> None:
    hits = [
        {**HIT, "hitid_low": str(number), "post_event_list": "1", "post_product_list": ";a;1;5,;b;2;8"}
        for number in range(5)
    ]
    folder = feed(tmp_path / "feed", *hits)
    small, whole = read(folder, chunk_rows=2)[0], read(folder)[0]
    assert len(whole) == 15
    pd.testing.assert_frame_equal(small, whole)


def test_a_file_that_ends_in_the_middle_of_a_row_loses_that_row_only(tmp_path: Path) -> None:
    folder = feed(tmp_path / "feed", HIT, HIT)
    text = (folder / "hit_data.tsv").read_text()
    (folder / "hit_data.tsv").write_text(text[:-100])
    events, notes = read(folder)
    assert len(events) == 1
    assert notes.skipped == {CUT_OFF: 1}
    assert notes.rows == 2


def test_compressed_files_that_end_early_give_what_is_there(tmp_path: Path) -> None:
    rows = "".join(row({**HIT, "hitid_low": f"{number * 7919:x}"}) for number in range(3000)).encode()
    folder = feed(tmp_path / "feed")
    (folder / "hit_data.tsv").unlink()
    (folder / "hit_data.tsv.gz").write_bytes(gzip.compress(rows)[:-4000])
    events, notes = read(folder)
    assert 0 < len(events) < 3000
    assert notes.skipped[CUT_OFF_STREAM] == 1
    _tar(tmp_path / "whole.tar.gz", {"column_headers.tsv": HEADERS, "hit_data.tsv": rows})
    (tmp_path / "suite_2026-01-05.tar.gz").write_bytes((tmp_path / "whole.tar.gz").read_bytes()[:-4000])
    events, notes = read(tmp_path / "suite_2026-01-05.tar.gz")
    assert 0 < len(events) < 3000
    assert notes.skipped[CUT_OFF_STREAM] == 1


def test_an_empty_file_has_no_events(tmp_path: Path) -> None:
    events, notes = read(feed(tmp_path / "feed"))
    assert len(events) == 0
    assert notes == Notes()


def test_a_bad_row_in_the_middle_is_named_or_left_out(tmp_path: Path) -> None:
    folder = feed(tmp_path / "feed", HIT)
    (folder / "hit_data.tsv").write_text(row(HIT) + "1\t2\n" + row(HIT))
    with pytest.raises(EventError, match=r"hit_data\.tsv, row 1: found 2 cells; expected 35, as column_headers"):
        read(folder)
    events, notes = read(folder, bad_rows="skip")
    assert len(events) == 2
    assert notes.skipped == {"another number of cells than headings": 1}
    bought = {**HIT, "post_event_list": "1", "post_product_list": ";a;1;5"}
    with pytest.raises(EventError, match=r"row 1: price is 'free'; expected a number"):
        read_hits(tmp_path, bought, {**bought, "post_product_list": ";a;1;free"})
    with pytest.raises(EventError, match=r"row 1: time is 'noon'; expected a whole number of s"):
        read_hits(tmp_path, HIT, {**HIT, "post_cust_hit_time_gmt": "noon"})


def test_a_feed_without_headings_or_a_needed_column_says_so(tmp_path: Path) -> None:
    folder = feed(tmp_path / "feed", HIT)
    (folder / "column_headers.tsv").write_text("\t".join(name for name in HIT if "visid" not in name) + "\n")
    with pytest.raises(EventError, match="no column 'post_visid_high'; add it to the feed"):
        read(folder)
    (folder / "column_headers.tsv").unlink()
    with pytest.raises(EventError, match=r"no column_headers\.tsv in its archive or beside it"):
        read(folder)
    (folder / "hit_data.tsv").unlink()
    with pytest.raises(EventError, match="no hit data at"):
        read(folder)
