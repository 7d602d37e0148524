"""The experiments that a worker runs: the file, followed; what was last good stays when a bad one comes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.compiler import Fold
from features.settings import SettingsError
from serving.experiments.assignments import merged, unpack
from serving.experiments.configuration import Configuration, nothing, parse
from serving.experiments.flags import Evaluator, Flag, Subject, flags_without_session
from serving.experiments.learned import LearnedFile, Published, Standing, standings
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
    known: names of scores and features; published: what was learned, the last that could be used; standings: how each
    experiment assigns.
    """

    def __init__(self, settings: ExperimentSettings, heads: Sequence[str], fold: Fold) -> None:
        """Read the file; there may be none.

        Raises
        ------
        SettingsError
            It cannot be used: a service does not start with it.
        """
        self._path = Path(settings.file)
        self.known = frozenset((*heads, *fold.names))
        self.error = ""
        self._seen: tuple[int, int] | None = None
        self._evaluators: dict[str, Evaluator] = {}
        self.published = Published()
        self.standings: Mapping[str, Standing] = {}
        self._learned, self._learned_seen = LearnedFile(Path(settings.learned)), (0, 0)
        self.configuration = nothing(self.known)
        self._follow_learned()
        if self._changed():
            self._use(parse(self._path.read_bytes(), self.known, str(self._path)))

    def evaluator(self, fold: Fold) -> Evaluator:
        """What evaluates rows of this fold."""
        found = self._evaluators.get(fold.digest)
        if found is None:
            found = self._evaluators[fold.digest] = Evaluator(self.configuration, self.standings, fold.names)
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
                assignings.append(Assigning([group.sessions], visit.key, started, new))
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
        assigning = Assigning([sessions], key_of(subject.visitor), subject.started_at, new) if new else None
        return flags, assigning

    async def follow(self) -> None:
        """Use the file as it is now, and what was learned, if they can be."""
        self._follow_learned()
        if not self._changed():
            return
        try:
            content = self._path.read_bytes() if self._seen else b"{}"
            self._use(parse(content, self.known, str(self._path)))
        except (SettingsError, OSError) as error:
            self.error = str(error)
            logger.error("experiments go on as they were, version %s: %s", self.configuration.version, error)

    def _follow_learned(self) -> None:
        """Assign by what was learned last; what cannot be used changes nothing."""
        mark = self._learned.mark()
        if mark == self._learned_seen:
            return
        self._learned_seen = mark
        try:
            published = self._learned.read()
            self._stand(self.configuration, published)
        except (ValueError, OSError) as error:
            logger.error("what experiments have learned cannot be used; they go on as they were: %s", error)

    def _stand(self, configuration: Configuration, published: Published) -> None:
        """Assign by a configuration and what was learned."""
        found = standings(configuration.trials, published)
        self.published = published
        if found != self.standings or configuration is not self.configuration:
            self.configuration, self.standings, self._evaluators = configuration, found, {}

    def _changed(self) -> bool:
        try:
            status = self._path.stat()
            now = status.st_mtime_ns, status.st_ino
        except FileNotFoundError:
            now = None
        changed, self._seen = now != self._seen, now
        return changed

    def _use(self, configuration: Configuration) -> None:
        try:
            self._stand(configuration, self.published)
        except ValueError as error:
            logger.error("what experiments have learned cannot be used; they begin anew: %s", error)
            self._stand(configuration, Published())
        self.error = ""
        logger.info(
            "experiments of version %s run: %d features, %d experiments",
            configuration.version, len(configuration.ruleset.keys), len(configuration.trials),
        )  # fmt: skip
