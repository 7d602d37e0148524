"""What Adobe's client keeps for its server in cookies: who the visitor is, and to what the visitor consented.

In: the cookies of a request, or their copies in its body where the service is on another site. Out: an Experience Cloud
ID (ECID, 38 digits) and what is granted; and the cookies to keep, which the client writes itself.

The identity cookie is a base64url protobuf message whose first field is the ECID: the client reads it, too. It is kept
for as long as visits may be linked, else for a day, as long as a pseudonym holds. The client forgets its consent when
it finds no identity cookie, so who consents to nothing gets one that is the same for all of them and tells nobody.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from serving.consent import EVERYTHING, of_tcf

NOBODY: Final = "0" * 38
_ECID: Final = re.compile(r"\d{38}")
_LEGACY: Final = re.compile(r"(?:^|\|)MCMID\|(\d{38})(?:$|\|)")
_FIELD: Final = b"\x0a\x26"  # field 1, 38 bytes
_PREFIX: Final = "kndctr_"
_LINKED_SECONDS: Final = 34_128_000
_DAY_SECONDS: Final = 86_400
_CONSENT_SECONDS: Final = 15_552_000
_YES: Final = frozenset({"y", "dy"})


class State(NamedTuple):
    """What a request brought.

    organisation: in the names of its cookies, empty if there were none; identity: the cookie's value; ecid: out of it
    or of the cookie of Adobe's client before this one; granted: None if nobody was asked yet.
    """

    organisation: str
    identity: str
    ecid: str
    granted: tuple[str, ...] | None


def state_of(entries: Iterable[Any], cookies: str, organisation: str) -> State:
    """What the cookies say; entries: their copies in the body; organisation: whose cookies count, any if empty."""
    found: dict[str, str] = {}
    legacy = ""
    if _PREFIX in cookies or "AMCV_" in cookies:
        for cookie in cookies.split(";"):
            name, _, value = cookie.strip().partition("=")
            if name.startswith(_PREFIX):
                found[name] = unquote(value) if "%" in value else value
            elif name.startswith("AMCV_"):
                whose = unquote(name[5:]).replace("@", "_")
                if organisation in ("", whose) and (known := _LEGACY.search(unquote(value))):
                    organisation, legacy = whose, known[1]
    for entry in entries:
        if isinstance(entry, dict) and isinstance(key := entry.get("key"), str):
            found[key] = str(entry.get("value", ""))
    if not found and not legacy:
        return State(organisation, "", "", None)  # a first visit
    if not organisation:
        ours = next((name for name in found if name.endswith(("_identity", "_consent"))), "")
        organisation = ours.removeprefix(_PREFIX).rpartition("_")[0]
    identity = found.get(f"{_PREFIX}{organisation}_identity", "")
    consent = found.get(f"{_PREFIX}{organisation}_consent", "")
    return State(organisation, identity, _ecid_of(identity) if identity else legacy, _granted_by(consent))


def identity_entry(organisation: str, ecid: str, *, linked: bool) -> dict[str, Any]:
    """The cookie that keeps an ECID."""
    seconds = _CONSENT_SECONDS if ecid == NOBODY else _LINKED_SECONDS if linked else _DAY_SECONDS
    value = urlsafe_b64encode(_FIELD + ecid.encode()).rstrip(b"=").decode()
    return _entry(f"{_PREFIX}{organisation}_identity", value, seconds)


def consent_entry(organisation: str, granted: Sequence[str]) -> dict[str, Any]:
    """The cookie that keeps a consent. The client looks at `general` alone."""
    told = "general=in" if "measure" in granted else "general=out"
    if "measure" in granted:
        told += "".join(f";{name}=out" for name in EVERYTHING[1:] if name not in granted)
    return _entry(f"{_PREFIX}{organisation}_consent", told, _CONSENT_SECONDS)


def ecid_in(identities: Any) -> str:
    """The ECID of an identity map, empty if it holds none."""
    listed = identities.get("ECID") if isinstance(identities, Mapping) else None
    first = listed[0] if isinstance(listed, list) and listed else None
    found = first.get("id") if isinstance(first, dict) else None
    return found if isinstance(found, str) and _ECID.fullmatch(found) and found != NOBODY else ""


def account_in(identities: Any) -> str:
    """Who is logged in by an identity map: its primary identity, else its first; empty if nobody is."""
    if not isinstance(identities, Mapping):
        return ""
    known = [
        (namespace, one)
        for namespace, listed in identities.items()
        if namespace != "ECID" and isinstance(listed, list)
        for one in listed
        if isinstance(one, dict) and one.get("authenticatedState") == "authenticated" and one.get("id")
    ]
    known.sort(key=lambda pair: pair[1].get("primary") is not True)
    return f"{known[0][0]} {known[0][1]['id']}" if known else ""


def granted_by(consents: Any) -> tuple[str, ...] | None:
    """What all that is told grants: Adobe's standards 1.0 and 2.0, IAB TCF; None if nothing is understood.

    >>> granted_by([{"standard": "Adobe", "version": "2.0", "value": {"collect": {"val": "y"}}}])
    ('measure', 'link')
    """
    told = [found for one in consents if isinstance(one, dict) and (found := _told(one)) is not None]
    return tuple(name for name in EVERYTHING if all(name in found for found in told)) if told else None


def granted_in(strings: Any) -> tuple[str, ...] | None:
    """The same of an event's `consentStrings`."""
    if not isinstance(strings, list):
        return None
    renamed = [
        {"standard": one.get("consentStandard"), "value": one.get("consentStringValue"), **one}
        for one in strings
        if isinstance(one, dict)
    ]
    return granted_by(renamed)


def _told(consent: Mapping[str, Any]) -> tuple[str, ...] | None:
    standard, value = str(consent.get("standard", "")).lower(), consent.get("value")
    if standard == "iab tcf":
        if consent.get("gdprApplies") is False:
            return EVERYTHING
        return of_tcf(value) if isinstance(value, str) else None
    if standard != "adobe" or not isinstance(value, dict):
        return None
    if "general" in value:
        return {"in": EVERYTHING, "out": ()}.get(str(value["general"]))
    if _value(value.get("collect")) not in _YES:
        return () if "collect" in value else None
    personalise = value.get("personalize")
    content = personalise.get("content") if isinstance(personalise, dict) else None
    return EVERYTHING if _value(content) in _YES else ("measure", "link")


def _value(choice: Any) -> str:
    return str(choice.get("val", "")) if isinstance(choice, dict) else ""


def _granted_by(cookie: str) -> tuple[str, ...] | None:
    if not cookie:
        return None
    told = dict(pair.partition("=")[::2] for pair in cookie.split(";"))
    if told.get("general") == "in":
        return tuple(name for name in EVERYTHING if told.get(name) != "out")
    return () if told.get("general") == "out" else None


def _ecid_of(identity: str) -> str:
    """The ECID in an identity cookie; empty if none is to be found there."""
    try:
        message = urlsafe_b64decode(identity + "=" * (-len(identity) % 4))
    except (binascii.Error, ValueError):
        return ""
    found = message[len(_FIELD) : 40].decode("latin-1")
    return found if message.startswith(_FIELD) and _ECID.fullmatch(found) else ""


def _entry(key: str, value: str, seconds: int) -> dict[str, Any]:
    return {"key": key, "value": value, "maxAge": seconds, "attrs": {"SameSite": "None"}}
