"""Access logs: lines of any layout in, page views out; everything else counted by its reason."""

from __future__ import annotations

import gzip
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.errors import EventError
from features.events import CHANNELS, DEVICES, EVENT_NAMES, hash64, page_template
from features.grouping import order_by_visitor, sessionise
from features.pseudonyms import Pseudonymiser
from features.sessions import STARTED
from features.settings import SettingsError
from features.shop import ShopSettings
from features.sources import Notes, concatenate, open_source, read_chunks
from features.sources.access_log import NOT_IN_LAYOUT
from features.sources.reading import CUT_OFF, CUT_OFF_STREAM
from tests.shared import SHARED

KEY = Pseudonymiser(b"0123456789abcdef")
SAMPLES = SHARED / "data" / "tracker_formats" / "matomo_log_formats"
APACHE = SHARED / "data" / "apache_combined_10k" / "apache_logs.gz"
NASA = SHARED / "data" / "nasa_http_1995_sample"

# of most of the samples
LINUX = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/535.11 (KHTML, like Gecko) Chrome/17.0.963.56 Safari/535.11"
EVERYTHING: dict[str, Any] = {
    "bots": "keep",
    "methods": ("*",),
    "redirects": True,
    "errors": True,
    "static_extensions": (),
    "static_names": (),
}


def read(
    path: Path, *, chunk_rows: int = 250_000, bad_rows: str = "skip", **options: Any
) -> tuple[pd.DataFrame, Notes]:
    overrides = {"options": options, "bad_rows": bad_rows}
    reader, reading = open_source("access_log", path, ShopSettings(), KEY, chunk_rows=chunk_rows, overrides=overrides)
    return concatenate(list(read_chunks(reader, reading))), reading.notes


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "access.log"
    path.write_text("".join(line + "\n" for line in lines))
    return path


def combined(
    target: str = "/", *, address: str = "203.0.113.7", second: int = 0, method: str = "GET", status: int = 200,
    referrer: str = "-", agent: str = LINUX, more: str = "",
) -> str:  # fmt: skip
    moment = f"[17/May/2015:10:05:{second:02} +0000]"
    return f'{address} - - {moment} "{method} {target} HTTP/1.1" {status} 5 "{referrer}" "{agent}"{more}'


def ms(moment: str) -> int:
    return pd.Timestamp(moment).value // 1_000_000


def sessions(events: pd.DataFrame) -> tuple[int, float]:
    """Sessions at 30 minutes, and the share of those with one event."""
    columns = [events[name].to_numpy() for name in ("visitor", "session", "id", "time")]
    order = order_by_visitor(columns[0], columns[3])
    statuses, silences = np.empty(len(order), np.uint8), np.empty(len(order), np.int32)
    sessionise(0, len(order), order, *columns, 1_800_000, np.array([], np.int64), statuses, silences)
    lengths = np.bincount(np.cumsum(statuses == STARTED) - 1)
    return len(lengths), float(np.mean(lengths == 1))


FIREFOX = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:121.0) Gecko/20100101 Firefox/121.0"
MATOMO = "1da79fc743e8bcc4"
CASE = "/case/adviserbrief-track-your-investments-and-plan-financial-future/"
FEB10 = "2012-02-10T21:42:07Z"  # 16:42:07 -0500, of many of the samples

