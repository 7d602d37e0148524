"""Tealium: the Collect tag, the HTTP API, EventStream webhooks, and scores through the visitor service.

Events become records by the very code that reads Tealium's archives (`features.sources.tealium_event`): names of events
and variables are the shop's, as `[sources.tealium]` of configs/shop.toml maps them. Only two things are added: the
user agent where the event does not tell it, and an IAB TCF string in the address.

The tag's clock is corrected by when it sent (`post_time`). Scores go back as a visitor's metrics and badges, to a page
that asks for the visitor it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from pydantic import Field

from features.agents import device_of
from features.events import EVENT_NAMES
from features.remember import Entries
from features.settings import Settings, options_of
from features.sources.tealium_event import (
    DEFAULTS,
    Row,
    TealiumEvents,
    TealiumOptions,
    TooManyProductsError,
    is_step,
)
from serving.collect import GIF, TOO_MANY, Collected, Endpoint, Hit, Refused, Tools
from serving.collect.records import BadValueError, event_of, names_of
from serving.consent import of_tcf
from serving.http.call import Reply
from serving.requests import Answer, View

_TAG: Final = re.compile(r"/[\w.-]+/[\w.-]+/\d+/i\.gif")
# The tag's ids have 45 hexadecimal digits, those of apps 32: nothing else that has three parts in its path looks so.
_VISITOR: Final = re.compile(r"/[\w.-]+/[\w.-]+/([0-9A-Fa-f]{32,64})")
# utag.ut["writevamain"], as it is or by a name: nothing that could be more than a name in a script.
_CALLBACK: Final = re.compile(r"""[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*|\["[\w-]+"\]|\['[\w-]+'\])*""")
_CALLBACK_LENGTH: Final = 128
_EVENTS: Final = 1_000
_TOO_MANY: Final = f"at most {_EVENTS} events in a request"
_PRODUCTS: Final = 200
_PARAMETERS: Final = 1_000
_NAMES: Final = frozenset(EVENT_NAMES)
_JAVASCRIPT: Final = b"application/javascript; charset=utf-8"
_NO_SNIFFING: Final = ((b"x-content-type-options", b"nosniff"),)
_MADE: Final = ("timestamp_unix_milliseconds", "tealium_timestamp_utc", "tealium_timestamp_epoch", "post_time")
_BADGE: Final = 0.5


class TealiumSettings(Settings):
    """`[collect.options.tealium]`.

    region: what `X-Region` says; with one the tag sends its later events as beacons, without one it never does.
    badges: of a score, from where on its badge is there; 0.5 for those that are not named.
    visitor_service: whether scores are told to who asks with a visitor's id.
    """

    region: str = "lotse"
    badges: dict[str, float] = Field(default_factory=dict)
    visitor_service: bool = True


class Tealium:
    """Its endpoints."""

    def __init__(self, tools: Tools) -> None:
        settings = tools.shop.source("tealium", DEFAULTS)
        self._tools = tools
        self._options = options_of("collect.options.tealium", tools.options, TealiumSettings)
        self._names = {**tools.shop.events, **settings.events}
        self._custom = settings.unknown_events == "custom"
        self._devices = settings.devices
        told = options_of("sources.tealium.options", settings.options, TealiumOptions)
        entry = Entries()
        self._records = TealiumEvents(self._names, told, entry, most=_PRODUCTS)
        # the tag says when it sent, too, by which its clock is corrected
        self._tagged = TealiumEvents(self._names, told, entry, times=_MADE, most=_PRODUCTS)
        self._headers = ((b"x-region", self._options.region.encode()),) if self._options.region else ()
        event = Endpoint(("GET", "POST"), self._read_event, self._taken, _too_many)
        bulk = Endpoint(("POST",), self._read_bulk, self._taken, _too_many)
        self._tag = Endpoint(("GET", "POST"), self._read_tag, self._pixel, _too_many)
        self._visitor = Endpoint(("GET",), self._read_visitor, self._scores)
        self._paths = {
            "/event": event,
            "/v3/collect/event": event,
            "/bulk-event": bulk,
            "/v3/collect/bulk-event": bulk,
            "/vdata/i.gif": Endpoint(("GET", "POST"), self._read_event, self._pixel, _too_many),
            "/tealium/webhook": Endpoint(("POST",), self._read_webhook, self._taken, _too_many),
        }

    def endpoint(self, path: str) -> Endpoint | None:
        """By the path: those that have one name, the tag's, and a visitor's."""
        found = self._paths.get(path)
        if found is None and _TAG.fullmatch(path):
            return self._tag
        if found is None and self._options.visitor_service and _VISITOR.fullmatch(path):
            return self._visitor
        return found

    def _read_tag(self, hit: Hit) -> Collected:
        """One event of the tag: a form with a field `data`, or the same in the address."""
        content = _parameters(hit).get("data", "").encode() if hit.method == "GET" else _field(hit.body)
        found = _object(content)
        sent_at = found.get("post_time")
        return self._collected(hit, [found], self._tagged, sent_at if isinstance(sent_at, int) else None)

    def _read_event(self, hit: Hit) -> Collected:
        """One event of the tag, an app or a server: flat JSON, or parameters."""
        found: Row = dict(_parameters(hit)) if hit.method == "GET" else _object(_field(hit.body))
        if not _has_account(found):
            raise _refused("no account or profile", "tealium_account and tealium_profile are required")
        return self._collected(hit, [found], self._records)

    def _read_bulk(self, hit: Hit) -> Collected:
        """Several events, and what they share."""
        found = _object(hit.body)
        shared, events = found.get("shared", {}), found.get("events")
        if not isinstance(events, list) or not events or not isinstance(shared, dict):
            raise _refused("no events", "events must be a list, shared an object")
        whole = [{**shared, **event} if isinstance(event, dict) else event for event in events[: _EVENTS + 1]]
        return self._collected(hit, whole, self._records, account=True)

    def _read_webhook(self, hit: Hit) -> Collected:
        """What EventStream sends: an event in the shape of its store, or several. Whose agent sends says nothing."""
        found = _decoded(hit.body)
        return self._collected(hit, found if isinstance(found, list) else [found], self._records, agent=False)

    def _collected(
        self,
        hit: Hit,
        found: Sequence[Any],
        records: TealiumEvents,
        sent_at: int | None = None,
        *,
        account: bool = False,
        agent: bool = True,
    ) -> Collected:
        """The events of some objects.

        account: whether each has to say whose it is; agent: whether the request's own agent is the visitor's.
        """
        if len(found) > _EVENTS:
            raise _refused(TOO_MANY, _TOO_MANY)
        collected, device = Collected(), device_of(hit.header(b"user-agent")) if agent else "unknown"
        tcf = _tcf(hit)
        for each in found:
            if not isinstance(each, dict):
                collected.dropped.append("no object")
            elif account and not _has_account(each):
                collected.dropped.append("no account or profile")
            elif not is_step(each):
                collected.dropped.append("no step of a visitor")
            else:
                try:
                    self._add(collected, records(each), hit, device, sent_at, tcf)
                except TooManyProductsError:
                    collected.dropped.append("too many products")
                if len(collected.events) > _EVENTS:  # what is shared must not multiply without end
                    raise _refused(TOO_MANY, _TOO_MANY)
        return collected

    def _add(
        self,
        collected: Collected,
        records: list[Row],
        hit: Hit,
        device: str,
        sent_at: int | None,
        tcf: tuple[str, ...] | None,
    ) -> None:
        """The events of one object's records, all of one visitor, name and consent."""
        first = records[0]
        if first["visitor"] in (None, ""):
            collected.dropped.append("no visitor")
            return
        name = str(first["name"])
        name = self._names.get(name, name)
        if name not in _NAMES and self._custom:
            name = "custom"
        granted = None if first["consent"] is None else names_of(first["consent"])
        if tcf is not None:
            granted = [each for each in tcf if granted is None or each in granted]
        consent, kind = self._tools.consent.of(hit.headers, granted), first["device"]
        said = {"device": device if kind is None else self._devices.get(kind, kind), "sent_at": sent_at}
        for record in records:
            record.update(said)
            try:
                collected.events.append(event_of(record, name, consent))
            except BadValueError as error:
                collected.dropped.append(str(error))

    def _read_visitor(self, hit: Hit) -> Collected:
        """Nothing; who is asked for, and what the answer is handed to."""
        visitor = _VISITOR.fullmatch(hit.path)
        callback = _parameters(hit).get("callback", "")
        if len(callback) > _CALLBACK_LENGTH or (callback and not _CALLBACK.fullmatch(callback)):
            raise _refused("no name of a callback", "callback must be the name of a function")
        assert visitor is not None  # by the path
        return Collected(about=(visitor[1], callback))

    def _pixel(self, hit: Hit, collected: Collected, answers: Sequence[Answer]) -> Reply:
        """A pixel, and the region, which the tag looks for."""
        del hit, collected, answers
        return Reply(b"image/gif", GIF, headers=self._headers)

    def _taken(self, hit: Hit, collected: Collected, answers: Sequence[Answer]) -> Reply:
        """Nothing to say; a pixel to who asked for one."""
        if hit.method == "GET":
            return self._pixel(hit, collected, answers)
        return Reply(b"text/plain", b"", headers=self._headers)

    async def _scores(self, hit: Hit, collected: Collected, answers: Sequence[Answer]) -> Reply:
        """A visitor as Tealium's service tells it; of one that is not here, nothing, which the tag leaves alone."""
        del hit, answers
        visitor, callback = collected.about
        view = await self._tools.look(visitor)
        told = msgspec.json.encode({} if view is None else self._profile(view))
        if not callback:
            return Reply(b"application/json", told)
        # the comment keeps the answer from being anything but a script
        return Reply(_JAVASCRIPT, b"/**/" + callback.encode() + b"(" + told + b")", headers=_NO_SNIFFING)

    def _profile(self, view: View) -> dict[str, Any]:
        thresholds = self._options.badges
        badges = [head for head, score in view.scores.items() if score >= thresholds.get(head, _BADGE)]
        return {
            "metrics": {f"lotse_{head}": score for head, score in view.scores.items()},
            "properties": {f"lotse_{head}_model": version for head, version in view.models.items()},
            "badges": {f"lotse_{head}": True for head in badges},
            "audiences": {},
        }


