"""The layouts of access logs: a line in, the fields of one request out.

A layout is named, or told from the first lines of a file. In: one line of text. Out: a `Request`; None for a line that
does not have the layout. What a log does not say is an empty text, also where a server writes `-` for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import msgspec

from features.settings import SettingsError


class Request(NamedTuple):
    """One request as the log has it, every field a text.

    method: empty where the line holds no request, "GET" where the layout does not say. target: what was asked for, with
    its query. status: "200" where the layout does not say. forwarded: the addresses of X-Forwarded-For. id: the
    server's own id of the request. event: what a streaming server did. refused: "1" where the visitor's browser
    objected to being followed (Sec-GPC, DNT).
    """

    address: str = ""
    user: str = ""
    time: str = ""
    method: str = "GET"
    target: str = ""
    status: str = "200"
    host: str = ""
    referrer: str = ""
    agent: str = ""
    forwarded: str = ""
    id: str = ""
    event: str = ""
    refused: str = ""


# None is a line that does not have the layout.
Parse = Callable[[str], Request | None]

# Strangers write what stands in these lines. A word is taken whole (`++`) and never tried again in parts, or a long
# line of rubbish would take seconds.
_ADDRESS: Final = r"(?P<address>[^\s,]++)(?:, ?[^\s,]++)*+"
# The second word of a line that begins with a host: an address or a name, not the `-` of an unknown login.
_AFTER_HOST: Final = r"(?P<address>[^\s,.:]*+[.:][^\s,]*+)(?:, ?[^\s,]++)*+"
_TIME: Final = r"\[(?P<time>[^\]]++)\]"
# The junk of a TLS handshake on the wrong port is a request without a method. Quotes inside are not always escaped.
_REQUEST: Final = r'"(?:(?P<method>[A-Z]++) (?P<target>[^\s"]++.*?)(?: HTTP/[\d.]++)?|.*?)"'
_STATUS: Final = r"(?P<status>\d{3}|-)"
_QUOTED: Final = r'"(?P<%s>[^"\\]*(?:\\.[^"\\]*)*)"'
_REFERRER, _AGENT = _QUOTED % "referrer", _QUOTED % "agent"
_WHO: Final = rf"{_ADDRESS} \S++ (?P<user>[^\[]+) {_TIME}"
_HOST_WHO: Final = rf"(?P<host>[^\s,]++) {_AFTER_HOST} \S++ (?P<user>[^\[]+) {_TIME}"
_ANSWER: Final = rf"{_REQUEST} {_STATUS} (?:\d+|-)"
# nginx adds the addresses that a proxy forwarded the request for; icecast2 and many others add something of their own,
# such as seconds or an address of a server, which has a port
_IP: Final = r"(?:\d{1,3}(?:\.\d{1,3}){3}|[\da-fA-F]*:[\da-fA-F]*:[\da-fA-F:.]*)"
_FROM: Final = rf'{_REFERRER} {_AGENT}(?: "(?P<forwarded>{_IP}(?:,[^"]*)?)")?(?: .*)?'
_BALANCER: Final = (
    rf"\S+ (?P<address>\S+):\d+ \S+ [-\d.]+ [-\d.]+ [-\d.]+ {_STATUS} (?:\d{{3}}|-) \d+ \d+ "
    rf'{_REQUEST} "(?P<agent>.*?)" .+'
)

# From the most to the least particular: of two that fit equally many lines, the first one is taken.
_TEXT: Final[Mapping[str, str]] = {
    "alb": rf"(?:https?|h2|grpcs?|wss?) (?P<time>\S+Z) {_BALANCER}",
    "elb": rf"(?P<time>\S+Z) {_BALANCER}",
    "s3": (
        rf"[\da-f]{{32,}} (?P<host>\S+) {_TIME} (?P<address>\S+) (?P<user>\S+) (?P<id>\S+) \S+ \S+ {_REQUEST} "
        rf"{_STATUS} \S+ \S+ \S+ \S+ \S+ {_REFERRER} {_AGENT}(?: .*)?"
    ),
    "haproxy": (
        rf"(?:.*haproxy\[\d+\]: )?(?P<address>\S+):\d+ {_TIME} \S+ \S+ [-+\d/]+ (?P<status>-1|\d{{3}}) \+?\d+ .*? "
        rf"[-+\d/]+ \d+/\d+ (?:\{{.*\}} )?{_REQUEST}"
    ),
    "gandi": rf"{_HOST_WHO} \(\d+ s\) {_ANSWER} {_FROM}",
    "common_complete": rf"{_HOST_WHO} {_ANSWER} {_FROM}",
    "ovh": rf"{_ADDRESS} (?P<host>[\w-]+(?:\.[\w-]+)+) (?P<user>[^\[]+) {_TIME} {_ANSWER} {_FROM}",
    "combined": rf"{_WHO} {_ANSWER} {_FROM}",
    "common_vhost": rf"{_HOST_WHO} {_ANSWER}",
    "common": rf"{_WHO} {_ANSWER}",
}
# Where each field lies in an object of a JSON log; of several places, the first one that holds something is taken.
_JSON: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    "nginx_json": {
        "address": ("ip", "remote_addr"),
        "forwarded": ("http_x_forwarded_for",),
        "user": ("userid", "remote_user"),
        "time": ("date", "time_iso8601", "time_local", "msec"),
        "method": ("method", "request_method"),
        "target": ("path", "request_uri"),
        "status": ("status",),
        "host": ("host", "http_host"),
        "referrer": ("referrer", "http_referer"),
        "agent": ("user_agent", "http_user_agent"),
        "id": ("request_id",),
    },
    "caddy_json": {
        "address": ("request.client_ip", "request.remote_ip", "request.remote_addr"),
        "user": ("user_id",),
        "time": ("ts",),
        "method": ("request.method",),
        "target": ("request.uri",),
        "status": ("status",),
        "host": ("request.host",),
        "referrer": ("request.headers.Referer",),
        "agent": ("request.headers.User-Agent",),
        "refused": ("request.headers.Sec-Gpc", "request.headers.Dnt"),
    },
    "traefik_json": {
        "address": ("ClientHost",),
        "forwarded": ("request_X-Forwarded-For",),
        "user": ("ClientUsername",),
        "time": ("StartUTC", "time"),
        "method": ("RequestMethod",),
        "target": ("RequestPath",),
        "status": ("DownstreamStatus",),
        "host": ("RequestHost",),
        "referrer": ("request_Referer",),
        "agent": ("request_User-Agent",),
    },
}
# The same for the names after `#Fields:` of the W3C extended layout and for the heading of a table, in lower case.
_FIELDS: Final[Mapping[str, Sequence[str]]] = {
    "address": ("c-ip",),
    "forwarded": ("x-forwarded-for", "cs(x-forwarded-for)", "s-xff"),
    "user": ("cs-username",),
    "time": ("date", "date-local"),
    "method": ("cs-method",),
    "target": ("cs-uri-stem", "cs-uri"),
    "status": ("sc-status", "c-status"),
    # what the visitor asked for stands before the name of the machine that the request was handed on to
    "host": ("x-host-header", "cs-host", "cs(host)"),
    "referrer": ("cs(referer)", "cs(referrer)", "c-referrer"),
    "agent": ("cs(user-agent)", "c-user-agent"),
    "id": ("x-edge-request-id",),
    "event": ("x-event",),
}
_HEADING: Final[Mapping[str, Sequence[str]]] = {
    "address": ("host",),
    "user": ("logname",),
    "time": ("time",),
    "method": ("method",),
    "target": ("url",),
    "status": ("response",),
    "referrer": ("referer",),
    "agent": ("useragent",),
}
_CELL: Final = re.compile(r'"((?:[^"]|"")*)"|(\S+)')

# What stands in a file before its heading or between its rows is no request, but no mistake either.
NOTHING_ASKED: Final = Request(method="")

LAYOUTS: Final = (*_TEXT, *_JSON, "w3c", "table")


def find_layout(head: Iterable[str], name: str = "auto") -> Parse | None:
    """The layout of that name, or for "auto" the one that most of the first lines have; None if no line has one.

    Raises
    ------
    SettingsError
        There is no layout of that name.
    """
    if name not in ("auto", *LAYOUTS):
        raise SettingsError(f"unknown layout {name!r}; known: auto, {', '.join(LAYOUTS)}; or give a `pattern`")
    if name != "auto":
        return _parser(name)
    lines, fitting = list(head), {}
    for each in LAYOUTS:
        parse = _parser(each)
        requests = [parse(line) for line in lines]
        fitting[each] = sum(bool(request and request.address) for request in requests)
    best = max(fitting, key=lambda each: fitting[each])
    return _parser(best) if fitting[best] else None


def pattern_layout(pattern: str) -> Parse:
    """The layout that a regular expression of the configuration describes: its named groups are fields.

    Raises
    ------
    SettingsError
        It is no regular expression, names an unknown field or lacks one that must be there.
    """
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise SettingsError(f"[sources.<name>.options] pattern is no regular expression: {error}") from None
    unknown = [f"the unknown group {name!r}" for name in groups if name not in Request._fields]
    missing = [f"no group {name!r}" for name in ("address", "time", "target") if name not in groups]
    if problems := unknown + missing:
        raise SettingsError(
            f"[sources.<name>.options] pattern has {problems[0]}; known: {', '.join(Request._fields)}; of these, "
            "address, time and target must be there"
        )
    return _text(pattern)


def shape(line: str) -> str:
    """A line without what it says, for messages: words as `a`, numbers as `0`.

    >>> shape('203.0.113.9 - jane [05/Feb/2013:07:01:26 +0000] "GET /private?id=7')
    '0.0.0.0 - a [0/a/0:0:0:0 +0] "a /a?a=0'
    """
    short = re.sub(r"\d+", "0", re.sub(r"[^\W\d_]+", "a", line[:1000]))
    return short if len(short) <= 120 else short[:120] + " ..."


def _parser(name: str) -> Parse:
    if name in _TEXT:
        return _text(_TEXT[name])
    if name in _JSON:
        return _json(_JSON[name])
    return _W3C() if name == "w3c" else _Table()


def _text(pattern: str) -> Parse:
    # an empty group for each field that the layout lacks, so that one call hands out all fields in their order
    groups = re.compile(pattern).groupindex
    absent = [name for name in Request._fields if name not in groups]
    match = re.compile(f"(?:{pattern})" + "".join(f"(?P<{name}>)" for name in absent)).fullmatch
    silent = {name: value for name, value in Request._field_defaults.items() if value and name in absent}

    def parse(line: str) -> Request | None:
        found = match(line)
        if found is None:
            return None
        values = found.group(*Request._fields)
        request = Request._make(["" if value is None or value == "-" else value for value in values])
        return request._replace(**silent) if silent else request

    return parse


def _json(fields: Mapping[str, Sequence[str]]) -> Parse:
    paths = {field: [place.split(".") for place in places] for field, places in fields.items()}
    decode = msgspec.json.Decoder().decode

    def parse(line: str) -> Request | None:
        try:
            record = decode(line)
        except (msgspec.DecodeError, RecursionError):
            return None
        if not isinstance(record, dict):
            return None
        values = {field: _first(_inside(record, path) for path in places) for field, places in paths.items()}
        if not values["target"]:
            return NOTHING_ASKED
        values["method"] = values.get("method") or "GET"
        return Request(**values)

    return parse


def _inside(record: Any, path: list[str]) -> str:
    for part in path:
        record = record.get(part) if isinstance(record, dict) else None
        if isinstance(record, list):  # a header may be sent more than once
            record = record[0] if record else None
    return str(record) if isinstance(record, str | int | float) else ""


def _first(values: Iterable[str]) -> str:
    return next((value for value in values if value and value != "-"), "")


def _cells_request(cells: list[str], columns: Mapping[str, list[int]]) -> Request:
    """The request of a row. A column that is not there leaves the default; an empty cell does not."""
    return Request(**{field: _first(cells[place] for place in places) for field, places in columns.items() if places})


def _columns(names: list[str], fields: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    return {field: [names.index(name) for name in wanted if name in names] for field, wanted in fields.items()}


class _W3C:
    """The W3C extended layout, which says in `#Fields:` what its columns are, and may say it anew further down."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.columns: dict[str, list[int]] = {}
        self.date = ""

    def __call__(self, line: str) -> Request | None:
        if line.startswith("#"):
            directive, _, value = line.partition(":")
            if directive == "#Fields":
                # a sample of a vendor's manual has zero-width spaces in it
                self.names = value.replace("\u200b", " ").lower().split()
                self.columns = _columns(self.names, _FIELDS)
            elif directive == "#Date":
                self.date = value.strip()[:10]
            return None
        if not self.names:
            return None
        cells = _cells(line)
        if len(cells) != len(self.names):
            return None
        row = dict(zip(self.names, cells, strict=True))
        request = _cells_request(cells, self.columns)
        query = row.get("cs-uri-query", "-")
        target = request.target
        # of a stream, the page that the player stands on
        if request.event:
            target = _first([row.get("x-page-url", ""), target])
        elif query not in ("", "-") and target:
            target = f"{target}?{query}"
        # without "-local" the clock is UTC; old servers give the date once, at the top
        local = "time-local" in row
        moment = f"{request.time or self.date}T{row.get('time-local' if local else 'time', '')}{'' if local else 'Z'}"
        return request._replace(target=target, time=moment, agent=_plain(request.agent))


def _cells(line: str) -> list[str]:
    line = line.replace("\u200b", "")
    if '"' in line:
        return [bare or quoted.replace('""', '"') for quoted, bare in _CELL.findall(line)]
    return line.split("\t") if "\t" in line else line.split()


@lru_cache(maxsize=10_000)
def _plain(agent: str) -> str:
    """A user agent with its spaces: some servers write `+` or `%20` for them, one encodes even the `%`."""
    if "%" in agent:
        agent = unquote(unquote(agent))
    return agent.replace("+", " ") if " " not in agent else agent


class _Table:
    """Cells between tabs under a heading, as archives hand old logs on."""

    def __init__(self) -> None:
        self.width = 0
        self.columns: dict[str, list[int]] = {}

    def __call__(self, line: str) -> Request | None:
        cells = line.split("\t")
        if not self.width:
            names = [cell.strip().lower() for cell in cells]
            if not {"host", "time", "url"} <= set(names):
                return None
            self.width, self.columns = len(names), _columns(names, _HEADING)
            return NOTHING_ASKED
        # rows may end in empty cells that the heading does not have
        return _cells_request(cells, self.columns) if len(cells) >= self.width else None
