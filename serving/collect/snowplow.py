"""Snowplow: `POST .../com.snowplowanalytics.snowplow/tp2` (or the site's own `postPath`) and `GET /i`.

Each event is laid out as Enrich does it (`COLUMNS`) and read by the code that reads its history
(`features.trackers.snowplow`). Snowplow's collector takes anything and judges it later; so does this one: what cannot
be used is dropped and counted, and the answer is 200, because a tracker keeps what is answered with an error and sends
it again.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from features.remember import Entries
from features.settings import Settings, options_of
from features.trackers.snowplow import (
    DEVICES,
    EVENTS,
    QUARTER_SECONDS,
    Rules,
    SnowplowEvent,
    SnowplowOptions,
    add_entities,
    self_described,
    utc_offset,
)
from serving.collect import GIF, Collected, Endpoint, Hit, Tools
from serving.collect.forms import fields
from serving.collect.records import BadValueError, event_of, names_of
from serving.collect.vocabulary import UnusableError, name_of, own_names, source_options, text
from serving.http.call import Reply
from serving.intake import EventIn
from serving.requests import Answer

# The tracker protocol's parameters -> Enrich's columns. The client's address, title, screen, colours, fingerprint and
# the like are not looked at.
COLUMNS: Final = {
    "e": "event",
    "eid": "event_id",
    "aid": "app_id",
    "p": "platform",
    "dtm": "dvce_created_tstamp",
    "stm": "dvce_sent_tstamp",
    "ttm": "true_tstamp",
    "tz": "os_timezone",
    "uid": "user_id",
    "duid": "domain_userid",
    "nuid": "network_userid",
    "tnuid": "network_userid",
    "sid": "domain_sessionid",
    "ua": "useragent",
    "url": "page_url",
    "refr": "page_referrer",
    "se_ca": "se_category",
    "se_ac": "se_action",
    "pp_may": "pp_yoffset_max",
    "vp": "viewport",
    "ds": "document",
    "tr_tt": "tr_total",
    "tr_cu": "tr_currency",
    "ti_sk": "ti_sku",
    "ti_ca": "ti_category",
    "ti_pr": "ti_price",
    "ti_qu": "ti_quantity",
    "ti_cu": "ti_currency",
    # as JSON, or as base64 of it
    "co": "contexts",
    "cx": "contexts_base64",
    "ue_pr": "unstruct_event",
    "ue_px": "unstruct_event_base64",
}
KINDS: Final = {
    "pv": "page_view",
    "pp": "page_ping",
    "se": "struct",
    "ue": "unstruct",
    "tr": "transaction",
    "ti": "transaction_item",
}
# What Enrich makes two columns of: the height is looked at.
_HEIGHTS: Final = {"viewport": "br_viewheight", "document": "doc_height"}
_ADDRESSES: Final = ("page_url", "page_referrer")
_LONGEST: Final = 2_000
# No device waits longer, and no clock is believed beyond it.
_OLDEST_MS: Final = 10 * 365 * 86_400_000
_NOT_KEPT: Final = ((b"cache-control", b"no-cache, no-store, must-revalidate"),)
_decode: Final = msgspec.json.Decoder().decode


class SnowplowCollect(Settings):
    """`[collect.options.snowplow]`.

    Attributes
    ----------
    post_paths: what the site gives its tracker as `postPath`, beside the usual one.
    """

    post_paths: tuple[str, ...] = ()


class Snowplow:
    """Its endpoints."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        paths = options_of("collect.options.snowplow", tools.options, SnowplowCollect).post_paths
        self._paths = frozenset("/" + path.strip("/") for path in paths)
        self._apps = frozenset(source_options(tools.shop, "snowplow", SnowplowOptions).app_ids)
        self._names = own_names(tools.shop, "snowplow", EVENTS)
        section = tools.shop.sources.get("snowplow")
        self._rules = Rules(self._names, {**DEVICES, **(section.devices if section else {})}, {}, Entries())
        self._post = Endpoint(("POST",), self.read_post, self.answer_post, self.answer_too_many)
        self._get = Endpoint(("GET",), self.read_get, self.answer_get, self.answer_too_many)

    def endpoint(self, path: str) -> Endpoint | None:
        """`tp2` below any path, the site's own paths, and `/i`."""
        if path.endswith("/com.snowplowanalytics.snowplow/tp2") or path in self._paths:
            return self._post
        return self._get if path == "/i" else None

    def read_post(self, hit: Hit) -> Collected:
        """The events of a payload; each by itself."""
        try:
            payload = _decode(hit.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Collected(dropped=["no JSON"])
        data = payload.get("data") if isinstance(payload, dict) else None
        if not isinstance(data, list):
            return Collected(dropped=["no payload data"])
        return self._read(hit, (_columns(each) if isinstance(each, dict) else {} for each in data))

    def read_get(self, hit: Hit) -> Collected:
        """The event of a query."""
        return self._read(hit, [fields(hit.query, COLUMNS)])

    def answer_post(self, hit: Hit, collected: Collected, answers: Sequence[Answer]) -> Reply:
        """200, whatever was read."""
        del hit, collected, answers
        return Reply(b"text/plain; charset=utf-8", b"ok", 200)

    def answer_get(self, hit: Hit, collected: Collected, answers: Sequence[Answer]) -> Reply:
        """A pixel, whatever was read."""
        del hit, collected, answers
        return Reply(b"image/gif", GIF, 200, _NOT_KEPT)

    def answer_too_many(self, hit: Hit, collected: Collected) -> Reply:
        """The same: what is answered with an error is sent again as it is."""
        return (self.answer_get if hit.method == "GET" else self.answer_post)(hit, collected, ())

    def _read(self, hit: Hit, events: Iterable[dict[str, Any]]) -> Collected:
        collected = Collected()
        for columns in events:
            try:
                collected.events += self._events(hit, columns, collected)
            except (UnusableError, BadValueError) as error:
                collected.dropped.append(str(error))
        return collected

    def _events(self, hit: Hit, event: dict[str, Any], collected: Collected) -> list[EventIn]:
        if self._apps and event.get("app_id") not in self._apps:
            raise UnusableError("another app_id")
        _complete(event)
        # a site's own server speaks for many visitors: its header is of none of them
        web = event.get("platform") == "web"
        if web:
            event.setdefault("useragent", hit.header(b"user-agent"))
        anonymous = b"sp-anonymous" in hit.headers
        found = SnowplowEvent(event, self._rules)
        account = event.get("user_id")
        if account and self._tools.consent.refuses_link(hit.headers, _chosen(found)):
            collected.unlink(account)
        if anonymous:
            found.known, found.visitor, account = None, found.session, None
        consent = self._consent(hit, found)
        if account and "link" in consent:
            visitor = account
        else:
            visitor = text(found.visitor)
            if not found.known:
                consent = [name for name in consent if name != "link"]
        if not visitor and (anonymous or web):
            visitor = self._tools.anonymous.visitor(hit, event.get("app_id", ""))
        if not visitor:
            raise UnusableError("no visitor")
        time = _time(event, hit.received_ms)
        zone = event.get("os_timezone")
        offset = utc_offset(zone, time // (1000 * QUARTER_SECONDS)) if zone else None
        records = found.events(visitor=visitor, time=time, utc_offset=offset)
        return [event_of(record, name_of(self._names, record["name"]), consent) for record in records]

    def _consent(self, hit: Hit, found: SnowplowEvent) -> list[str]:
        """What holds for an event.

        A choice is told once, in an event of its own, and the events after it do not repeat it: taken at its word it
        would make its event another visitor's than the rest. So it only takes away; what is granted has to stand
        beside every event.
        """
        of, told = self._tools.consent.of, found.told()
        if told is None:
            return of(hit.headers)
        given = names_of(told)
        return [name for name in of(hit.headers) if name in given] if found.chose() else of(hit.headers, given)


def _chosen(found: SnowplowEvent) -> list[str] | None:
    """What the visitor's choice grants; None without one: another basis for processing an event is no refusal."""
    chosen = found.choice()
    return None if chosen is None else names_of(chosen)


def _columns(wire: Mapping[str, Any]) -> dict[str, Any]:
    """Enrich's columns of an event on the wire; texts, and numbers as texts."""
    found: dict[str, Any] = {}
    for key, value in wire.items():
        column = COLUMNS.get(key)
        if column is not None and value:
            if type(value) is str:
                found[column] = value
            elif isinstance(value, int | float):
                found[column] = str(value)
    return found


def _complete(event: dict[str, Any]) -> None:
    """What Enrich makes of the columns: the kind's name, JSON unpacked, heights.

    Raises
    ------
    UnusableError
        There is no kind, or the JSON is none.
    """
    kind = KINDS.get(event.get("event", ""))
    if kind is None:
        raise UnusableError("no event type")
    event["event"] = kind
    for name in _ADDRESSES:
        if name in event:
            event[name] = event[name][:_LONGEST]
    if kind == "page_ping":
        for name, height in _HEIGHTS.items():
            event[height] = event.get(name, "").partition("x")[2]
    entities: dict[str, list[dict[str, Any]]] = {}
    event |= {"schema": "", "data": {}, "entities": entities}
    try:
        if (contexts := _json(event, "contexts")) is not None:
            add_entities(entities, contexts)
    except _NO_JSON:
        raise UnusableError("bad contexts") from None
    if kind == "unstruct":
        try:
            event |= self_described(_json(event, "unstruct_event"))
        except _NO_JSON:
            raise UnusableError("bad self-describing event") from None


_NO_JSON: Final = (
    msgspec.DecodeError,
    UnicodeError,
    RecursionError,
    binascii.Error,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
)


def _json(event: dict[str, Any], column: str) -> Any:
    """The JSON of a column, plain or in base64 (of the URL's alphabet, without its padding); None without either."""
    plain = event.get(column)
    if plain is not None:
        return _decode(plain)
    packed = event.get(f"{column}_base64")
    return None if packed is None else _decode(urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))


def _time(event: Mapping[str, Any], received_ms: int) -> int:
    """Snowplow's derived time: the true one if it is told, else arrival less what the event waited on the device."""
    true = _whole(event.get("true_tstamp"))
    if true is None:
        created, sent = _whole(event.get("dvce_created_tstamp")), _whole(event.get("dvce_sent_tstamp"))
        true = received_ms if created is None or sent is None else received_ms - (sent - created)
    return min(max(true, received_ms - _OLDEST_MS), received_ms)


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
