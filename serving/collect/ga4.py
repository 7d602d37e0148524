"""Google Analytics 4: `/g/collect` of gtag.js and its like, `/mp/collect` and `/debug/mp/collect` of servers.

Below any path, as a site's own tagging server has it. Events are laid out under their names in the BigQuery export and
read by the rules that read it (`features.trackers.ga4`). Google answers 204 whatever came; so do we. Web hits carry no
clock: an event counts when it comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from features.agents import device_of
from features.remember import Entries
from features.trackers.ga4 import (
    DEVICES,
    EVENTS,
    Ga4Options,
    interactive,
    is_money,
    known,
    origin,
    with_items,
)
from serving.collect import Collected, Endpoint, Hit, Tools
from serving.collect.forms import fields
from serving.collect.ga4_validation import MOST_EVENTS, name_problem, problems
from serving.collect.records import BadValueError, amount, event_of
from serving.collect.vocabulary import UnusableError, name_of, own_names, source_options, text
from serving.consent import is_unanswered, of_consent_mode
from serving.http.call import Reply
from serving.intake import EventIn
from serving.requests import Answer

_ITEMS: Final = {f"pr{place}": f"pr{place}" for place in range(1, 201)}
# Parameters of the web protocol -> their names in the export. Title, language, screen, client hints, user properties
# and the engagement time (`_et`, which the history does not use either) are not looked at.
FIELDS: Final = {
    "v": "version",
    "tid": "measurement_id",
    "cid": "client_id",
    "uid": "user_id",
    "sid": "session_id",
    "en": "event_name",
    "_p": "page_load",
    "_s": "hit_number",
    "gcs": "gcs",
    "gcd": "gcd",
    "npa": "npa",
    "dl": "page_location",
    "dr": "page_referrer",
    "cs": "source",
    "cm": "medium",
    "cn": "campaign",
    "cu": "currency",
    "ep.currency": "currency",
    "epn.value": "value",
    "ep.value": "value",
    "epn.percent_scrolled": "percent_scrolled",
    "ep.percent_scrolled": "percent_scrolled",
    **_ITEMS,
}
# An item's parts, `idSKU-1~nmRed shoe~pr79.9`, by the two letters that each begins with.
ITEM: Final = {"id": "item_id", "nm": "item_name", "ca": "item_category", "pr": "price", "qt": "quantity"}
_KINDS: Final = frozenset({"desktop", "mobile", "tablet", "tv"})
_TAGS: Final = ("source", "medium", "campaign")
_LONGEST: Final = 2_000
_NOT_KEPT: Final = ((b"cache-control", b"no-cache, no-store, must-revalidate"),)
_OLDEST_MS: Final = 10 * 365 * 86_400_000
_decode: Final = msgspec.json.Decoder().decode


class Ga4:
    """Its endpoints."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._options = source_options(tools.shop, "ga4", Ga4Options)
        self._skipped = frozenset(self._options.skip_events)
        self._entry = Entries()
        self._names = own_names(tools.shop, "ga4", EVENTS)
        self._endpoints = {
            "/debug/mp/collect": Endpoint(("POST",), self.check, self.answer_check),
            "/mp/collect": Endpoint(("POST",), self.read_measurements, self.answer, self.answer_too_many),
            "/g/collect": Endpoint(("GET", "POST"), self.read_hits, self.answer, self.answer_too_many),
        }

    def endpoint(self, path: str) -> Endpoint | None:
        """The endpoint that a path ends with, the longest first."""
        return next((found for end, found in self._endpoints.items() if path.endswith(end)), None)

    def read_hits(self, hit: Hit) -> Collected:
        """Events of a query, or one of each line of the body, which adds to the query."""
        shared = fields(hit.query, FIELDS)
        device = device_of(hit.header(b"user-agent"))
        if device == "bot":  # Google leaves out programs that it knows
            return Collected(dropped=["a program"])
        lines = [line for line in hit.body.decode("latin-1").splitlines() if line]
        collected = Collected()
        for place, line in enumerate(lines or [""]):
            found = {**shared, **fields(line, FIELDS)} if line else shared
            try:
                collected.events += self._hit(hit, found, place, device, collected)
            except (UnusableError, BadValueError) as error:
                collected.dropped.append(str(error))
        return collected

    def _hit(self, hit: Hit, found: dict[str, str], place: int, device: str, collected: Collected) -> list[EventIn]:
        if found.get("version") != "2" or "measurement_id" not in found:
            raise UnusableError("no hit of version 2")
        get = found.get
        granted = of_consent_mode(get("gcs", ""), get("gcd", ""), get("npa", ""))
        client, session = get("client_id", ""), get("session_id", "")
        page, hits = get("page_load"), get("hit_number")
        who = {"client_id": client, "session_id": session}
        # a request that comes again is told by its page, its number there and the place in it
        own = f"{client}/{session}/{page}/{hits}/{place}" if page and hits else ""
        account = get("user_id", "")
        if account:
            # what a page denies by default, before anybody was asked, takes nothing back that was granted elsewhere
            said = None if is_unanswered(get("gcd", "")) else granted
            if self._tools.consent.refuses_link(hit.headers, said):
                collected.unlink(account)
        if granted is not None and "link" not in granted:
            # without storage the ids are made up for a page, and no export has them
            client, session, account = self._tools.anonymous.visitor(hit, found["measurement_id"]), "", ""
            who = {}
        items = [_item(value) for name, value in found.items() if name in _ITEMS]
        consent = self._tools.consent.of(hit.headers, granted)
        more = {"id": own, "device": device, **_who(client, account, session, consent)}
        wires = self._wires(get("event_name", ""), found, items, more, consent)
        if self._tools.identifies:
            collected.whos += [who] * len(wires)
        return wires

    def read_measurements(self, hit: Hit) -> Collected:
        """The events of a request of the Measurement Protocol; those that Google would leave out are dropped."""
        try:
            body = _decode(hit.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Collected(dropped=["no JSON"])
        events = body.get("events") if isinstance(body, dict) else None
        if not isinstance(events, list):
            return Collected(dropped=["no events"])
        if len(events) > MOST_EVENTS:
            return Collected(dropped=[f"more than {MOST_EVENTS} events in a request"])
        collected = Collected()
        if self._tools.consent.refuses_link(hit.headers, None):  # nothing else tells
            collected.unlink(text(body.get("user_id")))
        for place, event in enumerate(events):
            try:
                collected.events += self._measurement(hit, body, event, place, collected)
            except (UnusableError, BadValueError) as error:
                collected.dropped.append(str(error))
        return collected

    def _measurement(
        self, hit: Hit, body: dict[str, Any], event: Any, place: int, collected: Collected
    ) -> list[EventIn]:
        if not isinstance(event, dict) or name_problem(event.get("name")):
            raise UnusableError("bad event name")
        name, params = event["name"], event.get("params")
        params = params if isinstance(params, dict) else {}
        client = text(body.get("client_id")) or text(body.get("app_instance_id"))
        micros = text(event.get("timestamp_micros") or body.get("timestamp_micros"))
        order = text(params.get("transaction_id"))
        # a request has no id of its own: an order is told by its number, other events by their time
        own = f"{client}/{name}/{order}" if order else f"{client}/{micros}/{place}" if micros else ""
        found = params.get("items")
        items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
        consent = self._told(hit, body)
        who = _who(client, text(body.get("user_id")), text(params.get("session_id")), consent)
        more = {"id": own, "time": _milliseconds(micros, hit.received_ms), "device": _device(body), **who}
        wires = self._wires(name, params, items, more, consent)
        if self._tools.identifies:
            known = text(body.get("client_id"))  # an app's instance is no client
            ids = {"client_id": known, "session_id": text(params.get("session_id"))} if known else {}
            collected.whos += [ids] * len(wires)
        return wires

    def _told(self, hit: Hit, body: Mapping[str, Any]) -> list[str]:
        """The consent of a request: it says nothing of storage, but may of personalising."""
        consent = self._tools.consent.of(hit.headers)
        said = body.get("consent")
        personal = said.get("ad_personalization") if isinstance(said, dict) else None
        if personal == "GRANTED":
            return self._tools.consent.of(hit.headers, dict.fromkeys([*consent, "personalise"]))
        return [name for name in consent if name != "personalise"] if personal == "DENIED" else consent

    def _wires(
        self,
        theirs: str,
        params: Mapping[str, Any],
        items: Sequence[Mapping[str, Any]],
        more: Mapping[str, Any],
        consent: list[str],
    ) -> list[EventIn]:
        """An event of theirs as one of ours, or one an item; more: our columns that do not follow from the rest."""
        if not theirs:
            raise UnusableError("no event name")
        if theirs in self._skipped:
            raise UnusableError("no step of a visitor")
        name = self._names.get(theirs, theirs)
        url, referrer = known(params.get("page_location"))[:_LONGEST], known(params.get("page_referrer"))[:_LONGEST]
        currency = known(params.get("currency"))
        channel, campaign = origin([[known(params.get(tag)) for tag in _TAGS]], url, referrer, self._entry)
        record = {
            "page": url or known(params.get("firebase_screen")),
            "channel": channel,
            "campaign": campaign,
            "interactive": interactive(name, self._options),
            "value": params.get("value") if is_money(name, currency) else None,
            "currency": currency,
            "prices": [item.get("price") for item in items],
            **more,
        }
        if name == "scroll":
            record["value"] = amount(params.get("percent_scrolled"), 0.0, "value") / 100
        ours = name_of(self._names, theirs)
        return [event_of(each, ours, consent) for each in with_items(record, name, items)]

    def answer(self, hit: Hit, collected: Collected, answers: Sequence[Answer]) -> Reply:
        """204, whatever was read."""
        del hit, collected, answers
        return Reply(b"text/plain", b"", 204, _NOT_KEPT)

    def answer_too_many(self, hit: Hit, collected: Collected) -> Reply:
        """204: no client sends it again in parts."""
        return self.answer(hit, collected, ())

    def check(self, hit: Hit) -> Collected:
        """What is wrong with a request; nothing of it counts."""
        return Collected(about=problems(hit.body))

    def answer_check(self, hit: Hit, collected: Collected, answers: Sequence[Answer]) -> Reply:
        """The messages, none for a request that Google would take."""
        del hit, answers
        return Reply(b"application/json; charset=utf-8", msgspec.json.encode({"validationMessages": collected.about}))


def _who(client: str, account: str, session: str, consent: list[str]) -> dict[str, str]:
    visitor = account if account and "link" in consent else client
    if not visitor:
        raise UnusableError("no visitor")
    return {"visitor": visitor, "session": f"{client}.{session}" if session else ""}


def _item(packed: str) -> dict[str, str]:
    """An item of a web hit.

    >>> _item("idSKU-1~nmRed shoe~caShoes~pr79.9~qt2~k0size~v042")["price"]
    '79.9'
    """
    return {name: part[2:] for part in packed.split("~") if (name := ITEM.get(part[:2]))}


def _device(body: Mapping[str, Any]) -> str:
    """Of a request that tells its visitor's device; the program that sends it is none."""
    told = body.get("device")
    category = str(told.get("category")) if isinstance(told, dict) else ""
    return DEVICES.get(category, category if category in _KINDS else device_of(text(body.get("user_agent"))))


def _milliseconds(micros: str, received_ms: int) -> int | None:
    try:
        time = int(float(micros)) // 1000
    except (ValueError, OverflowError):
        return None
    return min(max(time, received_ms - _OLDEST_MS), received_ms)
