"""Access logs of web servers, load balancers and content networks: a request a line.

In: log files, compressed or not, in any of the layouts of `features.sources.log_layouts`; the layout is told from the
first lines of each file. Out: a page view for each request of a page. A log has no visitor ids: a visitor is the
client's address and user agent together, and both end in the pseudonym. What is no page view (images, redirects,
errors, bots, ...) is left out and counted. A log without a host cannot tell the site's own pages among the referrers:
name it in option `host`. Lines may stand in any order.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

import pandas as pd
from pydantic import Field, field_validator

from features.agents import device_of
from features.errors import EventError
from features.settings import Settings, SettingsError
from features.shop import SourceSettings
from features.sources.convert import from_records
from features.sources.log_layouts import LAYOUTS, NOTHING_ASKED, Parse, Request, find_layout, pattern_layout, shape
from features.sources.reading import Notes, Reading

# Servers write half lines when they are restarted, and whatever a client sends: one in ten thousand lines is nothing to
# stop for. Set bad_rows = "error" to be shown the first one.
DEFAULTS: Final = SourceSettings(time_unit="ms", consent=("measure",), bad_rows="skip")

# fmt: off
_STATIC_EXTENSIONS: Final = (
    "atom", "avif", "bmp", "css", "csv", "eot", "gif", "gz", "ico", "jpeg", "jpg", "js", "json", "less", "map", "mjs",
    "mov", "mp3", "mp4", "mpeg", "mpg", "ogg", "otf", "pdf", "png", "rdf", "rss", "svg", "swf", "tar", "ttf", "txt",
    "wasm", "wav", "webm", "webmanifest", "webp", "woff", "woff2", "xbm", "xml", "xsl", "zip",
)
_MONTHS: Final = {
    "Jan": "01", "Feb": "02", "Mar": "03", "Apr": "04", "May": "05", "Jun": "06",
    "Jul": "07", "Aug": "08", "Sep": "09", "Oct": "10", "Nov": "11", "Dec": "12",
}
# fmt: on
_HEAD_LINES: Final = 200


class AccessLogOptions(Settings):
    r"""Options of the reader.

    layout: "auto", or a name of `LAYOUTS` where the first lines mislead.
    pattern: a regular expression for the whole line instead, whose named groups are fields of a `Request`.
    time_format: how `pattern`'s time is written, as for `datetime.strptime`; empty for a time the reader knows.
    zone: of times that do not say theirs.
    encoding: of the lines; bytes that it does not have are kept as `\xac`, as servers escape them.
    host: the site's own, for layouts that do not say it.
    visitor: who is one visitor; "user" is the login, and address and agent where nobody is logged in.
    bots: whether programs that declare themselves are left out.
    methods: that are counted as views; "*" for any.
    redirects, errors: whether requests that were answered so are counted too.
    static_extensions, static_names: of files that are no pages; `robots.txt` and `/feed` are names.
    names: {regular expression found in the path: event name}, the first that fits, for views that are more than a page
        view; a group `item` is the product's id: `"^/product/(?P<item>[^/]+)" = "view_item"`.
    matomo_hits: whether a tracking request to a Matomo in the same log counts as the view that it reports.
    """

    layout: str = "auto"
    pattern: str = ""
    time_format: str = ""
    zone: str = "UTC"
    encoding: str = "utf-8"
    host: str = ""
    visitor: Literal["address_and_agent", "address", "user"] = "address_and_agent"
    bots: Literal["drop", "keep"] = "drop"
    methods: tuple[str, ...] = ("GET",)
    redirects: bool = False
    errors: bool = False
    static_extensions: tuple[str, ...] = _STATIC_EXTENSIONS
    static_names: tuple[str, ...] = ("robots.txt", "favicon.ico", "feed", "rss", "atom")
    names: dict[re.Pattern[str], str] = Field(default_factory=dict)
    matomo_hits: bool = True

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            return codecs.lookup(encoding).name
        except LookupError:
            raise ValueError("no encoding of that name; e.g. utf-8, latin-1, big5") from None


# Why a line gives no event, as `Notes.skipped` counts it.
NO_REQUEST: Final = "no request"
NO_ADDRESS: Final = "no client address"
BOT: Final = "declared bot"
METHOD: Final = "method that is no view"
REDIRECT: Final = "answered with a redirect"
ERROR: Final = "answered with an error"
STATIC: Final = "static file"
TRACKING: Final = "tracking request that is no view"
STREAM: Final = "stream event that is no start"
NOT_IN_LAYOUT: Final = "not in the layout of the file"


def read(reading: Reading) -> Iterator[pd.DataFrame]:
    """The canonical events of the files.

    Raises
    ------
    SettingsError
        An option is wrong.
    EventError
        A file has no known layout, or with `bad_rows = "error"` a line does not have the layout of its file.
    """
    options = reading.options(AccessLogOptions)
    views, clock = _Views(options, reading.notes), _clock(options)
    for path in reading.files():
        rows = reading.sound(_rows(path, reading, options, views, clock), path, NOT_IN_LAYOUT)
        yield from from_records((event for _, event in rows if event), reading, path)


def _rows(
    path: Path, reading: Reading, options: AccessLogOptions, views: _Views, clock: Callable[[str], int]
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(row, its event) of each line: empty where it gives none, a text for what is not in the layout."""
    lines = (line.decode(options.encoding, "backslashreplace") for line in reading.lines(path))
    head = list(islice(lines, _HEAD_LINES))
    if head:
        head[0] = head[0].removeprefix("\ufeff")
    parse = _layout(path, head, options)
    for row, line in enumerate(chain(head, lines)):
        if not line or line.isspace():
            continue
        request = parse(line)
        if request is None and line.startswith("#"):
            request = NOTHING_ASKED
        event = {} if request is None else views.event(request)
        try:
            if event and request:
                event["time"], event["row"] = clock(request.time), row
        except ValueError:
            request = None
        yield row, event if request else f"not in the layout of its file, found {shape(line)}"


