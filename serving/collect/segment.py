"""Segment: the calls of its browser, mobile and server libraries, one at a time and in batches, and their settings.

A call becomes events by `features.segment`, the code that reads its archives, so that live and history are the same;
`[sources.segment]` of configs/shop.toml (events, options.consent_categories) holds for both. As Segment does, every
request that is JSON and not too long is answered with 200, whatever is in it; what cannot be used is counted.

Settings are what analytics.js asks its CDN for first; without them it sends nothing.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from features.agents import device_of
from features.events import CONSENTS
from features.segment import (
    EVENTS,
    NO_STEP,
    NOT_LINKED,
    OTHERS,
    STEPS,
    WITHHELD,
    Calls,
    Row,
    as_object,
    first,
    is_withheld,
    visitor_of,
)
from features.settings import SettingsError, options_of
from serving.collect import TOO_MANY, Collected, Endpoint, Hit, Refused, Tools
from serving.collect.segment_options import SegmentOptions
from serving.http.call import Reply
from serving.intake import PAGE_LIMIT, TEXT_LIMIT, EventIn
from serving.requests import Answer

if TYPE_CHECKING:
    from serving.collect.segment_identify import Identify

# What the path says of the call in the body; batches hold calls that say it themselves.
_KINDS: Final = {"t": "track", "p": "page", "s": "screen", "i": "identify", "g": "group", "a": "alias"}
_BATCHES: Final = ("b", "batch", "import")
_METRICS: Final = "/v1/m"
_SETTINGS: Final = ("/v1/projects/", "/settings")
# Segment's own limits.
_CALL_BYTES: Final = 32 * 1024
_BATCH_BYTES: Final = 500 * 1024
_BATCH_CALLS: Final = 2_500
_JSON: Final = b"application/json"
_SUCCESS: Final = Reply(_JSON, b'{"success":true}')
_TOO_MANY: Final = "the request holds too many events"


class _HistoryOptions(msgspec.Struct):
    """What concerns us of `[sources.segment.options]`."""

    consent_categories: dict[str, tuple[Literal["measure", "link", "personalise"], ...]] = {}


class _Batch(msgspec.Struct):
    """The body of a batch; context and integrations: what all of its calls share."""

    batch: list[msgspec.Raw]
    sentAt: Any = None  # noqa: N815  (theirs)
    writeKey: Any = None  # noqa: N815
    context: Any = None
    integrations: Any = None


_decode_batch = msgspec.json.Decoder(_Batch).decode
_decode = msgspec.json.Decoder().decode
_BROKEN: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Segment:
    """Its endpoints."""

    def __init__(self, tools: Tools) -> None:
        options = options_of("collect.options.segment", tools.options, SegmentOptions)
        source = tools.shop.sources.get("segment")
        names = {**tools.shop.events, **EVENTS, **(source.events if source else {})}
        categories = _categories(source.options if source else {})
        self._calls = Calls(names, categories, lambda what: None)
        self._consent, self._api_host = tools.consent, options.api_host
        self._write_keys = frozenset(options.write_keys)
        self.identify: Identify | None = None
        if options.identify is not None:
            # an HTTP client takes a tenth of a second to load
            from serving.collect import segment_identify  # noqa: PLC0415

            self.identify = segment_identify.Identify(options.identify, tools.sent_back)
        self._endpoints: dict[str, Endpoint] = {_METRICS: Endpoint(("POST",), _nothing, _success)}
        for letter, kind in _KINDS.items():
            endpoint = Endpoint(("POST",), partial(self._read_call, kind), self._answer, _too_many)
            self._endpoints |= {f"/v1/{letter}": endpoint, f"/v1/{kind}": endpoint}
        for name in _BATCHES:
            self._endpoints[f"/v1/{name}"] = Endpoint(("POST",), self._read_batch, self._answer, _too_many)
        self._settings = Endpoint(("GET",), _nothing, self._answer_settings)

    def endpoint(self, path: str) -> Endpoint | None:
        """`/v1/t`, `/v1/track`, ..., `/v1/batch`, `/v1/projects/<write key>/settings`."""
        if path.startswith(_SETTINGS[0]):
            return self._settings if _write_key_of(path) else None
        return self._endpoints.get(path.removesuffix("/"))

    def _read_call(self, kind: str, hit: Hit) -> Collected:
        if len(hit.body) > _CALL_BYTES:
            raise _refused("a call of more than 32 kB", "the request is larger than 32KB")
        try:
            call = _decode(hit.body)
        except _BROKEN:
            raise _refused("no JSON", "malformed JSON") from None
        if not isinstance(call, dict):
            raise _refused("no JSON object", "the body is no object")
        collected = Collected()
        if self._is_ours(hit, call.get("writeKey"), 1, collected):
            call["type"] = kind
            self._take(call, hit, call.get("sentAt"), collected)
        return collected

    def _read_batch(self, hit: Hit) -> Collected:
        if len(hit.body) > _BATCH_BYTES:
            raise _refused("a batch of more than 500 kB", "the request is larger than 500KB")
        try:
            body = _decode_batch(hit.body)
        except msgspec.ValidationError:
            raise _refused("no batch", "the body has no array `batch`") from None
        except _BROKEN:
            raise _refused("no JSON", "malformed JSON") from None
        if len(body.batch) > _BATCH_CALLS:
            raise _refused(TOO_MANY, _TOO_MANY)
        collected = Collected()
        if not self._is_ours(hit, body.writeKey, len(body.batch), collected):
            return collected
        for raw in body.batch:
            if memoryview(raw).nbytes > _CALL_BYTES:
                collected.dropped.append("a call of more than 32 kB")
                continue
            try:
                call = _decode(raw)
            except _BROKEN:
                call = None
            if not isinstance(call, dict):
                collected.dropped.append("no JSON object")
                continue
            for name, shared in (("context", body.context), ("integrations", body.integrations)):
                if isinstance(shared, dict):
                    call[name] = {**shared, **as_object(call.get(name))}
            self._take(call, hit, body.sentAt, collected)
        return collected

    def _is_ours(self, hit: Hit, written: Any, calls: int, collected: Collected) -> bool:
        """Whether the write key, of the header or the body, is one of ours."""
        if not self._write_keys or (_basic_user(hit) or written) in self._write_keys:
            return True
        collected.dropped += ["unknown write key"] * calls
        return False

    def _take(self, call: Row, hit: Hit, sent_at: Any, collected: Collected) -> None:
        """Add a call's events, or why there are none."""
        dropped, kind = collected.dropped, call.get("type")
        bits = self._calls.consent_of_call(call)
        granted = None if bits is None else [name for name, bit in CONSENTS.items() if bits & bit]
        device, account = first(call, "anonymousId"), first(call, "userId")
        # also by a call that is nothing to be counted
        if account is not None and self._consent.refuses_link(hit.headers, granted):
            collected.unlink(_text(account))
        if kind not in STEPS:
            dropped.append(f"{kind}: {NO_STEP}" if kind in OTHERS else "unknown type")
            return
        if is_withheld(call):
            dropped.append(WITHHELD)
            return
        consent = self._consent.of(hit.headers, granted)
        visitor = visitor_of(device, account, linked="link" in consent)
        if visitor is None:
            dropped.append("no visitor" if account is None else NOT_LINKED)
            return
        if kind == "track" and first(call, "event") is None:
            dropped.append("no name")
            return
        who = {"userId": _text(account)} if device is None else {"anonymousId": _text(device)}
        for record in self._calls.of_call(call, visitor, consent):
            if len(collected.events) >= _BATCH_CALLS:
                raise _refused(TOO_MANY, _TOO_MANY)
            try:
                collected.events.append(self._event(record, sent_at))
            except msgspec.ValidationError as error:
                # "... - at `$.price`"
                dropped.append(f"bad {str(error).rpartition('$.')[2].strip('`')}")
            else:
                collected.whos.append(who)

    def _event(self, record: Row, sent_at: Any) -> EventIn:
        """A record as an event on the wire.

        Raises
        ------
        msgspec.ValidationError
            A value breaks the contract.
        """
        name = record["name"]
        wire = {
            "visitor": _text(record["visitor"]),
            "name": self._calls.ours(name),
            "id": _text(record["id"]),
            "time": record["time"],
            "sent_at": sent_at,
            "page": _text(record["page"])[:PAGE_LIMIT],
            "item": _text(record["item"]),
            "category": _text(record["category"]),
            "campaign": _text(record["campaign"])[:TEXT_LIMIT],
            "currency": _text(record["currency"]),
            "consent": record["consent"],
            "utc_offset": record["utc_offset"],
            "device": device_of(str(record["user_agent"] or "")),
            "channel": record["channel"] or "unknown",
        }
        for key in ("price", "quantity", "value"):
            if record[key] is not None:
                wire[key] = record[key]
        # numbers may come as text
        return msgspec.convert(wire, EventIn, strict=False)

    def _answer(self, hit: Hit, collected: Collected, answers: Sequence[Answer]) -> Reply:
        """Success; scores are on their way back to Segment if that is wanted."""
        del hit
        # where the intake refused one, nobody knows which answer is whose
        if self.identify is not None and len(answers) == len(collected.events):
            for event, who, answer in zip(collected.events, collected.whos, answers, strict=True):
                if event.consent and "personalise" in event.consent:
                    self.identify.offer(who, answer)
                else:
                    self.identify.forget(who)
        return _SUCCESS

    def _answer_settings(self, hit: Hit, collected: Collected, answers: Sequence[Answer]) -> Reply:
        """What analytics.js needs to send its calls here, and nothing else.

        Raises
        ------
        Refused
            The write key is none of ours.
        """
        del collected, answers
        write_key = _write_key_of(hit.path)
        if self._write_keys and write_key not in self._write_keys:
            raise _refused("unknown write key", "unknown write key", 404)
        host = self._api_host or f"{hit.header(b'host')}/v1"
        settings = {
            "integrations": {"Segment.io": {"apiKey": write_key, "apiHost": host}},
            "plan": {},
            "metrics": {"sampleRate": 0},
            "enabledMiddleware": {},
            "middlewareSettings": {},
            "remotePlugins": [],
        }
        return Reply(_JSON, msgspec.json.encode(settings))


