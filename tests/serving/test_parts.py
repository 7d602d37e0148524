"""Tokens, pseudonyms, the store and the scorer, each by itself."""

from __future__ import annotations

import json
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest

from features.compiler import Fold, compile_fold
from features.declare import Catalogue
from features.events import Event
from features.settings import SettingsError
from features.tables import Table, Tables
from serving.heads import Head, ModelError
from serving.pseudonyms import DAY_MS, RotatingPseudonyms
from serving.scorer import Scorer, Scores, Sheet
from serving.settings import StoreSettings
from serving.stores import open_store
from serving.tokens import BadTokenError, Tokens

NOW = 20_600 * DAY_MS + 1_000


def test_a_token_opens_only_with_its_key_and_unchanged() -> None:
    tokens = Tokens(b"a" * 32)
    token = tokens.sign(-5, NOW)
    assert tokens.open(token) == (-5, NOW)
    assert tokens.sign(-5, NOW) == token and tokens.sign(-5, NOW + 1) != token != tokens.sign(5, NOW)  # remembered
    for bad in ("", "x", token[:-2], token + "AA", "A" + token[1:], token.swapcase(), "é" * 43, "/../" * 11):
        with pytest.raises(BadTokenError):
            tokens.open(bad)
    with pytest.raises(BadTokenError):
        Tokens(b"b" * 32).open(token)


def test_pseudonyms_end_with_the_day_unless_visits_may_be_linked(tmp_path: Path) -> None:
    visitors = RotatingPseudonyms(tmp_path)
    today = visitors.at(NOW)("jane", False)
    assert visitors.at(NOW + 3_600_000)("jane", False) == today
    tomorrow = visitors.at(NOW + DAY_MS)("jane", False)
    assert tomorrow != today
    linked = visitors.at(NOW)("jane", True)
    # a session over midnight goes on, and what is linked is looked for, to be erased
    assert visitors.earlier("jane", NOW + DAY_MS, linked=False) == [today, linked]
    assert linked not in (today, tomorrow)
    assert visitors.at(NOW + 100 * DAY_MS)("jane", True) == linked
    assert RotatingPseudonyms(tmp_path).at(NOW)("jane", False) == today  # another worker agrees


def test_the_days_keys_are_deleted_after_48_hours(tmp_path: Path) -> None:
    visitors = RotatingPseudonyms(tmp_path)
    before = visitors.at(NOW)("jane", False)
    visitors.forget(NOW + 2 * DAY_MS)
    assert len(list(tmp_path.glob("day-*.key"))) == 1
    visitors.forget(NOW + 3 * DAY_MS)
    assert list(tmp_path.glob("day-*.key")) == []
    assert visitors.at(NOW)("jane", False) != before  # nobody can make it again


def test_an_unknown_store_is_refused() -> None:
    with pytest.raises(SettingsError, match="unknown store 'floppy'; installed: .*embedded"):
        open_store(StoreSettings(url="floppy:a"))


def said(head: Head, row: np.ndarray) -> float:
    return float(head.scores(row[None, :])[0])


def scored(sheet: Sheet) -> Scores:
    sheet.score(1)
    return sheet.scores()


FEATURES = ["a", "b", "c", "d", "events", "idle_seconds"]
CALIBRATION = {
    "kind": "sigmoid_by_age", "events": [1, 2], "idle_seconds": [0, 5, 30],
    "slope": [[0.9, 1.0, 1.1], [0.7, 0.8, 0.6]], "intercept": [[-0.2, 0.1, 0.2], [0.0, -0.3, 0.3]],
    "knots": [-1.0, 0.5, 2.0], "values": [-0.5, 0.1, 0.3],
}  # fmt: skip


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    random = np.random.default_rng(0)
    matrix = random.normal(size=(5_000, 6)).astype(np.float32)
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    answer = (np.nan_to_num(matrix[:, 0]) + random.normal(size=5_000) > 0).astype(int)
    booster = lgb.train({"objective": "binary", "verbosity": -1}, lgb.Dataset(matrix, answer), 80)
    booster.save_model(str(folder / "booster.txt"))
    row = [0.5, None, -1.0, 1.0, 2.0, 6.0]
    margin = booster.predict(np.array([[np.nan if v is None else v for v in row]], np.float32), raw_score=True)[0]
    curve = np.interp(margin, CALIBRATION["knots"], CALIBRATION["values"])  # type: ignore[arg-type]
    about = {
        "format": 2, "head": "exit", "features": FEATURES, "feature_digest": "x",
        "calibration": CALIBRATION, "base_rate": 0.5,
        # two events, idle for 6 seconds
        "golden": {"row": row, "score": 1 / (1 + np.exp(-(0.8 * margin - 0.3 + curve)))},
        "decided": {"when": [["d", 2.0]], "value": 0.0},
    }  # fmt: skip
    (folder / "head.json").write_text(json.dumps(about))
    return folder