def _layout(path: Path, head: list[str], options: AccessLogOptions) -> Parse:
    if options.pattern:
        return pattern_layout(options.pattern)
    parse = find_layout(head, options.layout)
    if parse is not None:
        return parse
    rows = [line for line in head if line.strip() and not line.startswith("#")]
    if len(rows) > 1:
        raise EventError(
            f"{path} has no layout that is known: {', '.join(LAYOUTS)}; found lines such as {shape(rows[0])}. Describe "
            "them in [sources.<name>.options] pattern, a regular expression with the groups address, time, target, ..."
        )
    # nothing, or a first line that is being written
    return lambda line: None


class _Views:
    """What a request is: a view, and whose, or why it is none."""

    def __init__(self, options: AccessLogOptions, notes: Notes) -> None:
        self.options = options
        self.notes = notes
        self.methods = frozenset(options.methods)
        self.extensions = frozenset(options.static_extensions)
        self.files = frozenset(options.static_names)

    def event(self, request: Request) -> dict[str, Any]:
        """The event, still without its time; empty, and counted, where there is none."""
        found = self._event(request)
        if isinstance(found, dict):
            return found
        self.notes.rows += 1
        self.notes.skipped[found] += 1
        return {}

    def _event(self, request: Request) -> dict[str, Any] | str:
        options = self.options
        path, _, query = request.target.partition("?")
        if not request.method or not path:
            return NO_REQUEST
        address = _client(request)
        if not address:
            return NO_ADDRESS
        if options.bots == "drop" and device_of(request.agent) == "bot":
            return BOT
        tracking = path.endswith(("/matomo.php", "/piwik.php"))
        # trackers post; what they report they say in the query all the same
        if request.method not in self.methods and "*" not in self.methods and not tracking:
            return METHOD
        status = request.status
        if status[:1] != "2" and status != "304" and not (options.redirects if status[:1] == "3" else options.errors):
            return REDIRECT if status[:1] == "3" else ERROR
        file = path.rpartition("/")[2].lower()
        _, dot, extension = file.rpartition(".")
        if not tracking and (file in self.files or (dot and extension in self.extensions)):
            return STATIC
        visitor = address if options.visitor == "address" else f"{address} {request.agent}"
        if options.visitor == "user" and request.user:
            visitor = request.user
        event = {
            "visitor": visitor,
            "user_agent": request.agent,
            "id": request.id or None,
            # a browser that objects is not followed, whatever the publisher may do with the others
            "consent": 0 if request.refused == "1" else None,
        }
        if tracking:
            reported = _reported(query, request.referrer) if options.matomo_hits else None
            return event | reported if reported else TRACKING
        event["url"] = self.url(request)
        if request.event:
            return event | {"name": "video_start"} if request.event == "play" else STREAM
        event["referrer"] = request.referrer
        event["name"] = "page_view"
        for pattern, name in options.names.items():
            if match := pattern.search(path):
                event["name"] = name
                event["item"] = match.groupdict().get("item")
                break
        return event

    def url(self, request: Request) -> str:
        """The address of the page, with the host where it is known."""
        if "://" in request.target.partition("?")[0]:
            return request.target
        if not request.target.startswith("/"):  # a layout that writes host and path together
            return f"https://{request.target}"
        host = request.host or self.options.host
        return f"https://{host}{request.target}" if host else request.target


