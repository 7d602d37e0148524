"""The reference results: measures equal scikit-learn's, rivals learn what there is, the page has all its places."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.results import markov, sequence
from benchmarks.results.__main__ import PAGE, SPLIT_AGAIN
from benchmarks.results.entries import slices_of_visits, visits
from benchmarks.results.logs import LOGS, true_scores
from benchmarks.results.measures import compare, interval
from benchmarks.results.online_shoppers import sessions, slice_of
from benchmarks.results.tables import SUMMARY, block, comparison_table, fill, merge_summary, summary_line
from features.batch import build_rows
from features.events import ADD_TO_CART, PAGE_VIEW, VIEW_ITEM
from simulation.shop import simulate
from training.config import TrainingSettings
from training.datasets import Slice
from training.heads import heads_of
from training.pipeline import Prepared, prepare

SETTINGS = TrainingSettings()


def rows_of(answer: np.ndarray, prefix: np.ndarray, visitor: np.ndarray) -> Slice:
    size = len(answer)
    nothing = np.zeros(size, np.int64)
    return Slice(
        name="test", names=("events",), matrix=prefix[:, None].astype(np.float32), answer=answer.astype(np.float32),
        prefix=prefix.astype(np.int32), idle_ms=nothing, session=np.arange(size), visitor=visitor, started=nothing,
        now=nothing, until=nothing, known_at=nothing,
    )  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> tuple[pd.DataFrame, pd.DataFrame]:
    found = simulate(events=25_000, seed=3)
    return found.events, found.truth.assign(visitor=found.events["visitor"], time=found.events["time"])


@pytest.fixture(scope="module")
def prepared(drawn: tuple[pd.DataFrame, pd.DataFrame]) -> Prepared:
    return prepare(drawn[0], SETTINGS)


def test_the_lift_is_the_mean_over_prefixes_of_average_precision_over_base_rate() -> None:
    random = np.random.default_rng(0)
    prefix, visitor = random.integers(1, 4, 3000), random.integers(0, 300, 3000)
    answer = random.random(3000) < 0.2
    score = random.normal(0, 1, 3000) + answer
    found = compare(rows_of(answer, prefix, visitor), {"Lotse": score, "none": np.zeros(3000)}, (1, 2, 3, 10), 15)
    expected = [
        average_precision_score(answer[at], score[at]) / answer[at].mean() for at in (prefix == n for n in (1, 2, 3))
    ]
    assert found.prefixes == (1, 2, 3)
    assert found.models["Lotse"].lift[0] == pytest.approx(np.mean(expected))
    assert found.models["Lotse"].auc[0] == pytest.approx(roc_auc_score(answer, score))
    assert found.models["none"].lift == pytest.approx(1.0)
    low, high = interval(found.ratio("none"))
    assert 1 < low < found.ratio("none")[0] < high


def test_a_page_keeps_its_prose_and_the_lines_of_other_logs() -> None:
    page = "prose\n<!-- results: summary -->\n<!-- end -->\nmore\n<!-- results: a -->\nold\n<!-- end -->\n"
    page = fill(page, "a", ["new"])
    assert page.startswith("prose\n") and "\nmore\n" in page and "\nnew\n" in page and "old" not in page
    with pytest.raises(KeyError, match="no place <!-- results: b -->"):
        block(page, "b")
    page = fill(page, SUMMARY, merge_summary(page, [["one", "exit", *"12345"], ["two", "exit", *"12345"]]))
    page = fill(page, SUMMARY, merge_summary(page, [["one", "exit", *"67890"]]))
    assert "| one | exit | 6 | 7 | 8 | 9 | 0 |\n| two | exit | 1 | 2 | 3 | 4 | 5 |" in page


def test_the_page_names_its_command_and_has_a_place_for_every_table() -> None:
    page = PAGE.read_text()
    assert "python -m benchmarks.results" in "".join(page.splitlines(keepends=True)[:4])
    uci = ("uci", "uci without PageValues", "uci later", "uci oversampled")
    for place in (SUMMARY, *LOGS, *(f"taobao splits {head}" for head in SPLIT_AGAIN), "ga360", *uci):
        assert block(page, place)


def test_a_chain_knows_the_exit_rate_of_each_state(prepared: Prepared) -> None:
    slices = prepared.slices(heads_of(SETTINGS)["exit"])
    past, test = slices["past"], slices["test"]
    states = markov.states_of(prepared.rows.events)
    score = markov.markov_chain(past, test, states)
    after = test.idle_ms == 0
    assert np.isnan(score[~after]).all() and ((score[after] > 0) & (score[after] < 1)).all()
    common = np.bincount(states.state[states.of(past)]).argmax()
    at = (past.idle_ms == 0) & (states.state[states.of(past)] == common)
    here = after & (states.state[states.of(test)] == common)
    assert score[here] == pytest.approx(past.answer[at].mean(), abs=0.01)


def test_an_event_that_opens_no_page_stays_on_the_page_that_is_open() -> None:
    time = np.arange(5) * 1000 + 1_700_000_000_000
    names = [VIEW_ITEM, ADD_TO_CART, PAGE_VIEW, ADD_TO_CART, ADD_TO_CART]
    events = build_rows(pd.DataFrame({"visitor": [1, 1, 1, 1, 2], "time": time, "name": names}), idle_seconds=()).events
    found = markov.states_of(events)
    cart = [place for place, name in enumerate(events["name"]) if name == ADD_TO_CART]
    assert len(set(found.state[cart])) == 3  # on an item's page, on another page, on none
    assert found.begin.tolist() == [0, 4]


def test_a_hidden_models_exits_are_those_of_its_states() -> None:
    """Two states, told apart by what they show: one never leaves, the other leaves every second time."""
    start, move = np.array([0.5, 0.5, 0.0]), np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    emission = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.0, 0.0, 1.0]])
    symbol, begin = np.array([0, 0, 1]), np.array([0, 2])
    found = markov.exit_probabilities(symbol, begin, start, move, emission, leave=2)
    second = 0.1 * 0.1 * 0.5  # the other state after two signs of the first: it stayed once
    assert found == pytest.approx([0.1 * 0.5, second / (second + 0.9 * 0.9) * 0.5, 0.9 * 0.5])


def test_the_hidden_model_orders_exits(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hmmlearn", reason="the extra `rivals`")
    monkeypatch.setattr(markov, "FITTED_SESSIONS", 500)
    slices = prepared.slices(heads_of(SETTINGS)["exit"])
    score = markov.hidden_markov_model(slices["past"], slices["test"], markov.states_of(prepared.rows.events))
    after = slices["test"].idle_ms == 0
    assert roc_auc_score(slices["test"].answer[after], score[after]) > 0.6


def test_parts_of_sessions_hold_every_row_once_with_the_events_before_it(prepared: Prepared) -> None:
    past = prepared.slices(heads_of(SETTINGS)["exit"])["past"]
    histories = sequence.histories_of(prepared.rows.events)
    parts = sequence.windows_of(histories, past)
    assert np.sort(parts.row).tolist() == list(range(len(past)))
    begin = histories.begin[past.session]
    assert (past.prefix > 2 * sequence.WINDOW).any()
    for first, last, start, length in zip(parts.first, parts.last, parts.start, parts.length, strict=True):
        rows = parts.row[first:last]
        assert len(set(past.session[rows])) == 1
        assert parts.event[first:last].max() == start + length - 1 and length <= 2 * sequence.WINDOW
        read = parts.event[first:last] - start + 1
        assert (read >= np.minimum(past.prefix[rows], sequence.WINDOW)).all()
        assert start >= begin[rows[0]]


@pytest.mark.slow
def test_the_network_learns_from_the_order_of_events(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an event has the name of the one before it is in no event alone."""
    pytest.importorskip("torch", reason="the extra `rivals`")
    monkeypatch.setattr(sequence, "MOST_EPOCHS", 8)
    head = heads_of(SETTINGS)["exit"]
    histories = sequence.histories_of(prepared.rows.events)
    name = histories.codes[:, 0]
    repeated = np.append(False, name[1:] == name[:-1]).astype(np.float32)
    sides = {}
    for side, every in prepared.slices(head).items():
        part = every.take((every.idle_ms == 0) & (every.prefix > 1))
        sides[side] = dataclasses.replace(part, answer=repeated[histories.begin[part.session] + part.prefix - 1])
    score = sequence.gru(sides["past"], sides["test"], head, SETTINGS, histories=histories)
    assert roc_auc_score(sides["test"].answer, score) > 0.95
    assert score.mean() == pytest.approx(sides["test"].answer.mean(), abs=0.05)


