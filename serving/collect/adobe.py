"""Adobe: the Edge Network's `interact`, `collect`, `privacy/set-consent` and `identity/acquire`, as alloy asks them.

The client holds back its events until a server has told it who its visitor is: an ECID is drawn on the first request,
from the request's own id, so that one that is sent again gets the same one. What the visitor consents to comes back
with every request, and who consents to nothing is not counted.

Scores ride back in the answer to an event, as a decision of scope `lotse`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import msgspec

from features.agents import device_of
from features.events import EVENT_NAMES
from features.remember import Entries
from features.settings import Settings, options_of
from features.shop import SourceSettings
from features.sources.adobe_events import EVENTS
from serving.collect import TOO_MANY, Collected, Endpoint, Hit, Refused, Tools
from serving.collect.adobe_state import (
    NOBODY,
    State,
    account_in,
    consent_entry,
    ecid_in,
    granted_by,
    granted_in,
    identity_entry,
    state_of,
)
from serving.collect.adobe_xdm import records_of
from serving.collect.records import BadValueError, event_of
from serving.http.call import Reply
from serving.requests import Answer, View

SCOPE: Final = "lotse"
_ACTIONS: Final = ("interact", "collect", "privacy/set-consent", "identity/acquire")
_JSON: Final = b"application/json"
_SCHEMA: Final = "https://ns.adobe.com/personalization/json-content-item"
_ERROR: Final = "https://ns.adobe.com/aep/errors/EXEG-0104-422"
_EVENTS: Final = 100
_QUEUE_MS: Final = 300_000  # no client says more
_NAMES: Final = frozenset(EVENT_NAMES)
_NO_ORGANISATION: Final = "the organisation is unknown: set collect.options.adobe.organisation"

_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


class AdobeSettings(Settings):
    """`[collect.options.adobe]`.

    organisation: the `orgId` that the client is configured with, such as ABC@AdobeOrg, in the names of its cookies;
    without it, it is known only once the browser holds one of them.
    decisions: whether scores are told with every answer, or only where an event asks for the scope `lotse`.
    """

    organisation: str = ""
    decisions: bool = False


@dataclass(slots=True)
class _About:
    """What a request's answer has to know.

    visitor: by the device; counted: as whom the latest event was counted; asked: the place of the event that asks for
    scores, None if none does; store: cookies for the client to keep.
    """

    request: str
    state: State
    ecid: str
    visitor: str = ""
    counted: str = ""
    asked: int | None = None
    store: list[dict[str, Any]] = field(default_factory=list)


class Adobe:
    """Its endpoints."""

    def __init__(self, tools: Tools) -> None:
        settings = tools.shop.source("adobe", SourceSettings(events=EVENTS, unknown_events="custom"))
        self._tools = tools
        self._options = options_of("collect.options.adobe", tools.options, AdobeSettings)
        self._organisation = self._options.organisation.replace("@", "_")
        self._names = {**tools.shop.events, **settings.events}
        self._entry = Entries()
        self._custom = settings.unknown_events == "custom"
        self._endpoints = {
            "interact": Endpoint(("POST",), self._read_events, self._answer, _too_many),
            "collect": Endpoint(("POST",), self._read_beacon, self._no_content, _too_many),
            "privacy/set-consent": Endpoint(("POST",), self._read_consent, self._answer),
            "identity/acquire": Endpoint(("POST",), self._read_identity, self._answer),
        }

    def endpoint(self, path: str) -> Endpoint | None:
        """`/<any base>[/<region>]/v1/<action>`; `v2` is what servers ask."""
        for version in ("/v1/", "/v2/"):
            base, found, action = path.rpartition(version)
            if found and len(base) > 1 and action in _ACTIONS:
                return self._endpoints[action]
        return None

    def _read_events(self, hit: Hit) -> Collected:
        """Its events, and who the visitor is: one that is new gets an identity."""
        body, about = self._begin(hit)
        if about.state.granted != ():
            self._identify(hit, about)
        return self._collected(hit, body, about)

    def _read_beacon(self, hit: Hit) -> Collected:
        """The same of a page that is left: nobody is there any more to be told who they are."""
        body, about = self._begin(hit)
        return self._collected(hit, body, about)

    def _read_identity(self, hit: Hit) -> Collected:
        """No event: who the visitor is."""
        _, about = self._begin(hit)
        if about.state.granted != ():
            self._identify(hit, about)
        return Collected(about=about)

    def _read_consent(self, hit: Hit) -> Collected:
        """No event: what the visitor consents to from now on."""
        body, about = self._begin(hit)
        consents = body.get("consent")
        granted = granted_by(consents) if isinstance(consents, list) else None
        if granted is None:
            raise _refused("no consent of a known standard", about.request)
        about.state = about.state._replace(granted=granted)
        if organisation := about.state.organisation:
            about.store.append(consent_entry(organisation, granted))
        collected = Collected(about=about)
        if self._tools.consent.refuses_link(hit.headers, granted):
            # the device's, too: who refuses everything is never told by its id again
            accounts = map(account_in, (body.get("identityMap"), _object(body, "xdm").get("identityMap")))
            collected.unlink(about.visitor, *accounts)
        if "measure" in granted:
            self._identify(hit, about, again=True)
        elif organisation:
            about.ecid = ""
            about.store.append(identity_entry(organisation, NOBODY, linked=False))
        return collected

    def _begin(self, hit: Hit) -> tuple[dict[str, Any], _About]:
        """The body, and what the request says of its visitor.

        Raises
        ------
        Refused
            It is not what the Edge Network takes.
        """
        request = hit.query.partition("requestId=")[2].partition("&")[0]  # a UUID: nothing in it is escaped
        try:
            body = msgspec.json.decode(hit.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _refused("no JSON", request) from None
        if not isinstance(body, dict):
            raise _refused("no JSON object", request)
        meta = _object(_object(body, "meta"), "state").get("entries")
        entries = meta if isinstance(meta, list) else ()
        state = state_of(entries, hit.header(b"cookie"), self._organisation)
        ecid = "" if state.ecid == NOBODY else state.ecid
        if not ecid and (not state.identity or state.ecid == NOBODY):
            ecid = ecid_in(_object(body, "xdm").get("identityMap")) or ecid_in(body.get("identityMap"))
        return body, _About(request, state, ecid, visitor=ecid or _opaque(state))

    def _identify(self, hit: Hit, about: _About, *, again: bool = False) -> None:
        """See to it that the visitor has an identity, and that the client keeps it; again: even if it has it."""
        state = about.state
        if not about.visitor:
            drawn = self._tools.anonymous.visitor(hit, f"adobe {about.request}") if about.request else ""
            about.ecid = about.visitor = _digits(drawn) if drawn else f"{secrets.randbelow(10**38):038}"
        kept = state.identity and state.ecid != NOBODY
        if state.organisation and about.ecid and (again or not kept):
            linked = "link" in self._tools.consent.of(hit.headers, state.granted)
            about.store.append(identity_entry(state.organisation, about.ecid, linked=linked))

    def _collected(self, hit: Hit, body: Mapping[str, Any], about: _About) -> Collected:
        listed = body.get("events", [body["event"]] if "event" in body else None)
        if not isinstance(listed, list) or not listed or len(listed) > _EVENTS:
            raise _refused("no events" if not listed else TOO_MANY, about.request)
        collected = Collected(about=about)
        queued = _object(body, "meta").get("queueTimeMillis") if len(listed) == 1 else None
        # how long ago by its own clock: whatever that clock says, it is right
        time = hit.received_ms - queued if isinstance(queued, int) and 0 <= queued <= _QUEUE_MS else None
        device = device_of(hit.header(b"user-agent"))
        for place, event in enumerate(listed):
            if not isinstance(event, dict) or not isinstance(xdm := event.get("xdm", {}), dict):
                collected.dropped.append("no object")
                continue
            scopes = _object(_object(event, "query"), "personalization").get("decisionScopes")
            if self._options.decisions or (isinstance(scopes, list) and SCOPE in scopes):
                about.asked = place
            self._add(collected, hit, about, xdm, _object(event, "data"), device, time, place)
        return collected

    def _add(
        self,
        collected: Collected,
        hit: Hit,
        about: _About,
        xdm: Mapping[str, Any],
        data: Mapping[str, Any],
        device: str,
        time: int | None,
        place: int,
    ) -> None:
        """The events of one of Adobe's."""
        granted, strings = about.state.granted, granted_in(xdm.get("consentStrings"))
        if strings is not None:
            granted = strings if granted is None else tuple(name for name in strings if name in granted)
        device_id, account = about.visitor or ecid_in(xdm.get("identityMap")), account_in(xdm.get("identityMap"))
        if self._tools.consent.refuses_link(hit.headers, granted):
            collected.unlink(account)
        if granted is not None and "measure" not in granted:
            collected.dropped.append("no consent")
            collected.objected = True
            collected.unlink(device_id)  # no event of it tells the fold
            return
        consent = self._tools.consent.of(hit.headers, granted)
        visitor = (account if "link" in consent else "") or device_id
        if not visitor:
            collected.dropped.append("no visitor")
            return
        about.counted = visitor
        try:
            made = records_of(xdm, data, self._names, self._entry)
        except BadValueError as error:
            collected.dropped.append(str(error))
            return
        if not made:
            collected.dropped.append("no step of a visitor")
        base = str(xdm.get("_id") or about.request)
        identity = f"{base}-{place}" if place and base == about.request else base
        for number, record in enumerate(made):
            name = str(record["name"])
            name = self._names.get(name, name)
            record["visitor"], record["device"] = visitor, device
            record["id"] = record["id"] or (f"{identity}/{number}" if number and identity else identity)
            record["time"] = record["time"] if time is None else time
            if name not in _NAMES and self._custom:
                name = "custom"
            try:
                collected.events.append(event_of(record, name, consent))
            except BadValueError as error:
                collected.dropped.append(str(error))

    def _no_content(self, hit: Hit, collected: Collected, answers: Sequence[Answer]) -> Reply:
        """A page that is left reads nothing."""
        del hit, collected, answers
        return Reply(_JSON, b"", 204)

    def _answer(self, hit: Hit, collected: Collected, answers: Sequence[Answer]) -> Reply | Awaitable[Reply]:
        """Handles: who the visitor is, what the client is to keep, and the scores that were asked for."""
        del hit
        about: _About = collected.about
        if about.asked is None or not about.counted:
            return _reply(about, collected.dropped, None)
        if answers:
            return _reply(about, collected.dropped, _scores(answers[-1]))
        return self._looked(about, collected.dropped)

    async def _looked(self, about: _About, dropped: Sequence[str]) -> Reply:
        """Of a request without a step: the session as it stands."""
        view = await self._tools.look(about.counted)
        return _reply(about, dropped, None if view is None else _scores(view))


