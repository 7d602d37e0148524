"""Exit by what the sequence of event names alone says: a first-order Markov chain, and a hidden Markov model.

A state is an event's name with the kind of the page that is open; both models end in an absorbing exit. Neither knows
the time: there are scores right after events, and NaN at the idle checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from features.events import PAGE_KIND_OF, PAGE_KINDS
from training.datasets import Slice

# Events of the mean exit rate that are added to each state's own.
PRIOR_EVENTS: Final = 20
# Hidden states; and sessions that the model is fitted on at most, because a step over all takes long.
COMPONENTS: Final = 6
FITTED_SESSIONS: Final = 8000
ITERATIONS: Final = 25


@dataclass(frozen=True)
class States:
    """The states of n sorted events: state: int64 (n,); begin: int64 (sessions,), where each session begins."""

    state: np.ndarray
    begin: np.ndarray

    def of(self, rows: Slice) -> np.ndarray:
        """Position of the event that each row comes after, int64."""
        return self.begin[rows.session] + rows.prefix - 1


def states_of(events: pd.DataFrame) -> States:
    """Name and open page of each event; events: sorted, with `session_index`."""
    session, name = events["session_index"].to_numpy(), events["name"].to_numpy().astype(np.int64)
    begins = np.append(True, session[1:] != session[:-1])
    kinds = np.zeros(256, np.int64)
    kinds[list(PAGE_KIND_OF)] = list(PAGE_KIND_OF.values())
    # the latest event that opened a page, or the session's first, which leaves none open
    opened = np.maximum.accumulate(np.where((kinds[name] > 0) | begins, np.arange(len(name)), 0))
    return States(name * len(PAGE_KINDS) + kinds[name[opened]], np.flatnonzero(begins))


def markov_chain(past: Slice, test: Slice, states: States) -> np.ndarray:
    """P(exit | state) by its frequency in the past, smoothed towards the mean: float64 (test rows,)."""
    after = past.idle_ms == 0
    state, answer = states.state[states.of(past)[after]], past.answer[after].astype(np.float64)
    size = int(states.state.max()) + 1
    exits = np.bincount(state, answer, minlength=size) + PRIOR_EVENTS * answer.mean()
    rate = exits / (np.bincount(state, minlength=size) + PRIOR_EVENTS)
    return np.where(test.idle_ms == 0, rate[states.state[states.of(test)]], np.nan)


def hidden_markov_model(past: Slice, test: Slice, states: States, seed: int = 7) -> np.ndarray:
    """P(the next symbol is the exit | the states so far), the exit being one more symbol: float64 (test rows,).

    Raises
    ------
    ImportError
        hmmlearn is not there: names the extra.
    """
    try:
        from hmmlearn.hmm import CategoricalHMM  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("the hidden Markov model needs hmmlearn: pip install 'lotse[rivals]'") from error
    _, symbol = np.unique(states.state, return_inverse=True)
    ended = np.append(states.begin[1:], len(symbol))
    chosen = np.unique(past.session)
    if len(chosen) > FITTED_SESSIONS:
        chosen = np.random.default_rng(seed).choice(chosen, FITTED_SESSIONS, replace=False)
    leave = int(symbol.max()) + 1
    sequences = [np.append(symbol[states.begin[session] : ended[session]], leave) for session in chosen]
    model = CategoricalHMM(COMPONENTS, n_features=leave + 1, n_iter=ITERATIONS, random_state=seed)
    model.fit(np.concatenate(sequences)[:, None], [len(sequence) for sequence in sequences])
    emission = model.emissionprob_ + 1e-9  # a symbol that the fitted sessions lack must not make a state impossible
    exits = exit_probabilities(symbol, states.begin, model.startprob_, model.transmat_, emission, leave)
    return np.where(test.idle_ms == 0, exits[states.of(test)], np.nan)


def exit_probabilities(
    symbol: np.ndarray, begin: np.ndarray, start: np.ndarray, move: np.ndarray, emission: np.ndarray, leave: int
) -> np.ndarray:
    """The forward algorithm over all sessions at once: P(next symbol is `leave`) after each event, float64 (n,).

    symbol: int64 (n,); begin: int64 (sessions,); start: (k,); move: (k, k); emission: (k, symbols). Rabiner 1989.
    """
    length = np.diff(np.append(begin, len(symbol)))
    leaving = move @ emission[:, leave]
    found = np.empty(len(symbol))
    alive = np.arange(len(begin))
    state = np.broadcast_to(start, (len(begin), len(start)))
    for step in range(int(length.max(initial=0))):
        going = length[alive] > step
        alive, state = alive[going], state[going]
        at = begin[alive] + step
        state = state * emission[:, symbol[at]].T
        state = state / state.sum(axis=1, keepdims=True)
        found[at] = state @ leaving
        state = state @ move
    return found
