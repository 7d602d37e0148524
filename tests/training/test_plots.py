"""Every picture is drawn for every task and any models, and says so where there is nothing to draw."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.training.slices import fitted, made_up, slice_of
from training import plots
from training.config import EvaluationSettings
from training.curves import earliness, ranking_curves, reliability_curves, scores_by_age
from training.evaluation import evaluate

ALWAYS = {
    "reliability", "reliability_by_age", "lift", "earliness", "score_by_age", "segments", "importance", "contributions",
}  # fmt: skip


def drawn(figure: Figure) -> bytes:
    """The picture as a PNG file."""
    stream = BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def words(figure: Figure) -> str:
    """All text of a picture."""
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.mark.parametrize("kind", ["conversion", "exit", "value"])
def test_every_picture_of_a_task_is_drawn(kind: str) -> None:
    _, _, found = fitted(kind)
    more = set() if kind == "value" else {"roc", "precision_recall"}
    pictures = plots.pictures(found)
    assert set(pictures) == ALWAYS | more
    for name, figure in pictures.items():
        assert drawn(figure).startswith(b"\x89PNG"), name
        assert kind in words(figure), name
    for name in ("lift", *more):
        for label in ("Lotse", "logistic regression", "base rate", "my forest"):
            assert label in words(pictures[name]), name
    assert "device: mobile" in words(pictures["segments"])
    assert ("answer changes within sessions" in words(pictures["earliness"])) == (kind == "exit")


def test_where_there_is_nothing_to_draw_a_picture_says_so() -> None:
    part, settings = slice_of(answer=np.zeros(5)), EvaluationSettings(resamples=5)
    score = np.full(5, 0.1)
    ranking, curves = ranking_curves(part, {"lotse": score}), reliability_curves(part, score, settings)
    assert "all answers are the same" in words(plots.roc("x", ranking))
    assert "all answers are the same" in words(plots.precision_recall("x", ranking))
    assert "all answers are the same" in words(plots.lift("x", ranking))
    assert "too few rows" in words(plots.reliability("x", curves))
    assert "too few rows" in words(plots.reliability_by_age("x", curves, 0.95))
    assert "answer changes within sessions" in words(plots.earliness("x", earliness(part, score, settings)))
    assert drawn(plots.segments("x", evaluate(part, {"lotse": score}, settings), "auc"))
    assert "too few rows" in words(plots.score_by_age("x", scores_by_age(part.take(part.answer > 0), score[:0])))
    assert drawn(plots.importance("x", pd.Series({"events": 0.0})))


def test_a_panel_stands_for_each_age_that_has_rows() -> None:
    part, truth = made_up(1500)
    curves = reliability_curves(part, truth, EvaluationSettings(resamples=10))
    text = words(plots.reliability_by_age("x", curves, 0.95))
    assert "after event 1 (1,500 rows)" in text and "after 30 s (" in text and "95%" in text
