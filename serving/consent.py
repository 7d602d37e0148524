"""What may be done with an event: the consent that a tracker tells, narrowed by what the browser says.

Out: names of `features.events.CONSENTS`. Global Privacy Control (`Sec-GPC: 1`) and, if configured, Do Not Track take
away linking and personalising, whatever was granted. An IAB TCF string grants by purposes (Policies, appendix A): 7
and 8 measure; 1 (storage) with one of 7 to 10 links; 5 and 6 personalise. Only its version and purposes are read: the
first 192 bits of the core segment. Google Consent Mode's `analytics_storage` decides about linking,
`ad_personalization` about personalising; measuring needs neither, as in Google's own reports.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from features.events import CONSENTS
from features.remember import remembered

if TYPE_CHECKING:
    from serving.settings import PrivacySettings

EVERYTHING: Final = ("measure", "link", "personalise")
_NARROWED: Final = frozenset({"link", "personalise"})
# What an event may be used for, of the bits of CONSENTS, where the browser objects.
OBJECTED: Final = sum(bit for name, bit in CONSENTS.items() if name not in _NARROWED)
_TCF_CHARACTERS: Final = 32
# Google's letters: granted by default, after a denial by default, by update only, both times. `l`: not set.
_SIGNALS: Final = 4
_GRANTED: Final = frozenset("trnv")
_BY_DEFAULT: Final = "p"
_TCF_PURPOSES: Final = 25  # the character in which bit 152 is, where the purposes begin
_REMEMBERED: Final = 10_000


class Consent:
    """The rules of one service; default: what holds where nothing is said."""

    def __init__(self, settings: PrivacySettings, default: Sequence[str]) -> None:
        self._gpc, self._dnt, self._default = settings.gpc, settings.dnt, tuple(default)

    def of(self, headers: Mapping[bytes, bytes], granted: Iterable[str] | None = None) -> list[str]:
        """What holds for an event; granted: what the tracker tells, None if it tells nothing."""
        found = list(self._default if granted is None else granted)
        if found and self.objects(headers):
            found = [name for name in found if name not in _NARROWED]
        return found

    def refuses_link(self, headers: Mapping[bytes, bytes], granted: Iterable[str] | None) -> bool:
        """Whether it is said that visits may not be linked; granted: as of `of`. Who says nothing refuses nothing."""
        return self.objects(headers) or (granted is not None and "link" not in granted)

    def objects(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the browser says that its user objects."""
        return (self._gpc and headers.get(b"sec-gpc") == b"1") or (self._dnt and headers.get(b"dnt") == b"1")


def of_tcf(text: str) -> tuple[str, ...] | None:
    """What an IAB TCF v2 string grants, None if it is none.

    >>> of_tcf("CP000000P000000AAAENAAA4AAAAAAAAAAAAAAAA") is None, of_tcf("no string")
    (False, None)
    """
    if len(text) < _TCF_CHARACTERS:
        return None
    # what stands between are the moment of the choice and the like: together unlike anybody else's, so not remembered
    return _of_core(text[:1], text[_TCF_PURPOSES:_TCF_CHARACTERS])


@remembered(_REMEMBERED)
def _of_core(version: str, end: str) -> tuple[str, ...] | None:
    try:
        core = int.from_bytes(urlsafe_b64decode(version + "A" * (_TCF_PURPOSES - 1) + end), "big")
    except (binascii.Error, ValueError):
        return None
    if core >> 186 != 2:
        return None
    purposes = {number for number in range(1, 25) if core >> 40 - number & 1}
    return of_purposes(purposes)


def of_purposes(purposes: Collection[int]) -> tuple[str, ...]:
    """What TCF's purposes grant."""
    has = set(purposes).intersection
    measure, link = bool(has({7, 8})), 1 in purposes and bool(has({7, 8, 9, 10}))
    return tuple(name for name, yes in zip(EVERYTHING, (measure, link, bool(has({5, 6}))), strict=True) if yes)


@remembered(_REMEMBERED)
def of_consent_mode(gcs: str, gcd: str, npa: str) -> tuple[str, ...] | None:
    """What Google Consent Mode's parameters of a hit grant, None if they say nothing.

    gcs: `G1xy`, x about ad_storage, y about analytics_storage; gcd: a letter a signal, of ad_storage,
    analytics_storage, ad_user_data and ad_personalization; npa: 1 without personalised ads.

    >>> of_consent_mode("G111", "13r3r3r3r5l1", "0"), of_consent_mode("G100", "13p3p3p3p5l1", "1")
    (('measure', 'link', 'personalise'), ('measure',))
    >>> of_consent_mode("", "", "") is None
    True
    """
    storage, personal = _signals(gcd)
    if storage == "l":
        if gcs[:2] != "G1" or gcs[3:4] not in ("0", "1"):
            return None
        storage = "t" if gcs[3] == "1" else "p"
    found = ["measure"]
    if storage in _GRANTED:
        found.append("link")
    if personal in _GRANTED and npa != "1":
        found.append("personalise")
    return tuple(found)


def is_unanswered(gcd: str) -> bool:
    """Whether analytics_storage is denied by the page's default, and nobody was asked yet, by Consent Mode's `gcd`.

    >>> is_unanswered("13p3p3p3p5l1"), is_unanswered("13q3q3q3q5l1")
    (True, False)
    """
    return _signals(gcd)[0] == _BY_DEFAULT


def _signals(gcd: str) -> tuple[str, str]:
    """The letters of analytics_storage and ad_personalization."""
    letters = [each for each in gcd if each.isalpha()][:_SIGNALS]
    return (letters[1], letters[3]) if len(letters) == _SIGNALS else ("l", "l")