def _has_account(found: Row) -> bool:
    return all(found.get(f"tealium_{what}") or found.get(what) for what in ("account", "profile"))


def _tcf(hit: Hit) -> tuple[str, ...] | None:
    """What the TCF string in the address grants; None without one, or where it does not apply."""
    if "gdpr_consent=" not in hit.query:
        return None
    found = _parameters(hit)
    return None if found.get("gdpr") == "0" else of_tcf(found.get("gdpr_consent", ""))


def _field(body: bytes) -> bytes:
    """The field `data` of a form, in either of the two ways in which forms are sent; a body that is none, itself."""
    if body[:2] == b"--":
        for part in body.split(body.partition(b"\r\n")[0])[1:]:
            head, _, content = part.partition(b"\r\n\r\n")
            if b'name="data"' in head:
                return content.removesuffix(b"\r\n")
        return b""
    return unquote_plus(body[5:].decode("latin-1")).encode() if body[:5] == b"data=" else body


def _parameters(hit: Hit) -> dict[str, str]:
    try:
        return dict(parse_qsl(hit.query, max_num_fields=_PARAMETERS))
    except ValueError:
        raise _refused("too many parameters", f"at most {_PARAMETERS} parameters") from None


def _object(content: bytes) -> Row:
    found = _decoded(content)
    if not isinstance(found, dict):
        raise _refused("no JSON object", "the event must be a JSON object")
    return found


def _decoded(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _refused("no JSON", "the event must be JSON") from None


def _too_many(hit: Hit, collected: Collected) -> Reply:
    del hit, collected
    return _refused(TOO_MANY, _TOO_MANY).reply


def _refused(reason: str, told: str) -> Refused:
    return Refused(reason, Reply(b"text/plain", b"", 400, ((b"x-error", told.encode()),)))