def test_the_truth_stands_at_its_event(prepared: Prepared, drawn: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    test = prepared.slices(heads_of(SETTINGS)["exit"])["test"]
    truth = true_scores(test, drawn[1], "exit")
    after = test.idle_ms == 0
    assert np.isnan(truth[~after]).all() and not np.isnan(truth[after]).any()
    assert truth[after].mean() == pytest.approx(test.answer[after].mean(), abs=0.02)


def test_the_summary_measures_against_the_best_other() -> None:
    random = np.random.default_rng(0)
    answer = random.random(4000) < 0.3
    spread = {"Lotse": 1.0, "logistic regression": 9.0, "GRU": 1.5, "CatBoost": 5.0, "the truth": 0.1}
    scores = {name: answer + random.normal(0, error, 4000) for name, error in spread.items()}
    found = compare(rows_of(answer, np.ones(4000, int), np.arange(4000)), scores, (1,), 15)
    cells = summary_line("log", "exit", found)
    assert cells[:2] == ["log", "exit"] and cells[-1] == "GRU" and "met" in cells[4]
    assert len(comparison_table(found)) == 4 + len(scores)


def test_the_files_are_read_as_they_are_described() -> None:
    shoppers = sessions()
    assert len(shoppers.answer) == 12_330 and shoppers.answer.sum() == 1_908
    assert len(np.unique(shoppers.group)) == 12_330 - 125
    one = slice_of(shoppers, np.arange(0, 12_330, 3), "past")
    assert len(np.unique(one.started)) == len(one) and not np.isnan(one.matrix).any()
    found = visits()
    assert len(found) == 37_887 and found["bounced"].mean() == pytest.approx(0.331, abs=0.001)
    slices = slices_of_visits(found, SETTINGS)
    assert not set(slices["past"].visitor) & set(slices["test"].visitor)
    assert slices["past"].now.max() + SETTINGS.timeout_ms < slices["test"].started.min()
    assert {field.name for field in dataclasses.fields(slices["past"])} == {f.name for f in dataclasses.fields(one)}
