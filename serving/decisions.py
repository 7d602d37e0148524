"""The log of decisions: that a score was answered, by which model versions, and what made it; a line of JSON each.

In: answers, of which a configured share is noted. Out: files that are only appended to, a day and a worker each, and
another one where one gets too long; deleted after `decisions.kept_days`. A line names the visitor by the pseudonym of
the day, whatever the consent: it cannot be led back to anybody once that day's key is deleted, and no two days belong
together. Reason codes are names of features, those that moved a score most, with the direction.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from serving.explain import Asked, explain

if TYPE_CHECKING:
    from serving.requests import Answer
    from serving.settings import DecisionSettings

OPTED_OUT: Final = "opted_out"
_CODES: Final = 3
# More wait only where the disk does not take them: the newest are left out then.
_WAITING: Final = 10_000
_FILE: Final = re.compile(r"decisions-(\d{4}-\d{2}-\d{2})-\d+-\d+\.jsonl")


class Decision(msgspec.Struct, kw_only=True):
    """One line.

    at: ms UTC; visitor: pseudonym of the day, 16 hexadecimal digits; automated: whether models were asked, false for a
    visitor who objects; scores, models: as answered; codes: of each head the features that moved its score most, with +
    or -; reasons: why a head has no score of a model.
    """

    at: int
    visitor: str
    automated: bool
    scores: dict[str, float]
    models: dict[str, str]
    codes: dict[str, list[str]]
    reasons: dict[str, str]


class DecisionLog:
    """One worker's."""

    def __init__(self, settings: DecisionSettings, of_day: Callable[[str, int], int]) -> None:
        self.sample = settings.sample
        self._folder, self._limit = Path(settings.folder), round(settings.file_mib * 2**20)
        self._kept = timedelta(days=settings.kept_days)
        self._of_day = of_day
        self._waiting: list[tuple[Decision, Sequence[Asked]]] = []
        self._number = 0

    def note(self, raw: str, answer: Answer, asked: Sequence[Asked], now_ms: int) -> None:
        """An answer was given; it may be noted. asked: what its scores were made of; raw: the visitor's id."""
        if len(self._waiting) >= _WAITING:
            return
        decision = Decision(
            at=now_ms, visitor=named(self._of_day(raw, now_ms)), automated=OPTED_OUT not in answer.reasons.values(),
            scores=answer.scores, models=answer.models, codes={}, reasons=answer.reasons,
        )  # fmt: skip
        self._waiting.append((decision, asked))

    def drawn(self) -> bool:
        """Whether an answer is to be noted."""
        return random.random() < self.sample

    def write(self, now_ms: int) -> int:
        """Write what waits, and delete what is too old; may be done in a thread. Returns how many lines.

        Raises
        ------
        OSError
            The disk does not take it; it goes on waiting.
        """
        today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
        for path in self._folder.glob("decisions-*.jsonl"):
            found = _FILE.fullmatch(path.name)
            if found and datetime.fromisoformat(found[1]).date() < today - self._kept:
                path.unlink(missing_ok=True)
        count = len(self._waiting)
        if not count:
            return 0
        lines = bytearray()
        for decision, asked in self._waiting[:count]:
            decision.codes = {name: _codes(one) for name, one in explain(asked, _CODES).items()}
            lines += msgspec.json.encode(decision) + b"\n"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(self._file(str(today)), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, lines)
        finally:
            os.close(file)
        del self._waiting[:count]
        return count

    def _file(self, day: str) -> Path:
        """The file to append to."""
        while True:
            path = self._folder / f"decisions-{day}-{os.getpid()}-{self._number}.jsonl"
            if not path.exists() or path.stat().st_size < self._limit:
                return path
            self._number += 1


def noted(folder: Path, visitors: Sequence[int]) -> list[Mapping[str, Any]]:
    """The lines about some visitors, by their pseudonyms of days."""
    names = {named(visitor) for visitor in visitors}
    lines = (line for path in sorted(folder.glob("decisions-*.jsonl")) for line in path.read_bytes().splitlines())
    return [one for line in lines if (one := msgspec.json.decode(line))["visitor"] in names]


def named(visitor: int) -> str:
    """A pseudonym as it is written."""
    return f"{visitor % 2**64:016x}"


def _codes(explanation: Any) -> list[str]:
    return [f"{'+' if one.contribution > 0 else '-'}{one.feature}" for one in explanation.contributions]