def test_one_row_scores_as_many_do(model_folder: Path) -> None:
    head = Head(model_folder, "1")
    random = np.random.default_rng(1)
    matrix = random.normal(size=(500, 6)).astype(np.float32)
    matrix[random.random(matrix.shape) < 0.2] = np.nan
    matrix[:, 4], matrix[:, 5] = random.integers(1, 5, 500), random.choice([0, 5, 7, 40], 500)
    one_by_one = [said(head, row) for row in matrix]
    assert one_by_one == head.scores(matrix).tolist()
    assert head.golden_error() < 1e-12


def six_features() -> Fold:
    """A fold with the features that `model_folder` names; `b` is what was learned about the latest item."""
    catalogue = Catalogue()

    @catalogue.field("i8")
    def latest(item: int) -> int:
        """The latest item."""
        return item

    def zero(now: int) -> float:
        return 0.0

    def key(latest: int) -> int:
        return latest

    for name in FEATURES:
        if name == "b":
            key.__name__, key.__doc__ = name, "What was learned."
            catalogue.learned("rate")(key)
        else:
            catalogue.add_feature(name, zero, doc="Nothing.")
    return compile_fold(catalogue)


def test_a_decided_answer_is_not_asked_of_the_model(model_folder: Path) -> None:
    head = Head(model_folder, "3")
    scorer = Scorer({"exit": head}, {"exit": 0.2, "bounce": 0.4}, {"bounce": "no_model"}, six_features())
    sheet = scorer.sheet()
    row = sheet.rows[0][0]
    row[:] = [0, 0, 0, 2, 1, 0]
    assert scored(sheet) == ({"exit": 0.0, "bounce": 0.4}, ["exit"], {"bounce": "no_model"})
    row[:] = [0, 0, 0, 1, 1, 0]
    scores, decided, _ = scored(sheet)
    assert scores["exit"] == said(head, np.array([0, 0, 0, 1, 1, 0], np.float32))
    assert 0 < scores["exit"] < 1 and decided == []


def test_the_calibration_is_that_of_the_sessions_age(model_folder: Path) -> None:
    head = Head(model_folder, "1")
    booster = lgb.Booster(model_file=str(model_folder / "booster.txt"))
    for events, idle, i, j in (
        (1, 0, 0, 0),
        (1, 4.9, 0, 0),
        (1, 5, 0, 1),
        (2, 29, 1, 1),
        (70, 30, 1, 2),
        (3, 900, 1, 2),
    ):
        row = np.array([0.3, -0.2, 0.1, 0.0, events, idle], np.float32)
        margin = booster.predict(row[None, :], raw_score=True)[0]
        linear = CALIBRATION["slope"][i][j] * margin + CALIBRATION["intercept"][i][j]  # type: ignore[index]
        linear += np.interp(margin, CALIBRATION["knots"], CALIBRATION["values"])  # type: ignore[arg-type]
        assert said(head, row) == pytest.approx(1 / (1 + np.exp(-linear)), abs=1e-12)


