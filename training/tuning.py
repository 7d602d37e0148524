"""Searching LightGBM's parameters for a head, by what the inner folds of the past say; the test is never looked at.

In: the past's rows of one head. Out: a `Tuned`, the parameters of least loss among all trials. The first trial is the
configuration as it is, so that the search never ends with a larger loss than it began with. Trials are drawn by a
tree-structured Parzen estimator (Bergstra et al. 2011) and given up after an inner fold when they gain less on the
configuration than the median of the trials before (Optuna's MedianPruner). They are kept in a database under a name
made of the question: the rows, the folds and every setting that a trial's loss depends on. So a search that was stopped
or killed goes on where it was, and one with other rows or settings begins anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from features.settings import SettingsError
from training.config import TrainingSettings
from training.datasets import Slice
from training.heads import Head
from training.inner import cross_fit, inner_folds
from training.search_space import SPACE, Values, configured, suggest

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

_PRUNED_FROM: Final = 5  # trials that always run to their end


@dataclass(frozen=True)
class Attempt:
    """One trial that ended.

    Attributes
    ----------
    values: of the parameters; configured: whether they are those of the configuration.
    loss: over all inner folds, or, of a trial that was given up, over those it came to; losses: after each fold.
    rounds: trees, 0 for none or where it was given up.
    """

    number: int
    values: Values
    configured: bool
    pruned: bool
    loss: float
    losses: tuple[float, ...]
    rounds: int


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes
    ----------
    study: its name in the database; before, after: the loss as configured and the least one, log loss, or Tweedie
        deviance for amounts; NaN where no trial has ended.
    configured, values: the parameters as configured, and those of least loss.
    complete, pruned: trials that ran to their end, and that were given up, of this run and of earlier ones.
    """

    head: str
    study: str
    before: float
    after: float
    configured: Values
    values: Values
    complete: int
    pruned: int

    @property
    def improved(self) -> bool:
        """Whether anything was better than the configuration."""
        return self.after < self.before


# Called with the trials done, parts of running ones included, and what was found so far.
Report = Callable[[float, Tuned], None]


class _Interrupted(Exception):  # noqa: N818  (not an error)
    """Time is up, or somebody wants the search to end."""


def study_name(past: Slice, head: Head, settings: TrainingSettings) -> str:
    """The head and 16 hex digits over what a trial's loss depends on.

    The number of threads is left out: it moves the last digits alone.
    """
    state = hashlib.sha256(past.digest().encode())
    for moments in (past.visitor, past.started, past.known_at):
        state.update(moments.tobytes())
    sections = settings.for_head(head.name).model_dump(mode="json", include={"split", "linear", "lightgbm"})
    del sections["lightgbm"]["num_threads"]
    state.update(json.dumps([sections, head.task, repr(SPACE)], sort_keys=True).encode())
    return f"{head.name}-{state.hexdigest()[:16]}"


def open_study(past: Slice, head: Head, settings: TrainingSettings, storage: Any, *, resume: bool = True) -> Study:
    """The trials for this question, those of earlier searches included; without `resume` none.

    A trial that an earlier search could not end is begun anew.

    Raises
    ------
    SettingsError
        The past is too small for inner folds.
    """
    import optuna  # noqa: PLC0415

    if not inner_folds(past, settings):
        raise SettingsError(
            f"head {head.name!r}: the past is too small for an inner fold with both answers on both sides, and without "
            "one nothing can be tuned; use a longer history, or change [split] inner_folds or inner_from"
        )
    name = study_name(past, head, settings)
    known = any(one.study_name == name for one in optuna.get_all_study_summaries(storage, include_best_trial=False))
    if known and not resume:
        optuna.delete_study(study_name=name, storage=storage)
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        load_if_exists=True,
        direction="minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_PRUNED_FROM),
    )
    # a search that goes on must not draw the same numbers again
    study.sampler = optuna.samplers.TPESampler(seed=settings.tuning.seed + len(study.trials))
    running = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    for trial in running:  # whoever ran them is gone: the database is ours alone
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params, trial.user_attrs)
    if not study.trials:
        values = configured(head, settings)
        clipped = {name: space.clipped(values[name]) for name, space in SPACE.items()}
        study.enqueue_trial(clipped, {"configured": True})
    return study


def search(
    study: Study,
    past: Slice,
    head: Head,
    settings: TrainingSettings,
    *,
    seconds: float = np.inf,
    stopped: Callable[[], bool] = lambda: False,
    report: Report = lambda *_: None,
    observe: Callable[[Attempt], None] = lambda _: None,
) -> Tuned:
    """Try until [tuning] trials have ended, `seconds` are over or `stopped` says so.

    study: of `open_study` for the same rows and settings; report: called with every tree of every trial; observe:
    called after each trial that ended, one call at a time.
    """
    trials = _Search(study, past, head, settings, time.monotonic() + seconds, stopped, report, observe)
    with ThreadPoolExecutor(settings.tuning.jobs) as pool:
        working = [pool.submit(trials.work) for _ in range(settings.tuning.jobs)]
    for one in working:
        one.result()
    return trials.found()