def _categories(found: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    """What the shop's own consent categories grant, of the options of its history.

    Raises
    ------
    SettingsError
        They cannot be.
    """
    try:
        return msgspec.convert(found, _HistoryOptions).consent_categories
    except msgspec.ValidationError as error:
        raise SettingsError(f"[sources.segment.options] of configs/shop.toml: {error}") from None


def _nothing(hit: Hit) -> Collected:
    del hit
    return Collected()


def _success(hit: Hit, collected: Collected, answers: Sequence[Answer]) -> Reply:
    del hit, collected, answers
    return _SUCCESS


def _too_many(hit: Hit, collected: Collected) -> Reply:
    del hit, collected
    return _refused(TOO_MANY, _TOO_MANY).reply


def _refused(reason: str, message: str, status: int = 400) -> Refused:
    body = {"success": False, "code": "invalid_request", "message": message}
    return Refused(reason, Reply(_JSON, msgspec.json.encode(body), status))


def _write_key_of(path: str) -> str:
    """The write key of a path of settings, empty if it is none."""
    begin, end = _SETTINGS
    key = path.removeprefix(begin).removesuffix(end)
    return key if path == f"{begin}{key}{end}" and "/" not in key else ""


def _basic_user(hit: Hit) -> str:
    """The user of Basic authentication, which is the write key; empty if it did not come."""
    scheme, _, encoded = hit.header(b"authorization").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return b64decode(encoded, validate=True).decode().partition(":")[0]
    except ValueError:
        return ""


def _text(value: Any) -> str:
    """A value as text, as the readers of histories have it: 1532.0 is the id 1532."""
    if isinstance(value, str):
        return value
    return "" if value is None else str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