# What a Matomo tracker reports besides page views: parameter -> our name.
_REPORTS: Final = {"ping": "user_engagement", "download": "file_download", "link": "click", "search": "search"}


def _reported(query: str, page: str) -> dict[str, Any] | None:
    """What a Matomo tracking request says, None where that is no view. page: where it was sent from."""
    said = dict(parse_qsl(query))
    if said.get("rec") != "1":
        return None
    event: dict[str, Any] = {"url": said.get("url") or page, "referrer": said.get("urlref", "")}
    if "_id" in said:  # empty where the visitor allowed no cookie
        event["visitor"] = said["_id"]
    event["name"] = next((name for parameter, name in _REPORTS.items() if parameter in said), "page_view")
    if said.get("idgoal") == "0" and "ec_id" in said:
        return event | {"name": "purchase", "value": said.get("revenue"), "id": said["ec_id"]}
    if event["name"] == "page_view" and not said.keys().isdisjoint(("idgoal", "e_c", "c_n", "ca")):
        return None
    return event


def _client(request: Request) -> str:
    """The address of the client itself: behind a proxy, the first one that the request was forwarded for."""
    address = request.forwarded.partition(",")[0].strip() if request.forwarded else request.address
    if ":" not in address:
        return address
    # some proxies add the port, which differs from connection to connection
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEARS_MS: Final = (631_152_000_000, 4_102_444_799_999)  # 1990 to 2099, as `features.events` has it


def _clock(options: AccessLogOptions) -> Callable[[str], int]:
    """Text of the log -> ms UTC; a ValueError for what is no time."""
    try:
        zone: tzinfo = ZoneInfo(options.zone)
    except (ValueError, KeyError):
        raise SettingsError(f"[sources.<name>.options] zone: {options.zone!r} is no time zone; e.g. UTC") from None
    own = options.time_format

    @lru_cache(maxsize=10_000)
    def minute_ms(minute: str, offset: str) -> int:
        day, month, rest = minute.split("/")
        return iso_ms(f"{rest[:4]}-{_MONTHS.get(month)}-{day}T{rest[5:]}{offset}")

    def iso_ms(text: str) -> int:
        return since(datetime.fromisoformat(text))

    def since(moment: datetime) -> int:
        aware = moment if moment.tzinfo else moment.replace(tzinfo=zone)
        return (aware - _EPOCH) // timedelta(milliseconds=1)

    def time_ms(text: str) -> int:
        if own:
            time = since(datetime.strptime(text, own))
        elif text[2:3] == "/":  # 17/May/2015:10:05:03 +0000; haproxy adds a fraction and leaves out the zone
            fraction, _, offset = text[20:].partition(" ")
            time = minute_ms(text[:17], offset) + int(text[18:20]) * 1000 + int((fraction[1:] + "000")[:3])
        elif text[4:5] == "-":
            time = iso_ms(text)
        else:
            seconds, _, fraction = text.partition(".")
            time = int(seconds) * 1000 + int((fraction + "000")[:3])
        if not _YEARS_MS[0] <= time <= _YEARS_MS[1]:
            raise ValueError(text)
        return time

    return time_ms