class _Search:
    """The trials of one study, taken by any number of threads; the storage is asked by one at a time."""

    def __init__(
        self,
        study: Study,
        past: Slice,
        head: Head,
        settings: TrainingSettings,
        deadline: float,
        stopped: Callable[[], bool],
        report: Report,
        observe: Callable[[Attempt], None],
    ) -> None:
        self.study, self.past, self.head, self.settings = study, past, head, settings
        self.deadline, self.stopped, self.report, self.observe = deadline, stopped, report, observe
        self.configured = configured(head, settings)
        self.lock = Lock()
        self.failed = False
        self.begun = len(_ended(study))
        self.parts: dict[int, float] = {}
        self.so_far, self.base = self.found(), self._base()

    def work(self) -> None:
        """Take trials until none is left."""
        try:
            while (trial := self._next()) is not None:
                self._try(trial)
        except BaseException:
            self.failed = True  # the other threads end, too
            raise

    def found(self) -> Tuned:
        """The best of all trials so far."""
        ended = _ended(self.study)
        complete = [one for one in ended if one.state.name == "COMPLETE"]
        before = [float(one.value or 0.0) for one in complete if one.user_attrs.get("configured")]
        best = min(complete, key=lambda one: float(one.value or 0.0), default=None)
        return Tuned(
            head=self.head.name,
            study=self.study.study_name,
            before=before[0] if before else float("nan"),
            after=float(best.value or 0.0) if best else float("nan"),
            configured=self.configured,
            values=best.user_attrs["values"] if best else self.configured,
            complete=len(complete),
            pruned=len(ended) - len(complete),
        )

    def _base(self) -> list[float]:
        """The losses after each fold as configured; nothing before they are known."""
        known = [one.user_attrs["losses"] for one in _ended(self.study) if one.user_attrs.get("configured")]
        return known[0] if known else []

    def _over(self) -> bool:
        return self.failed or self.stopped() or time.monotonic() >= self.deadline

    def _next(self) -> Trial | None:
        with self.lock:
            if self._over() or self.begun >= self.settings.tuning.trials:
                return None
            self.begun += 1
            trial = self.study.ask()
            drawn = {name: suggest(trial, name, space) for name, space in SPACE.items()}
            trial.set_user_attr("values", self.configured if trial.user_attrs.get("configured") else drawn)
            return trial

    def _try(self, trial: Trial) -> None:
        import optuna  # noqa: PLC0415

        state = optuna.trial.TrialState
        values, is_configured = trial.user_attrs["values"], bool(trial.user_attrs.get("configured"))
        losses: list[float] = []

        def tick(done: int, whole: int) -> None:
            if self._over():
                raise _Interrupted
            with self.lock:
                self.parts[trial.number] = done / max(whole, 1)
                self._tell_progress()

        def after_fold(number: int, loss: float) -> None:
            losses.append(loss)
            base = self.base
            if is_configured or number >= len(base):
                return
            with self.lock:
                # the differences: the folds' losses lie on levels of their own, and the pruner looks at the least
                trial.report(loss - base[number], number)
                if number + 1 < len(base) and trial.should_prune():
                    raise optuna.TrialPruned

        loss, rounds, pruned = float("nan"), 0, False
        try:
            fitted = cross_fit(self.past, self.head, self._with({} if is_configured else values), tick, after_fold)
            loss, rounds = fitted.log_loss, fitted.rounds
        except optuna.TrialPruned:
            loss, pruned = losses[-1], True
        except _Interrupted:
            with self.lock:
                self.study.tell(trial, state=state.FAIL)
                self.study.enqueue_trial(trial.params, trial.user_attrs)
            return
        with self.lock:
            trial.set_user_attr("losses", losses)
            self.study.tell(trial, None if pruned else loss, state.PRUNED if pruned else state.COMPLETE)
            self.parts.pop(trial.number, None)
            self.so_far, self.base = self.found(), self._base()
            self.observe(Attempt(trial.number, values, is_configured, pruned, loss, tuple(losses), rounds))
            self._tell_progress()

    def _tell_progress(self) -> None:
        self.report(self.so_far.complete + self.so_far.pruned + sum(self.parts.values()), self.so_far)

    def _with(self, values: Values) -> TrainingSettings:
        settings = self.settings.for_head(self.head.name)
        threads = settings.lightgbm.num_threads
        if settings.tuning.jobs > 1:
            threads = max(1, (os.cpu_count() or 1) // settings.tuning.jobs)
        return settings.with_lightgbm({**values, "num_threads": threads})


def _ended(study: Study) -> list[FrozenTrial]:
    from optuna.trial import TrialState  # noqa: PLC0415

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
