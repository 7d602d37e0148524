"""What a visitor has consented to, in the service's words: measure, link, personalise.

`LOTSE["CONSENT"]` is a function of the request that tells it; those of the usual consent managers are here. It returns
purposes, none of them for a refusal, and None where nobody was asked yet.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable
from typing import Final

from django.http import HttpRequest

PURPOSES: Final = ("measure", "link", "personalise")
Consent = frozenset[str]
NOTHING: Final[Consent] = frozenset()
EVERYTHING: Final[Consent] = frozenset(PURPOSES)
# Of the core segment of a TCF string only the version and the purposes are read: its first 192 bits.
_TCF_CHARACTERS: Final = 32


def purposes(names: Iterable[str]) -> Consent:
    """Some purposes.

    Raises
    ------
    ValueError
        One of them is none of ours.
    """
    found = frozenset((names,) if isinstance(names, str) else names)
    unknown = sorted(found - EVERYTHING)
    if unknown:
        raise ValueError(f"unknown purpose {unknown[0]!r}; known: {', '.join(PURPOSES)}")
    return found


def objects(request: HttpRequest) -> bool:
    """Whether the browser says that its user objects: Global Privacy Control or Do Not Track."""
    return request.headers.get("Sec-GPC") == "1" or request.headers.get("DNT") == "1"


def narrowed(request: HttpRequest, granted: Consent) -> Consent:
    """A consent, less what the browser objects to."""
    return granted & {"measure"} if objects(request) else granted


def tcf_cookie(name: str = "euconsent-v2") -> Callable[[HttpRequest], Consent | None]:
    """For consent managers that keep an IAB TCF v2 string in a cookie."""

    def resolve(request: HttpRequest) -> Consent | None:
        return of_tcf(request.COOKIES.get(name, ""))

    return resolve


def words_cookie(name: str, words: dict[str, str] | None = None) -> Callable[[HttpRequest], Consent | None]:
    """For a cookie that lists what was agreed to, with anything between; words: the shop's own words and our purposes.

    `words_cookie("agreed", {"statistics": "measure", "profile": "link"})` reads `agreed=statistics,profile`.
    """
    meaning = dict(words or {purpose: purpose for purpose in PURPOSES})
    purposes(meaning.values())

    def resolve(request: HttpRequest) -> Consent | None:
        text = request.COOKIES.get(name)
        if text is None:
            return None
        said = "".join(letter if letter.isalnum() or letter in "_-" else " " for letter in text).split()
        return frozenset(meaning[word] for word in said if word in meaning)

    return resolve


def of_tcf(text: str) -> Consent | None:
    """What an IAB TCF v2 string grants, None if it is none. By its purposes: 7 or 8 measure; 1 (storage) with one of
    7 to 10 links; 5 or 6 personalise.

    >>> of_tcf("CP000000P000000AAAENAAA4AAAAAAAAAAAAAAAA"), of_tcf("no string")
    (frozenset(), None)
    """
    if len(text) < _TCF_CHARACTERS:
        return None
    try:
        core = int.from_bytes(urlsafe_b64decode(text[:_TCF_CHARACTERS]), "big")
    except (binascii.Error, ValueError):
        return None
    if core >> 186 != 2:
        return None
    granted = {number for number in range(1, 25) if core >> 40 - number & 1}
    found = {"measure"} if granted & {7, 8} else set()
    if 1 in granted and granted & {7, 8, 9, 10}:
        found.add("link")
    if granted & {5, 6}:
        found.add("personalise")
    return frozenset(found)
