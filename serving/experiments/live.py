"""The experiments that a worker runs: the file, followed; what was last good stays when a bad one comes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.compiler import Fold
from features.settings import SettingsError
from serving.experiments.assignments import Assignment, merged, unpack
from serving.experiments.attributes import names_of
from serving.experiments.configuration import Configuration, nothing, parse
from serving.experiments.flags import Evaluator, Flag, Subject, flags_without_session
from serving.experiments.learned import LearnedFile, Published, Standing, standings
from serving.sessions import Assigning

if TYPE_CHECKING:
    from serving.requests import Answer, Request, View
    from serving.settings import ExperimentSettings

logger = logging.getLogger("lotse.experiments")


class Experiments:
    """What runs.

    Attributes
    ----------
    path: of the file; configuration: what runs; written_ms: when that was, 0 if there is no file.
    error: why the file as it is now does not run, empty if it does.
    queries: those that ask for all flags or for one, and its key: looked up, where parsing takes as long as a flag.
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
        self.path = Path(settings.file)
        self.known = names_of(heads, fold)
        self.error, self.written_ms = "", 0
        self._seen: tuple[int, int] | None = None
        self._evaluators: dict[str, Evaluator] = {}
        self.queries: Mapping[bytes, Sequence[str]] = {}
        self.published = Published()
        self.standings: Mapping[str, Standing] = {}
        self._learned, self._learned_seen = LearnedFile(Path(settings.learned)), (0, 0)
        self.configuration = nothing(self.known)
        self._follow_learned()
        if self._changed():
            self._use(self.parsed(self.path.read_bytes()))

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
    ) -> tuple[dict[str, Flag], list[Assignment]]:
        """Flags of a session that was looked at, and what is to be assigned to it."""
        evaluator = self.evaluator(view.sessions.fold)
        return evaluator.evaluate(view.subject, self.keys(keys), now_ms, more, forced)

    def state_of(self, view: View) -> str:
        """A text that is another one when a flag of the session may be."""
        return self.evaluator(view.sessions.fold).state(view.subject)

    def parsed(self, content: bytes, origin: str = "") -> Configuration:
        """A configuration as it would run here; origin: for errors, the file if it is empty.

        Raises
        ------
        SettingsError
            It cannot be used.
        """
        return parse(content, self.known, origin or str(self.path))

    async def follow(self) -> None:
        """Use the file as it is now, and what was learned, if they can be."""
        self._follow_learned()
        if not self._changed():
            return
        try:
            content = self.path.read_bytes() if self._seen else b"{}"
            self._use(self.parsed(content))
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
            status = self.path.stat()
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
        self.written_ms = self._seen[0] // 1_000_000 if self._seen else 0
        self.queries = {b"flags=all": (), **{b"flags=%b" % key.encode(): (key,) for key in configuration.ruleset.keys}}
        logger.info(
            "experiments of version %s run: %d features, %d experiments",
            configuration.version, len(configuration.ruleset.keys), len(configuration.trials),
        )  # fmt: skip