# file -> visitor, time, page, channel of each request in it
LAYOUTS: dict[str, list[tuple[str, str, str, str]]] = {
    "common.log": [("1.2.3.4 ", FEB10, "/", "direct")],
    "common.log.gz": [("1.2.3.5 ", "2012-02-10T23:42:07Z", "/form", "direct")],
    "common.log.bz2": [("1.2.3.7 ", "2012-02-19T23:42:07Z", "/", "direct")],
    "common_vhost.log": [("1.2.3.4 ", FEB10, "/", "direct")],
    "common_complete.log": [(f"1.2.3.4 {LINUX}", FEB10, "/", "direct")],
    "common_encoding_big5.log": [(f"1.2.3.4 {LINUX}", FEB10, "/:id", "direct")],
    "ncsa_extended.log": [(f"1.2.3.4 {LINUX}", FEB10, "/", "direct")],
    "icecast2.log": [(f"1.2.3.4 {LINUX}", FEB10, "/", "direct")],
    "gandi.log": [
        (f"1.2.3.4 {LINUX}", FEB10, "/", "direct"),
        (
            "125.125.125.125 Mozilla/5.0 (Macintosh; Intel Mac OS X 10.13; rv:90.0) Gecko/20100101 Firefox/90.0",
            FEB10,
            "/",
            "internal",
        ),
    ],
    "ovh.log": [(f"1.2.3.4 {LINUX}", FEB10, "/", "direct")],
    "haproxy.log": [("4.3.2.1 ", "2018-09-25T06:05:27.584Z", "/user", "direct")],
    "s3.log": [(f"1.2.3.4 {LINUX}", FEB10, "/index", "direct")],
    "elb.log": [(f"1.2.3.4 {LINUX}", "2015-05-13T23:39:43.945Z", "/path/index.html", "direct")],
    "alb.log": [(f"1.2.3.4 {LINUX}", "2020-01-01T00:55:04.127Z", "/path/index.html", "direct")],
    "iis.log": [
        (
            "1.2.3.4 Mozilla/5.0 (X11; U; Linux i686; en-US; rv:1.9.2.7) Gecko/20100722 Firefox/3.6.7",
            "2012-04-01T00:00:13Z",
            "/foo/bar",
            "direct",
        )
    ],
    "iis_custom.log": [
        (
            "70.95.0.0 Mozilla/5.0 (Linux; Android 4.4.4; SM-G900V Build/KTU84P) AppleWebKit/537.36 (KHTML, like "
            "Gecko) Chrome/39.0.2171.59 Mobile Safari/537.36",
            "2012-08-15T17:00:00.363Z",
            "/Products/theProduct",
            "internal",
        ),
        (
            "173.5.0.0 Mozilla/5.0 (Macintosh; Intel Mac OS X 10_10_1) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/37.0.2062.124 Safari/537.36",
            "2012-08-15T17:00:00.675Z",
            "/hello/world/:id",
            "direct",
        ),
    ],
    "netscaler.log": [
        (
            "172.20.1.0 Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 5.1; Trident/4.0; .NET CLR 1.1.4322; .NET CLR "
            "2.0.50727; .NET CLR 3.0.04506.648; .NET CLR 3.5.21022)",
            "2012-08-16T11:55:13Z",
            "/Citrix/XenApp/Wan/auth/login.jsp",
            "direct",
        )
    ],
    "incapsula_w3c.log": [
        (
            "123.123.123.123 Mozilla/5.0 (Windows NT 6.1; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/58.0.3029.110 Safari/537.36",
            "2017-06-28T07:26:35Z",
            "/page.php",
            "direct",
        ),
        (
            "125.125.125.125 Mozilla/5.0 (Macintosh; Intel Mac OS X 10.10; rv:45.0) Gecko/20100101 Thunderbird/45.8.0 "
            "Lightning/4.7.8",
            "2017-06-26T18:21:17Z",
            "/rss/news",
            "direct",
        ),
    ],
    "amazon_cloudfront_web.log": [
        (
            "192.0.2.10 Mozilla/5.0 (Windows; U; Windows NT 6.1; de-DE) AppleWebKit/534.17 (KHTML, like Gecko) "
            "Chrome/10.0.649.0 Safari/534.17",
            "2014-05-23T01:13:11Z",
            "/view/my/file.html",
            "internal",
        )
    ],
    "amazon_cloudfront_rtmp.log": [
        ("192.0.2.222 LNX 10,0,32,18", "2010-03-12T23:51:21Z", "/support/jw-player-setup-wizard", "direct")
    ],
    "shoutcast.log": [("1.2.3.4 NSPlayer/10.0.0.3702 WMFSDK/10.0", "2015-12-07T10:37:05Z", "/stream", "direct")],
    "splitted_date_and_time.log": [
        ("1.2.3.4 NSPlayer/10.0.0.3702 WMFSDK/10.0", "2015-12-07T10:37:05Z", "/stream", "direct")
    ],
    "nginx_json.log": [
        (MATOMO, "2013-10-10T14:52:00Z", "/", "internal"),
        (MATOMO, "2013-10-10T14:52:00Z", CASE, "internal"),
    ],
    "caddy_json.log": [
        (f"1.2.3.4 {FIREFOX}", moment, page, how)
        for moment, page, how in (
            ("2023-12-23T23:17:54.815Z", "/beta", "direct"),
            ("2023-12-23T23:17:54.901Z", "/beta/assets/index-mMaLXldj.css", "internal"),
            ("2023-12-23T23:17:55.141Z", "/beta/assets/index-HIcRLzdf.js", "internal"),
        )
    ],
    "traefik_json.log": [("1.2.3.4 Prometheus/2.40.5", "2023-08-11T11:39:21.773Z", "/my/app/auth", "referral")],
    "custom_regex_custom_date.log": [("1.2.3.4 ", "2012-02-10T16:42:07Z", "/", "direct")],
    "static_ignores.log": [
        (f"{n}.2.3.4 {LINUX.replace('17.0', f'17.{n - 1}')}", f"2012-02-10T21:{40 + n}:07Z", page, "direct")
        for n, page in ((1, "/"), (2, "/robots.txt"), (3, "/image.png"), (4, "/:id"))
    ],
    "logs_to_tests.log": [
        (MATOMO, "2013-02-05T07:01:26Z", "/", "internal"),
        (MATOMO, "2013-02-05T07:01:41Z", CASE, "internal"),
        (MATOMO, "2013-02-05T07:01:46Z", "/case/atl-apps-mobile-android-ios-games/", "internal"),
        ("95.81.66.139 ", "2013-10-28T23:48:46Z", "/", "direct"),
    ],
}
OWN_PATTERN = {
    "pattern": r'(?P<address>\S+) \S+ (?P<user>\S+) \[(?P<time>.*?)\] "(?P<method>\S+) (?P<target>.*?) \S+" '
    r"(?P<status>\d+) \S+",
    "time_format": "%B - %d, %Y:%H:%M:%S",
}


