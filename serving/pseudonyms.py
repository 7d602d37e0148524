"""Which pseudonym a visitor has right now: a lasting one with consent to link, one that ends with the day without.

The day's key is drawn at random, shared by the workers through a file, and deleted after 48 hours: from then on nobody,
not even the operator with every file in hand, can tell that two days' visitors are one.

A day's key that cannot be written is not made up in memory: workers would not agree who a visitor is, and a session
would end with its worker.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from features.pseudonyms import Pseudonymiser, load_key
from serving.problems import Problem

logger = logging.getLogger("lotse.pseudonyms")

DAY_MS: Final = 86_400_000
_KEPT_DAYS: Final = 2
# Visitors whose pseudonyms a worker remembers.
_REMEMBERED: Final = 50_000
_SALT = re.compile(r"^day-(\d+)\.key$")


class RotatingPseudonyms:
    """Pseudonyms by consent and day (UTC)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lasting = Pseudonymiser(load_key(folder / "pseudonym.key"))
        self._days: dict[int, Pseudonymiser] = {}
        self._today: tuple[int, Callable[[str, bool], int]] = -1, lambda raw, linked: 0
        self._looked_for = -1  # yesterday's file is looked for once a day, it cannot appear later

    def at(self, now_ms: int) -> Callable[[str, bool], int]:
        """What makes the pseudonyms to use now: pseudonym(raw, linked).

        It raises a Problem, 503, for visitors who are not linked as long as today's key cannot be written.
        """
        number = now_ms // DAY_MS
        if self._today[0] != number:
            lasting = self._lasting.visitor
            try:
                day = self._of_day(number).visitor
            except OSError as error:
                logger.error("events are refused: today's key for pseudonyms cannot be written: %s", error)
                # tried again with the next request
                return lambda raw, linked: lasting(raw) if linked else _refused()
            self._today = number, _remembering(lasting, day)
        return self._today[1]

    def of_day(self, text: str, now_ms: int) -> int:
        """A pseudonym that holds for the day of a moment (UTC), whatever the consent."""
        return self._of_day(now_ms // DAY_MS).visitor(text)

    def earlier(self, raw: str, now_ms: int, *, linked: bool) -> list[int]:
        """Pseudonyms under which a session that is still open may have begun: before midnight, before consent was
        given, or before it was withdrawn.
        """
        before = self._of_days(raw, now_ms, days=(1, 0) if linked else (1,))
        return before if linked else [*before, self._lasting.visitor(raw)]

    def all(self, raw: str, now_ms: int) -> list[int]:
        """Every pseudonym under which anything of a visitor can still be found: those of days whose keys are deleted
        cannot be made any more.
        """
        for day in range(now_ms // DAY_MS - _KEPT_DAYS, now_ms // DAY_MS + 1):
            if self._path(day).exists():
                self._of_day(day)
        return [self._lasting.visitor(raw), *self._of_days(raw, now_ms, days=range(_KEPT_DAYS + 1))]

    def veiled(self, key: bytes, others: Sequence[bytes], now_ms: int) -> list[bytes]:
        """Other keys of the visitor with this key, as they may lie on a disk: nobody can tell them without the key of
        that day; done again they are what they were, until it is deleted.

        Otherwise a lasting key would lie beside the pseudonym of a day there.
        """
        day = now_ms // DAY_MS
        if day not in self._days and not self._path(day).exists():
            return []
        veil, found = self._of_day(day).visitor, []
        for number, other in enumerate(others):
            stream = veil(f"veil {number} {key.hex()}").to_bytes(len(other), "little", signed=True)
            found.append(bytes(one ^ two for one, two in zip(other, stream, strict=True)))
        return found

    def _of_days(self, raw: str, now_ms: int, days: Iterable[int]) -> list[int]:
        """Pseudonyms of so many days ago, where there is a key."""
        today = now_ms // DAY_MS
        if self._looked_for != today:
            self._looked_for = today
            if self._path(today - 1).exists():
                self._of_day(today - 1)
        return [self._days[today - ago].visitor(raw) for ago in days if today - ago in self._days]

    def forget(self, now_ms: int) -> None:
        """Delete the keys of days that ended 48 hours ago and earlier."""
        today = now_ms // DAY_MS
        for path in self._folder.glob("day-*.key"):
            found = _SALT.match(path.name)
            if found and int(found[1]) < today - _KEPT_DAYS:
                path.unlink(missing_ok=True)
        # the store's thread may look up days meanwhile: the list is made at once, and nothing that it adds is lost
        for day in list(self._days):
            if day < today - _KEPT_DAYS:
                self._days.pop(day, None)
        if self._today[0] not in self._days:
            self._today = -1, self._today[1]

    def _path(self, day: int) -> Path:
        return self._folder / f"day-{day}.key"

    def _of_day(self, day: int) -> Pseudonymiser:
        found = self._days.get(day)
        if found is None:
            found = self._days[day] = Pseudonymiser(load_key(self._path(day)))
        return found


def _remembering(lasting: Callable[[str], int], day: Callable[[str], int]) -> Callable[[str, bool], int]:
    """The pseudonym by consent, looked up where it was made before: 0.1 us instead of 0.5.

    An id is remembered by Python's hash of it, whose key is this process' own and never leaves it.
    """
    known_lasting, known_day = dict[int, int](), dict[int, int]()

    def pseudonym(raw: str, linked: bool) -> int:
        known = known_lasting if linked else known_day
        found = known.get(hash(raw))
        if found is None:
            found = lasting(raw) if linked else day(raw)
            if len(known) >= _REMEMBERED:
                known.clear()
            known[hash(raw)] = found
        return found

    return pseudonym


def _refused() -> NoReturn:
    raise Problem(
        503,
        "today's key for pseudonyms cannot be written: the disk of keys.folder is full or read-only; nothing was kept",
        retry_after_seconds=1,
    )