def test_amounts_are_answered_as_amounts_and_what_cannot_be_asked_is_not(model_folder: Path, tmp_path: Path) -> None:
    about = json.loads((model_folder / "head.json").read_text())
    about |= {"calibration": {**CALIBRATION, "kind": "exp_by_age"}, "needs": ["b"], "decided": None}
    (tmp_path / "head.json").write_text(json.dumps(about))
    (tmp_path / "booster.txt").write_bytes((model_folder / "booster.txt").read_bytes())
    head = Head(tmp_path, "1")
    row = np.array([2.0, 1.0, 0.0, 0.0, 1, 0], np.float32)
    margin = lgb.Booster(model_file=str(tmp_path / "booster.txt")).predict(row[None, :], raw_score=True)[0]
    curve = np.interp(margin, CALIBRATION["knots"], CALIBRATION["values"])  # type: ignore[arg-type]
    assert said(head, row) == pytest.approx(np.exp(0.9 * margin - 0.2 + curve), rel=1e-12)
    scorer = Scorer({"value": head}, {}, {}, six_features())
    sheet = scorer.sheet()
    sheet.rows[0][0] = row
    assert scored(sheet) == ({"value": said(head, row)}, [], {})
    row[1] = np.nan
    sheet.rows[0][0] = row
    assert scored(sheet) == ({}, [], {"value": "visits_not_linked"})
    assert np.isnan(head.scores(row[None, :])[0])


def with_tables(model_folder: Path, folder: Path, rate: float) -> Path:
    """The model with a learned rate of the item 7."""
    folder.mkdir()
    tables = Tables({"b": Table(np.array([7]), np.array([rate]), 0.0)})
    about = json.loads((model_folder / "head.json").read_text())
    (folder / "head.json").write_text(json.dumps({**about, "tables_digest": tables.digest, "decided": None}))
    (folder / "booster.txt").write_bytes((model_folder / "booster.txt").read_bytes())
    (folder / "tables.npz").write_bytes(tables.dump())
    return folder


def test_heads_share_a_reading_where_their_tables_are_the_same(model_folder: Path, tmp_path: Path) -> None:
    fold = six_features()
    heads = {
        name: Head(with_tables(model_folder, tmp_path / name, rate), "1")
        for name, rate in (("bounce", 0.5), ("conversion", 0.25), ("exit", 0.5))
    }
    sheet = Scorer(heads, {}, {}, fold).sheet()
    event = Event(visitor=1, time=1_700_000_000_000, item=7)
    for item, rate, other_rate in ((7, 0.5, 0.25), (8, 0.0, 0.0)):
        record = fold.new_record()
        fold.advance(record, fold.new_row(), 1_800_000, fold.nothing_learned, *event._replace(item=item))
        sheet.read(fold, record, event.time)
        assert sheet.rows[:, 0, 1].tolist() == [rate, other_rate]
        scores, _, _ = scored(sheet)
        assert scores["exit"] == scores["bounce"] == said(heads["exit"], np.array([0, rate, 0, 0, 0, 0], np.float32))
        assert scores["conversion"] == said(heads["conversion"], np.array([0, other_rate, 0, 0, 0, 0], np.float32))


def test_a_sheet_is_one_turns_until_it_is_given_back(model_folder: Path) -> None:
    scorer = Scorer({"exit": Head(model_folder, "1")}, {}, {}, six_features())
    one, other = scorer.sheet(), scorer.sheet()
    assert one is not other
    scorer.give_back(one)
    assert scorer.sheet() is one