def test_every_sample_has_its_expectation() -> None:
    assert {path.name for path in SAMPLES.iterdir()} == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_told_from_the_first_lines(name: str) -> None:
    options = OWN_PATTERN if name.startswith("custom") else {}
    events, _ = read(SAMPLES / name, **EVERYTHING, **options)
    found = [
        (event.visitor, event.time, event.page, CHANNELS[event.channel]) for event in events.itertuples(index=False)
    ]
    assert found == [
        (KEY.visitor(visitor), ms(moment), hash64(page_template(page)), channel)
        for visitor, moment, page, channel in LAYOUTS[name]
    ]


def test_what_is_no_view_is_counted(tmp_path: Path) -> None:
    log = written(
        tmp_path,
        combined("/"),
        combined("/style.CSS?v=3"),
        combined("/robots.txt"),
        combined("/blog/feed"),
        combined("/order", method="POST"),
        combined("/old", status=301),
        combined("/cached", status=304),
        combined("/none", status=404),
        combined("/", agent="Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
        combined("/", address="-"),
        '203.0.113.7 - - [17/May/2015:10:05:03 +0000] "\\x16\\x03\\x01" 400 226 "-" "-"',
        '203.0.113.7 - - [17/May/2015:10:05:03 +0000] "-" 408 - "-" "-"',
        "# turned over",
        "",
        combined("/zip"),
    )
    events, notes = read(log)
    assert list(events["page"]) == [hash64("/"), hash64("/cached"), hash64("/zip")]
    assert set(events["name"]) == {EVENT_NAMES.index("page_view")}
    assert notes.rows == 14
    assert notes.skipped == {
        "static file": 3,
        "method that is no view": 1,
        "answered with a redirect": 1,
        "answered with an error": 1,
        "declared bot": 1,
        "no client address": 1,
        "no request": 3,
    }


def test_what_is_left_out_can_be_kept(tmp_path: Path) -> None:
    bot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
    log = written(
        tmp_path, combined("/a.png", agent=bot), combined("/b", method="POST", status=302), combined("/c.css")
    )
    events, notes = read(log, bots="keep", methods=("GET", "POST"), redirects=True, static_extensions=("css",))
    assert list(events["page"]) == [hash64("/a.png"), hash64("/b")]
    assert [DEVICES[code] for code in events["device"]] == ["bot", "desktop"]
    assert notes.skipped == {"static file": 1}


@pytest.mark.parametrize(
    ("visitor", "raw"),
    [
        ("address_and_agent", [f"192.0.2.1 {LINUX}", f"192.0.2.1 {LINUX}"]),
        ("address", ["192.0.2.1", "192.0.2.1"]),
        ("user", ["jane", f"192.0.2.1 {LINUX}"]),
    ],
)
def test_who_is_a_visitor(tmp_path: Path, visitor: str, raw: list[str]) -> None:
    log = written(tmp_path, combined(address="192.0.2.1").replace("- - [", "- jane ["), combined(address="192.0.2.1"))
    assert list(read(log, visitor=visitor)[0]["visitor"]) == [KEY.visitor(each) for each in raw]


@pytest.mark.parametrize(
    ("address", "more", "client"),
    [
        ("192.0.2.1", ' "198.51.100.4, 10.0.0.1"', "198.51.100.4"),
        ("192.0.2.1", ' "2001:db8::7"', "2001:db8::7"),
        ("192.0.2.1", ' "-"', "192.0.2.1"),
        ("192.0.2.1", ' "0.005" "127.0.0.1:9000"', "192.0.2.1"),
        ("192.0.2.1", ' "127.0.0.1:9000"', "192.0.2.1"),
        ("198.51.100.4, 10.0.0.1", "", "198.51.100.4"),
        ("198.51.100.4:50123", "", "198.51.100.4"),
        ("[2001:db8::7]:50123", "", "2001:db8::7"),
        ("2001:db8::7", "", "2001:db8::7"),
    ],
)
def test_behind_a_proxy_the_client_is_the_first_address(tmp_path: Path, address: str, more: str, client: str) -> None:
    events, _ = read(written(tmp_path, combined(address=address, more=more)), visitor="address")
    assert list(events["visitor"]) == [KEY.visitor(client)]


def test_forwarded_addresses_of_w3c_and_json(tmp_path: Path) -> None:
    w3c = written(
        tmp_path,
        "#Fields: date time c-ip cs-method cs-uri-stem sc-status X-Forwarded-For",
        '2015-05-17 10:05:03 10.0.0.1 GET / 200 "198.51.100.4, 10.0.0.9"',
        "2015-05-17 10:05:04 198.51.100.5 GET / 200 -",
    )
    events, _ = read(w3c, visitor="address")
    assert list(events["visitor"]) == [KEY.visitor("198.51.100.4"), KEY.visitor("198.51.100.5")]
    nginx = written(
        tmp_path,
        '{"remote_addr": "10.0.0.1", "http_x_forwarded_for": "198.51.100.4", "request_uri": "/a?b=1", '
        '"request_method": "GET", "status": 200, "msec": 1431857103.250}',
    )
    events, _ = read(nginx, visitor="address")
    assert list(events["visitor"]) == [KEY.visitor("198.51.100.4")]
    assert list(events["time"]) == [ms("2015-05-17T10:05:03.25Z")]
    assert list(events["page"]) == [hash64("/a")]


def test_the_sites_own_host_makes_referrers_internal(tmp_path: Path) -> None:
    log = written(
        tmp_path,
        combined("/a", referrer="http://www.shop.example/"),
        combined("/b?gclid=7", referrer="https://www.google.com/"),
        combined("/c?utm_medium=email&utm_campaign=may"),
    )
    assert [CHANNELS[code] for code in read(log)[0]["channel"]] == ["referral", "paid", "email"]
    events, _ = read(log, host="shop.example")
    assert [CHANNELS[code] for code in events["channel"]] == ["internal", "paid", "email"]
    assert list(events["campaign"]) == [0, 0, hash64("may")]
    assert list(events["page"]) == [hash64("/a"), hash64("/b"), hash64("/c")]


def test_paths_can_be_more_than_page_views(tmp_path: Path) -> None:
    log = written(tmp_path, combined("/p/red-shoe?size=4"), combined("/thanks"), combined("/p/red-shoe/reviews"))
    names = {r"^/p/(?P<item>[^/]+)$": "view_item", "^/thanks": "purchase"}
    events, _ = read(log, names=names)
    assert [EVENT_NAMES[code] for code in events["name"]] == ["view_item", "purchase", "page_view"]
    assert list(events["item"]) == [hash64("red-shoe"), 0, 0]
    with pytest.raises(EventError, match=r"unknown event 'order' in row 1; known: .*"):
        read(log, names={"^/thanks": "order"})
    with pytest.raises(SettingsError, match="names"):
        read(log, names={"(": "purchase"})


def test_a_browsers_objection_takes_the_consent_away(tmp_path: Path) -> None:
    events, _ = read(SAMPLES / "caddy_json.log")
    assert list(events["consent"]) == [0]
    willing = (
        (SAMPLES / "caddy_json.log").read_text().replace('"Dnt":["1"],', "").replace('"Sec-Gpc":["1"]', '"A":["1"]')
    )
    events, _ = read(written(tmp_path, willing))
    assert list(events["consent"]) == [1]


def test_matomo_hits_are_the_views_they_report(tmp_path: Path) -> None:
    agent = (
        "Mozilla/5.0 (Windows NT 6.1; WOW64) AppleWebKit/537.17 (KHTML, like Gecko) Chrome/24.0.1312.57 Safari/537.17"
    )

    def hit(said: str, status: int = 204) -> str:
        return combined(f"/stats/matomo.php?idsite=1&{said}", method="POST", status=status, agent=agent)

    log = written(
        tmp_path,
        hit("rec=1&url=https%3A%2F%2Fshop.example%2Fp%2F7&urlref=https%3A%2F%2Fwww.google.com%2F&_id=79ad93e49e3f3a55"),
        hit("rec=1&url=https%3A%2F%2Fshop.example%2Fp%2F7&_id="),
        hit("rec=1&ping=1&url=https%3A%2F%2Fshop.example%2F&_id=79ad93e49e3f3a55"),
        hit("rec=1&idgoal=0&ec_id=ORD-1&revenue=178.62&url=https%3A%2F%2Fshop.example%2Fok&_id=79ad93e49e3f3a55"),
        hit("rec=1&idgoal=0&revenue=10&url=https%3A%2F%2Fshop.example%2Fcart&_id=79ad93e49e3f3a55"),
        hit("rec=1&e_c=menu&e_a=open&url=https%3A%2F%2Fshop.example%2F&_id=79ad93e49e3f3a55"),
        hit("send_image=0"),
        hit("rec=1&url=https%3A%2F%2Fshop.example%2F", status=500),
    )
    events, notes = read(log)
    tracked, cookieless = KEY.visitor("79ad93e49e3f3a55"), KEY.visitor(f"203.0.113.7 {agent}")
    assert list(events["visitor"]) == [tracked, cookieless, tracked, tracked]
    assert [EVENT_NAMES[code] for code in events["name"]] == ["page_view", "page_view", "user_engagement", "purchase"]
    assert list(events["page"]) == [hash64("/p/:id"), hash64("/p/:id"), hash64("/"), hash64("/ok")]
    assert [CHANNELS[code] for code in events["channel"]] == ["organic", "direct", "direct", "direct"]
    assert list(events["value"]) == [0, 0, 0, 178.62]
    assert list(events["interactive"]) == [1, 1, 0, 1]
    assert events["id"].iloc[3] == hash64("ORD-1")
    assert notes.skipped == {"tracking request that is no view": 3, "answered with an error": 1}
    events, notes = read(log, matomo_hits=False)
    assert len(events) == 0
    assert notes.skipped == {"tracking request that is no view": 7, "answered with an error": 1}


def test_times_without_a_zone_are_in_the_named_one(tmp_path: Path) -> None:
    assert read(SAMPLES / "haproxy.log", **EVERYTHING, zone="Europe/Berlin")[0]["time"][0] == ms(
        "2018-09-25T04:05:27.584Z"
    )
    local = written(
        tmp_path,
        "#Fields: date-local time-local c-ip cs-method cs-uri-stem sc-status",
        "2015-01-17 10:05:03 192.0.2.1 GET / 200",
    )
    assert read(local, zone="America/New_York")[0]["time"][0] == ms("2015-01-17T15:05:03Z")
    with pytest.raises(SettingsError, match="zone: 'Mars' is no time zone"):
        read(local, zone="Mars")


def test_w3c_fields_may_change_and_the_date_may_stand_at_the_top(tmp_path: Path) -> None:
    log = written(
        tmp_path,
        "#Date: 2015-05-17 00:00:00",
        "#Fields: time c-ip cs-method cs-uri-stem cs-uri-query sc-status",
        "10:05:03 192.0.2.1 GET /a q=1 200",
        "#Fields: cs-uri-stem date time sc-status c-ip cs-method cs(User-Agent)",
        '/b 2015-05-18 10:05:04 200 192.0.2.1 GET "say ""hi"" now"',
    )
    events, notes = read(log)
    assert list(events["time"]) == [ms("2015-05-17T10:05:03Z"), ms("2015-05-18T10:05:04Z")]
    assert list(events["page"]) == [hash64("/a"), hash64("/b")]
    assert events["visitor"][1] == KEY.visitor('192.0.2.1 say "hi" now')
    assert (notes.rows, notes.skipped) == (5, {"no request": 3})


def test_the_servers_own_ids_drop_repeated_deliveries() -> None:
    assert read(SAMPLES / "s3.log")[0]["id"][0] == hash64("EB3502676500C6BE")
    assert read(SAMPLES / "amazon_cloudfront_web.log")[0]["id"][0] == hash64(
        "MRVMF7KydIvxMWfJIglgwHQwZsbG2IhRJ07sn9AkKUFSHS9EXAMPLE=="
    )


def test_bytes_of_another_encoding_are_text(tmp_path: Path) -> None:
    page = "/" + b"\xac\xb0\xa8\xe4\xad\xdd\xa6\xe6\xb4c\xb9D".decode("big5")
    events, _ = read(SAMPLES / "common_encoding_big5.log", encoding="big5", redirects=True)
    assert list(events["page"]) == [hash64(page)]
    with pytest.raises(SettingsError, match="encoding: .*no encoding of that name"):
        read(SAMPLES / "common.log", encoding="klingon")
    marked = tmp_path / "marked.log"
    marked.write_bytes(b"\xef\xbb\xbf" + combined().encode())
    assert list(read(marked, visitor="address")[0]["visitor"]) == [KEY.visitor("203.0.113.7")]


def test_an_empty_file_gives_no_events(tmp_path: Path) -> None:
    for lines in ((), ("", ""), ("#Software: IIS", "#Fields: date time c-ip cs-uri-stem")):
        events, _ = read(written(tmp_path, *lines))
        assert len(events) == 0


@pytest.mark.parametrize("cut", [4, 30, 60, 90, 150])
def test_a_last_line_that_was_cut_off_is_counted(tmp_path: Path, cut: int) -> None:
    log = tmp_path / "access.log"
    log.write_text(f"{combined()}\n{combined()[:cut]}")
    events, notes = read(log, bad_rows="error")
    assert (len(events), notes.rows, notes.skipped) == (1, 2, {CUT_OFF: 1})
    log.write_text(combined()[:cut])
    events, notes = read(log, bad_rows="error")
    assert (len(events), notes.rows, notes.skipped) == (0, 1, {CUT_OFF: 1})


@pytest.mark.parametrize(
    "name", ["iis.log", "nginx_json.log", "caddy_json.log", "elb.log", "s3.log", "incapsula_w3c.log", "gandi.log"]
)
def test_other_layouts_end_in_the_middle_too(tmp_path: Path, name: str) -> None:
    whole, notes = read(SAMPLES / name, **EVERYTHING)
    lines = [line for line in (SAMPLES / name).read_text().splitlines() if not line.startswith("# ")]
    last = [number for number, line in enumerate(lines) if "- - - " not in line][-1]
    log = tmp_path / name
    log.write_text("\n".join([*lines[:last], lines[last][:60]]))
    events, notes = read(log, bad_rows="error", **EVERYTHING)
    assert len(events) == len(whole) - 1
    assert notes.skipped[CUT_OFF] == 1


def test_a_compressed_file_that_ends_early_gives_what_it_has(tmp_path: Path) -> None:
    log = tmp_path / "access.log.gz"
    packed = gzip.compress("".join(combined(f"/{n}x", second=n % 60) + "\n" for n in range(5_000)).encode())
    log.write_bytes(packed[: len(packed) // 2])
    events, notes = read(log)
    assert 1_000 < len(events) < 4_000
    assert notes.skipped[CUT_OFF_STREAM] == 1


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("jane@shop.example forgot 3 things", "a@a.a a 0 a"),
        (combined().replace("17/May/2015", "17/Mai/2015"), "0.0.0.0 - - [0/a/0:0:0:0 +0]"),
        (combined().replace("2015", "1815"), "0.0.0.0 - - [0/a/0:0:0:0 +0]"),
        (combined().replace('"GET', "GET"), "0.0.0.0 - - [0/a/0:0:0:0 +0] a / a/0.0"),
    ],
)
def test_a_bad_line_in_the_middle_is_named_without_what_it_says(tmp_path: Path, line: str, seen: str) -> None:
    log = written(tmp_path, combined("/a"), line, combined("/b"))
    with pytest.raises(EventError, match="row 1: not in the layout of its file") as error:
        read(log, bad_rows="error")
    assert f"found {seen}" in str(error.value)
    assert str(log) in str(error.value)
    assert "jane" not in str(error.value)
    assert "203" not in str(error.value)
    events, notes = read(log)
    assert list(events["page"]) == [hash64("/a"), hash64("/b")]
    assert (notes.rows, notes.skipped) == (3, {NOT_IN_LAYOUT: 1})


@pytest.mark.parametrize("rubbish", ["\\", ":", "[", "a", '" 200 1 ', '"a" "'])
def test_a_line_of_rubbish_costs_no_time(tmp_path: Path, rubbish: str) -> None:
    start = '192.0.2.1 - - [17/May/2015:10:05:03 +0000] "GET '
    log = written(tmp_path, combined(), start + rubbish * (8_000 // len(rubbish)), combined())
    began = time.perf_counter()
    assert read(log)[1].skipped.total() == 1
    assert time.perf_counter() - began < 1  # a pattern that tries again and again took 4 s


def test_an_unknown_layout_names_the_known_ones(tmp_path: Path) -> None:
    log = written(tmp_path, "jane bought 3 shoes", "joe bought 1 shoe")
    with pytest.raises(
        EventError, match=r"no layout that is known: alb, elb, .*, table; .* such as a a 0 a\. Describe"
    ):
        read(log)
    with pytest.raises(SettingsError, match="unknown layout 'apache'; known: auto, alb, elb, s3, haproxy"):
        read(log, layout="apache")
    with pytest.raises(SettingsError, match="known options: layout, pattern, time_format"):
        read(log, format="combined")


def test_a_layout_can_be_named(tmp_path: Path) -> None:
    log = written(tmp_path, combined())
    assert list(read(log, layout="combined")[0]["visitor"]) == [KEY.visitor(f"203.0.113.7 {LINUX}")]
    assert read(log, layout="common")[1].skipped == {CUT_OFF: 1}  # none of its lines is in it


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "pattern is no regular expression"),
        (r"(?P<address>\S+) (?P<time>\S+)", "no group 'target'; known: address, user, time"),
        (r"(?P<ip>\S+)", "the unknown group 'ip'"),
    ],
)
def test_a_pattern_of_ones_own_is_checked(tmp_path: Path, pattern: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read(written(tmp_path, combined()), pattern=pattern)


def test_a_pattern_without_method_and_status_describes_views(tmp_path: Path) -> None:
    log = written(tmp_path, "192.0.2.1|1431857103|/a", "192.0.2.1|1431857104.5|/b")
    events, _ = read(log, pattern=r"(?P<address>[^|]+)\|(?P<time>[^|]+)\|(?P<target>.*)")
    assert list(events["time"]) == [1_431_857_103_000, 1_431_857_104_500]
    assert list(events["page"]) == [hash64("/a"), hash64("/b")]


def test_requests_with_quotes_and_spaces_inside_are_read(tmp_path: Path) -> None:
    log = written(
        tmp_path,
        'klothos.example - - [01/Jul/1995:00:00:01 -0400] "GET /htbin/wais.pl?"STS-71" HTTP/1.0" 200 6245',
        'klothos.example - - [01/Jul/1995:00:00:09 -0400] "GET /history apollo/" 200 -',
        'klothos.example - - [01/Jul/1995:00:00:11 -0400] "" 400 -',
    )
    events, notes = read(log, static_extensions=())
    assert list(events["page"]) == [hash64("/htbin/wais.pl"), hash64("/history apollo")]
    assert list(events["time"]) == [ms("1995-07-01T04:00:01Z"), ms("1995-07-01T04:00:09Z")]
    assert notes.skipped == {"no request": 1}


@pytest.mark.parametrize(
    "path", [APACHE, NASA / "nasa_19950701.tsv.gz", SAMPLES / "logs_to_tests.log"], ids=lambda p: p.name
)
def test_chunks_do_not_change_the_table(path: Path, tmp_path: Path) -> None:
    if path.suffix == ".gz":
        part = tmp_path / "part.log"
        with gzip.open(path) as log:
            part.write_bytes(b"".join(log.readlines()[:300]))
        path = part
    whole, notes = read(path)
    pieces, same = read(path, chunk_rows=2)
    assert len(whole) >= 3
    pd.testing.assert_frame_equal(whole, pieces)
    assert (same.rows, same.skipped) == (notes.rows, notes.skipped)


def test_the_files_of_a_folder_each_have_their_own_layout(tmp_path: Path) -> None:
    written(tmp_path, combined("/a"))
    (tmp_path / "b.log").write_text('192.0.2.1 - - [01/Jul/1995:00:00:01 -0400] "GET /b HTTP/1.0" 200 62\n')
    events, _ = read(tmp_path)
    assert list(events["page"]) == [hash64("/a"), hash64("/b")]


def test_the_apache_sample_has_the_published_numbers() -> None:
    events, notes = read(APACHE, visitor="address", **EVERYTHING)
    assert (notes.rows, notes.skipped) == (10_000, {NOT_IN_LAYOUT: 1})  # a user agent without its closing quote
    assert events["visitor"].nunique() == 1_753
    assert (np.diff(events["time"]) < 0).sum() == 4_915
    assert (events["device"] == DEVICES.index("bot")).sum() == 2_645

    # Published: 2,616 sessions, 69.8 % with one page. That counts an address with its agent as a visitor, bots, errors
    # and all methods as pages, and leaves out pictures, styles and scripts only. The missing one is in the bad line.
    few = EVERYTHING | {"static_extensions": ("png", "css", "js", "jpg", "gif", "ico")}
    count, share = sessions(read(APACHE, **few)[0])
    assert (count, round(share, 3)) == (2_615, 0.697)

    # What people looked at: without bots, feeds, redirects and errors.
    events, notes = read(APACHE)
    assert len(events) == 1_729
    assert notes.skipped == {
        "static file": 5_371,
        "declared bot": 2_645,
        "answered with a redirect": 112,
        "answered with an error": 109,
        "method that is no view": 33,
        NOT_IN_LAYOUT: 1,
    }
    count, share = sessions(events)
    assert (count, round(share, 3)) == (1_168, 0.757)


@pytest.mark.parametrize(
    ("day", "everything", "views"),
    [
        # published: 946 and 34.6 %; 907 and 43.8 %
        ("19950701", (945, 0.352), (937, 0.392)),
        ("19950801", (907, 0.438), (903, 0.443)),
    ],
)
def test_the_nasa_sample_has_the_published_numbers(
    day: str, everything: tuple[int, float], views: tuple[int, float]
) -> None:
    path = NASA / f"nasa_{day}.tsv.gz"
    count, share = sessions(read(path, methods=("*",), redirects=True, errors=True)[0])
    assert (count, round(share, 3)) == everything
    events, notes = read(path)
    count, share = sessions(events)
    assert (count, round(share, 3)) == views
    assert notes.rows == 10_000  # with the heading
    assert events["time"].min() >= ms(f"{day}T04:00:00Z")


def test_the_nasa_table_says_what_the_original_log_says(tmp_path: Path) -> None:
    with gzip.open(NASA / "nasa_19950701.tsv.gz", "rt", encoding="latin-1") as log:
        table = log.readlines()[1:200]
    lines = []
    for row in table:
        host, login, seconds, method, url, status, size, *_ = row.split("\t")
        stamp = pd.Timestamp(int(seconds), unit="s", tz="-04:00").strftime("%d/%b/%Y:%H:%M:%S %z")
        lines.append(f'{host} - {login} [{stamp}] "{method} {url} HTTP/1.0" {status} {size}')
    original, _ = read(written(tmp_path, *lines))
    events, _ = read(NASA / "nasa_19950701.tsv.gz")
    assert len(original) == 62
    pd.testing.assert_frame_equal(original, events[: len(original)])
