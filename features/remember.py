"""Work that is remembered without what it was done for: texts of a request may tell a person, and are gone with it.

In: a function of texts and numbers whose values tell nobody. Out: the same function, which remembers values by a hash
of what they were made of. The hash is Python's own, keyed with a secret that is drawn for each process (SipHash).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Final, TypeVar, TypeVarTuple

from features.channels import Entry, campaign_of_address, entry_of

Texts = TypeVarTuple("Texts")
Value = TypeVar("Value")

_ENTRIES: Final = 50_000


def remembered(limit: int) -> Callable[[Callable[[*Texts], Value]], Callable[[*Texts], Value]]:
    """Remember up to so many values of a function, which must come out of a closed set: no part of a text is one.

    >>> @remembered(100)
    ... def kind(agent: str) -> str:
    ...     return "phone" if "Mobile" in agent else "desktop"
    >>> kind("Mozilla/5.0 (Mobile)"), kind("Mozilla/5.0 (Mobile)")
    ('phone', 'phone')
    """

    def decorate(function: Callable[[*Texts], Value]) -> Callable[[*Texts], Value]:
        found: dict[int, Value] = {}

        @wraps(function)
        def of(*texts: *Texts) -> Value:
            key = hash(texts)
            try:
                return found[key]
            except KeyError:
                value = function(*texts)
                if len(found) >= limit:  # who invents texts does not fill the memory
                    found.clear()
                found[key] = value
                return value

        return of

    return decorate


class Entries:
    """Where a visit came from, remembered: channel and campaign, which every event of a page repeats.

    A campaign's name may be any text, so it is read of its address again. 6 us the first time, then 0.1 us, 4 us with
    a campaign.
    """

    def __init__(self) -> None:
        self._found: dict[int, tuple[Entry, bool]] = {}

    def __call__(self, url: str, referrer: str) -> Entry:
        """As `features.channels.entry_of`."""
        key = hash((url, referrer))
        found = self._found.get(key)
        if found is None:
            entry = entry_of(url, referrer)
            if len(self._found) >= _ENTRIES:
                self._found.clear()
            self._found[key] = Entry(entry.channel, ""), bool(entry.campaign)
            return entry
        entry, tagged = found
        return Entry(entry.channel, campaign_of_address(url)) if tagged else entry
