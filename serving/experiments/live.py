"""The experiments that a worker runs: the file, followed; what was last good stays when a bad one comes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.allocation import Table
from features.compiler import Fold
from features.settings import SettingsError
from serving.experiments.assignments import merged, unpack
from serving.experiments.configuration import Configuration, nothing, parse, tables
from serving.experiments.flags import Evaluator, Flag, Subject, flags_without_session
from serving.sessions import Assigning, key_of

if TYPE_CHECKING:
    from serving.requests import Answer, Request, View
    from serving.settings import ExperimentSettings

logger = logging.getLogger("lotse.experiments")


class Experiments:
    """What runs.

    Attributes
    ----------
    configuration: what runs; error: why the file as it is now does not, empty if it does.
    """

    def __init__(self, settings: ExperimentSettings, heads: Sequence[str], fold: Fold) -> None:
        """Read the file; there may be none.

        Raises
        ------
        SettingsError
            It cannot be used: a service does not start with it.
        """
        self._path = Path(settings.file)
        self._known = frozenset((*heads, *fold.names))
        self.error = ""
        self._seen: tuple[int, int] | None = None
        self._evaluators: dict[str, Evaluator] = {}
        self._tables: Mapping[str, Table] = {}
        self.configuration = nothing(self._known)
        if self._changed():
            self._use(parse(self._path.read_bytes(), self._known, str(self._path)))

    def evaluator(self, fold: Fold) -> Evaluator:
        """What evaluates rows of this fold."""
        found = self._evaluators.get(fold.digest)
        if found is None:
            found = self._evaluators[fold.digest] = Evaluator(self.configuration, self._tables, fold.names)
        return found

    def keys(self, asked: Sequence[str]) -> Sequence[str]:
        """The features that are asked for, all if none are named; unknown ones are left out."""
        known = self.configuration.ruleset.keys
        return [key for key in asked if key in known] if asked else known

    def flag(self, request: Request, answers: Sequence[Answer], received_ms: int) -> list[Assigning]:
        """Have the flags in the answers to a request's events; returns what is assigned."""
        assignings = []
        keys = self.keys(request.flags or ())
        for event, (visit, number), answer in zip(request.events, request.seats, answers, strict=True):
            group, place = visit.group, visit.events[number]
            started = group.starts[place]
            subject = Subject(
                event.visitor, started, answer.events, 0.0, max(event.time - started, 0) / 1000, answer.scores,
                group.sheet.rows[0, place], event.consent, unpack(visit.assigned),
            )  # fmt: skip
            answer.flags, new = self.evaluator(group.sessions.fold).evaluate(subject, keys, received_ms)
            if new:
                visit.assigned = merged(visit.assigned, new)
                assignings.append(Assigning([group.sessions], visit.key, started, new, event.consent))
        return assignings

    def without_session(self, context: Mapping[str, Any], asked: Sequence[str]) -> dict[str, Flag]:
        """Flags by what a caller says alone: experiments assign nothing."""
        return flags_without_session(self.configuration, context, self.keys(asked))

    def flags_of(
        self,
        view: View,
        keys: Sequence[str],
        now_ms: int,
        more: Mapping[str, Any] | None = None,
        forced: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, Flag], Assigning | None]:
        """Flags of a session that was looked at, and what is assigned to it."""
        subject, sessions = view.subject, view.sessions
        evaluator = self.evaluator(sessions.fold)
        flags, new = evaluator.evaluate(subject, self.keys(keys), now_ms, more, forced)
        visitor, started, consent = subject.visitor, subject.started_at, subject.consent
        assigning = Assigning([sessions], key_of(visitor), started, new, consent) if new else None
        return flags, assigning

    async def follow(self) -> None:
        """Use the file as it is now, if it can be."""
        if not self._changed():
            return
        try:
            content = self._path.read_bytes() if self._seen else b"{}"
            self._use(parse(content, self._known, str(self._path)))
        except (SettingsError, OSError) as error:
            self.error = str(error)
            logger.error("experiments go on as they were, version %s: %s", self.configuration.version, error)

    def _changed(self) -> bool:
        try:
            status = self._path.stat()
            now = status.st_mtime_ns, status.st_ino
        except FileNotFoundError:
            now = None
        changed, self._seen = now != self._seen, now
        return changed

    def _use(self, configuration: Configuration) -> None:
        self._tables = tables(configuration, time.time_ns() // 1_000_000)
        self.configuration, self.error = configuration, ""
        self._evaluators = {}
        logger.info(
            "experiments of version %s run: %d features, %d experiments",
            configuration.version, len(configuration.ruleset.keys), len(configuration.trials),
        )  # fmt: skip
