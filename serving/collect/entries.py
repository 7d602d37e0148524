"""Where a visit came from, for adapters: `features.channels`, remembered."""

from __future__ import annotations

from typing import Final

from features.channels import Entry, entry_of
from features.events import hash64

_REMEMBERED: Final = 50_000


class Entries:
    """Channel and campaign of addresses and their referrers, which every event of a page repeats.

    Addresses may tell a person, so they are remembered by their hash only. 6 us the first time, then 0.5 us.
    """

    def __init__(self) -> None:
        self._found: dict[int, Entry] = {}

    def __call__(self, url: str, referrer: str) -> Entry:
        """As `features.channels.entry_of`."""
        key = hash64(f"{url} {referrer}")
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            found = self._found[key] = entry_of(url, referrer)
        return found