def _scores(found: Answer | View) -> dict[str, Any]:
    """What a decision tells; session: a token, by which the page may ask again or listen."""
    told = {"scores": found.scores, "models": found.models, "decided": found.decided, "reasons": found.reasons}
    return {"session": found.session, **told} if isinstance(found, Answer) else told


def _reply(about: _About, dropped: Sequence[str], scores: Mapping[str, Any] | None) -> Reply:
    handle: list[dict[str, Any]] = []
    if about.ecid:
        handle.append({"type": "identity:result", "payload": [{"id": about.ecid, "namespace": {"code": "ECID"}}]})
    if about.store:
        handle.append({"type": "state:store", "payload": about.store})
    if scores is not None:
        handle.append(_decision(about, scores))
    answer: dict[str, Any] = {"requestId": _repeated(about.request), "handle": handle}
    # the client shows them in its debugging log
    warnings = [*dropped, *(() if about.state.organisation else (_NO_ORGANISATION,))]
    if warnings:
        answer["warnings"] = [{"type": "about:blank", "status": 200, "title": title} for title in warnings]
    return Reply(_JSON, msgspec.json.encode(answer))


def _decision(about: _About, scores: Mapping[str, Any]) -> dict[str, Any]:
    """A proposition as the client hands it on: its content is the scores, and nothing is rendered."""
    return {
        "type": "personalization:decisions",
        "eventIndex": about.asked,
        "payload": [
            {
                "id": f"{SCOPE}:{about.request}",
                "scope": SCOPE,
                "scopeDetails": {"decisionProvider": "LOTSE", "activity": {"id": SCOPE}, "characteristics": {}},
                "items": [
                    {
                        "id": "scores",
                        "schema": _SCHEMA,
                        "data": {"id": "scores", "format": "application/json", "content": scores},
                    }
                ],
            }
        ],
    }


def _refused(reason: str, request: str) -> Refused:
    problem = {
        "type": _ERROR,
        "status": 422,
        "title": "Unprocessable Entity",
        "detail": "Invalid request (report attached). Please check your input and try again.",
        "report": {"errors": [reason], "requestId": _repeated(request)},
    }
    return Refused(reason, Reply(b"application/problem+json", msgspec.json.encode(problem), 422))


def _too_many(hit: Hit, collected: Collected) -> Reply:
    del hit
    return _refused(TOO_MANY, collected.about.request).reply


def _opaque(state: State) -> str:
    """A visitor by an identity cookie that is not ours to read."""
    return f"kndctr {state.identity}" if state.identity and not state.ecid else ""


def _digits(text: str) -> str:
    return f"{int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), 'big') % 10**38:038}"


def _object(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = parent.get(key)
    return found if isinstance(found, dict) else {}


def _repeated(request: str) -> str:
    """A request's id as it is given back: a client's UUID, and nothing that somebody put in its place."""
    return request if _UUID.fullmatch(request) else ""
