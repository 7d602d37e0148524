"""How the allocation of an experiment went: when its phase began, by which tables it assigned, which arms were closed.

The learner notes it as it goes along, in one file beside what it publishes, which no worker reads but to tell of it. It
holds probabilities and moments, and nothing of any unit. The newest tables are all kept, for two weeks by the hour as
tables are made by default, and one a day of those before, so that a file of a year is no larger than one of three
months.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from features.allocation import DAY_MS
from serving.experiments.configuration import Trial
from serving.experiments.history import write_whole
from serving.experiments.learned import Stopped

logger = logging.getLogger("lotse.learning")

FILE: Final = "timeline.json"
FORMAT: Final = 1
NEWEST: Final = 336
DAYS: Final = 90
# Of probabilities: what a picture shows.
_DIGITS: Final = 4

Bins = list[list[float]]


class Timeline(msgspec.Struct):
    """Of one phase.

    began_ms: when the learner first saw it run, or the period of its first exposures, ms UTC; begun: probabilities of
    the arms by bin that held then. tables: those that came later, by the moment from which they held. killed: when the
    learner first saw that an arm is.
    """

    phase: int
    arms: list[str]
    edges: list[float]
    began_ms: int
    begun: Bins
    tables: dict[int, Bins] = {}
    killed: dict[str, int] = {}


class Book(msgspec.Struct):
    """The file."""

    experiments: dict[str, Timeline] = {}
    format: int = FORMAT


class Point(NamedTuple):
    """What held from a moment on, ms UTC: by bin the probabilities of the arms outside the holdback."""

    from_ms: int
    bins: Bins


class Closing(NamedTuple):
    """An arm that was given no longer; why: killed, by a person, or guardrail, of `goal`."""

    arm: str
    at_ms: int
    why: str
    goal: str = ""


class TimelineFile:
    """The file in a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def read(self) -> Book:
        """What it says; nothing where there is none, or none that can be used."""
        try:
            book = msgspec.json.decode(self.path.read_bytes(), type=Book)
            if book.format == FORMAT:
                return book
            logger.error("%s: format %s; this release reads %s", self.path, book.format, FORMAT)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            logger.error("how experiments went until now cannot be read: %s: %s", self.path, error)
        return Book()

    def write(self, book: Book) -> None:
        """Replace it."""
        write_whole(self.path, msgspec.json.encode(book))


class Timelines:
    """What the learner notes."""

    def __init__(self, file: TimelineFile) -> None:
        """Go on with what an earlier one noted."""
        self._file = file
        self._book = file.read()
        self._changed = False

    def note(
        self, trial: Trial, tables: Mapping[int, npt.NDArray[np.float64]], first_ms: int | None, now_ms: int
    ) -> None:
        """One look; tables: all that are known, by the moment from which they hold; first_ms: the first exposures."""
        definition, edges = trial.definition, list(trial.plan.allocation.edges)
        known = self._book.experiments.get(trial.key)
        shape = definition.phase, list(definition.arms), edges
        if known is None or (known.phase, known.arms, known.edges) != shape:
            begun = _rounded(np.array(trial.plan.table(trial.plan.nothing(), now_ms).bins))
            known = Timeline(*shape, began_ms=now_ms, begun=begun)
            self._book.experiments[trial.key] = known
            self._changed = True
        began = min((known.began_ms, *tables, *(() if first_ms is None else (first_ms,))))
        latest = max(known.tables, default=0)
        new = {moment: _rounded(bins) for moment, bins in tables.items() if moment >= latest}
        kept = thinned({**known.tables, **new})
        killed = {arm: known.killed.get(arm, now_ms) for arm in definition.killed}
        if (began, kept, killed) != (known.began_ms, known.tables, known.killed):
            known.began_ms, known.tables, known.killed = began, kept, killed
            self._changed = True

    def keep(self, phases: Mapping[str, int]) -> None:
        """Write what has changed, without experiments and phases that there are no longer; phases: by experiment."""
        gone = [key for key, one in self._book.experiments.items() if phases.get(key) != one.phase] if phases else []
        for key in gone:
            del self._book.experiments[key]
        if self._changed or gone:
            self._file.write(self._book)
            self._changed = False


def thinned(tables: Mapping[int, Bins]) -> dict[int, Bins]:
    """The newest, and of the days before the last of each.

    >>> hours = {hour * 3_600_000: [[0.5, 0.5]] for hour in range(24 * 400)}
    >>> kept = sorted(thinned(hours))
    >>> len(kept), kept[-1] == max(hours), {later - one for one, later in zip(kept[:89], kept[1:])} == {DAY_MS}
    (426, True, True)
    """
    moments = sorted(tables)
    newest, before = moments[-NEWEST:], moments[:-NEWEST]
    days = {moment // DAY_MS: moment for moment in before}  # the last of each
    return {moment: tables[moment] for moment in [*list(days.values())[-DAYS:], *newest]}


def closings(timeline: Timeline, stopped: Iterable[Stopped]) -> list[Closing]:
    """Arms that are given no longer, in the order in which they were closed; of two reasons the first counts."""
    found = [Closing(one.arm, one.at_ms, "guardrail", one.goal) for one in stopped]
    found += [Closing(arm, at_ms, "killed") for arm, at_ms in timeline.killed.items()]
    first: dict[str, Closing] = {}
    for one in sorted(found, key=lambda one: one.at_ms):
        if one.arm in timeline.arms[1:]:
            first.setdefault(one.arm, one)
    return list(first.values())


def points(timeline: Timeline, closed: Iterable[Closing], now_ms: int) -> list[Point]:
    """What held until now: what it began with, then each table; what a closed arm has goes to the control.

    That is how `Standing` assigns. A table that was made after the closing gives the arm nothing anyway.
    """
    closed = list(closed)
    tables = sorted({timeline.began_ms: timeline.begun, **timeline.tables}.items())
    moments = {moment for moment, _ in tables} | {max(one.at_ms, timeline.began_ms) for one in closed}
    found: list[Point] = []
    for moment in sorted(moment for moment in moments if moment <= now_ms):
        bins = [list(line) for line in next(bins for begin, bins in reversed(tables) if begin <= moment)]
        for place in (timeline.arms.index(one.arm) for one in closed if one.at_ms <= moment):
            for line in bins:
                line[place] = 0.0
                line[0] = 1 - sum(line[1:])  # what is rounded adds up to almost 1 only
        rounded = _rounded(np.array(bins))
        if not found or found[-1].bins != rounded:
            found.append(Point(moment, rounded))
    return found


def _rounded(bins: npt.NDArray[np.float64]) -> Bins:
    lines: Bins = bins.round(_DIGITS).tolist()
    return lines
