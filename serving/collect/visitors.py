"""Visitors of hits without a visitor id: told apart for a day by a keyed hash, or not at all.

Plausible has no ids by design: its server tells visitors apart by a hash of address, user agent and site with a key
that is replaced every day, and keeps nothing else. The same is done here, with the service's daily salt, which is
deleted after 48 hours: address and user agent are looked at and forgotten, and nobody can tell two days' visitors to
be one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.collect import Hit


class Anonymous:
    """Raw ids for such visitors. day: makes a pseudonym of a text that holds for the day of a moment (ms UTC)."""

    def __init__(self, day: Callable[[str, int], int]) -> None:
        self._day = day

    def visitor(self, hit: Hit, site: str) -> str:
        """An id for a day; empty if nothing is known to tell visitors apart by."""
        if not hit.address:
            return ""
        # hashed before it is one text, so that no text holds both
        agent = hashlib.blake2b(hit.headers.get(b"user-agent", b""), digest_size=16).hexdigest()
        return f"day-{self._day(f'{hit.address} {agent} {site}', hit.received_ms):x}"