def test_tables_that_are_not_the_models_are_refused(model_folder: Path, tmp_path: Path) -> None:
    folder = with_tables(model_folder, tmp_path / "model", 0.5)
    (folder / "tables.npz").write_bytes(Tables({"b": Table(np.array([7]), np.array([0.6]), 0.0)}).dump())
    with pytest.raises(ModelError, match=r"tables\.npz is not what head\.json was written with"):
        Head(folder, "1")
    (folder / "tables.npz").write_bytes(b"no archive")
    with pytest.raises(ModelError, match="cannot be read"):
        Head(folder, "1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "model format 1; this service reads format 2"),
        ({"calibration": {**CALIBRATION, "kind": "isotonic"}}, "calibration 'isotonic'"),
        ({"calibration": {**CALIBRATION, "slope": [[1.0]]}}, "lacks a slope and an intercept for each age"),
        ({"calibration": {**CALIBRATION, "knots": [0.0]}}, "lacks a value for each knot"),
        ({"calibration": {**CALIBRATION, "knots": [0.0, 0.0, 1.0]}}, "lacks a value for each knot, rising"),
        ({"features": list("abcdef")}, "lacks the feature 'events'"),
        ({"features": "abc"}, "cannot be read"),
    ],
)
def test_a_model_folder_that_cannot_score_is_refused(
    model_folder: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    about = json.loads((model_folder / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps({**about, **change}))
    (tmp_path / "booster.txt").write_bytes((model_folder / "booster.txt").read_bytes())
    with pytest.raises(ModelError, match=message):
        Head(tmp_path, "1")


def test_a_model_that_scores_differently_is_found_out(model_folder: Path, tmp_path: Path) -> None:
    about = json.loads((model_folder / "head.json").read_text())
    about["golden"]["score"] += 1e-6
    (tmp_path / "head.json").write_text(json.dumps(about))
    (tmp_path / "booster.txt").write_bytes((model_folder / "booster.txt").read_bytes())
    scorer = Scorer({"exit": Head(tmp_path, "7")}, {}, {}, six_features())
    assert "exit version 7: the golden row scores 1e-06 off" in scorer.ready()[0]


def asking(folder: Path) -> Head:
    """An uplift that asks the score of exit beside the six features."""
    folder.mkdir()
    random = np.random.default_rng(3)
    matrix = random.random((2_000, 7)).astype(np.float32)
    booster = lgb.train({"objective": "regression", "verbosity": -1}, lgb.Dataset(matrix, 0.1 * matrix[:, 6]), 60)
    booster.save_model(str(folder / "booster.txt"))
    plain = {"events": [1], "idle_seconds": [0], "slope": [[1.0]], "intercept": [[0.0]], "knots": [], "values": []}
    about = {
        "format": 2, "head": "uplift", "features": [*FEATURES, "score.exit"], "feature_digest": "x", "base_rate": 0.05,
        "calibration": {**plain, "kind": "identity_by_age"},
        "golden": {"row": matrix[0].tolist(), "score": float(booster.predict(matrix[:1])[0])},
    }  # fmt: skip
    (folder / "head.json").write_text(json.dumps(about))
    return Head(folder, "5")


def test_a_head_that_asks_another_ones_score_is_given_it(model_folder: Path, tmp_path: Path) -> None:
    exit_head, uplift = Head(model_folder, "3"), asking(tmp_path / "uplift")
    assert uplift.asks == ("exit",) and uplift.features == tuple(FEATURES)
    for heads in ({"uplift": uplift, "exit": exit_head}, {"exit": exit_head, "uplift": uplift}):
        scorer = Scorer(heads, {}, {}, six_features())
        sheet = scorer.sheet()
        rows = np.random.default_rng(4).normal(size=(30, 6)).astype(np.float32)
        rows[:, 3], rows[:, 4:] = np.arange(30) % 3, 1  # the answer is decided where the fourth is two
        sheet.rows[:, :30] = rows
        sheet.score(30)
        for place in range(30):
            scores, decided, _ = sheet.scores(place)
            assert ("exit" in decided) == (rows[place, 3] == 2)
            assert scores["uplift"] == said(uplift, np.append(rows[place], np.float32(scores["exit"])))
            by_head = {asked.head.name: asked.row for asked in sheet.asked(place)}
            assert by_head["uplift"].tolist() == [*rows[place].tolist(), np.float32(scores["exit"])]
        undecided = rows[:, 3] != 2
        vectors = scorer.said(rows)
        assert vectors["exit"].tolist() == exit_head.scores(rows).tolist()
        live = [sheet.scores(place).scores["uplift"] for place in range(30)]
        assert vectors["uplift"][undecided].tolist() == np.array(live)[undecided].tolist()


def test_a_score_that_is_asked_for_and_not_there(model_folder: Path, tmp_path: Path) -> None:
    uplift = asking(tmp_path / "uplift")
    scorer = Scorer({"uplift": uplift}, {}, {}, six_features())
    assert scored(scorer.sheet()) == ({}, [], {"uplift": "scores_missing"}) and scorer.versions == {}
    # of a head without a model its prior is noted at a trigger, and so is what is asked live
    scorer = Scorer({"uplift": uplift}, {"exit": 0.2}, {"exit": "no_model"}, six_features())
    row = np.array([0, 0, 0, 0, 1, 1], np.float32)
    sheet = scorer.sheet()
    sheet.rows[:, 0] = row
    scores, _, reasons = scored(sheet)
    assert scores == {"uplift": said(uplift, np.append(row, np.float32(0.2))), "exit": 0.2}
    assert reasons == {"exit": "no_model"}
