"""The model card: everything a reader must know before using a version, in Markdown that renders."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.training.slices import SMALL, fitted, made_up
from training.card import About, model_card
from training.findings import Findings, find
from training.heads import heads_of

TAGS = {
    "source": "taobao", "data_from": "2026-01-01T00:00:00.000Z", "data_to": "2026-01-29T00:00:00.000Z",
    "learned_until": "2026-01-20T00:00:00.000Z", "feature_digest": "0123456789abcdef", "git_commit": "abc",
    "lotse_version": "0.1.0",
}  # fmt: skip


def carded(kind: str) -> tuple[str, About, Findings]:
    model, past, found = fitted(kind)
    about = About.of(f"lotse-{kind}", model, past, SMALL, TAGS)
    return model_card(about, found), about, found


@pytest.mark.parametrize("kind", ["conversion", "exit", "value"])
def test_a_card_renders_and_says_it_all(kind: str) -> None:
    card, about, found = carded(kind)
    assert card.startswith(f"# lotse-{kind}\n\n**{found.question}**")
    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert headings == [
        "Use", "Data", "Model", "Quality", "Segments", "Consent and drift", "Loading", "Versions",
    ]  # fmt: skip
    for words in (
        "Not for: decisions about persons", "fewer than 50 visitors", "taobao", "2026-01-20", "0123456789abcdef",
        f"{about.rows:,}", f"{about.sessions:,}", f"{about.visitors:,}", "no visitor is on both sides",
        "`num_leaves`", "logistic regression", "base rate", "my forest", "lotse drift", "histogram.json",
        f"models:/lotse-{kind}@champion", "git_commit", "lightgbm", "1 need consent to link",
    ):  # fmt: skip
        assert words in card, words
    assert "nan" not in card.lower().split()
    for block in re.findall(r"(?:^\|.*\|$\n?)+", card, re.MULTILINE):
        assert len({line.count("|") for line in block.strip().split("\n")}) == 1, block


def test_metrics_stand_with_their_intervals_by_age_and_beside_the_baselines() -> None:
    card, _, found = carded("conversion")
    table = found.table.set_index(["age", "model"])
    for age, model, first in (("prefix_1", "lotse", "after event 1"), ("events", "my forest", "my forest")):
        line = table.loc[(age, model)]
        row = re.search(rf"^\| {first} \|.*$", card, re.MULTILINE)
        assert row
        assert f"{line['auc']:.3f} [{line['auc_low']:.3f}, {line['auc_high']:.3f}]" in row[0]


def test_the_worst_segment_is_named() -> None:
    """Scores that are only noise on phones, and twice too high for paid traffic."""
    model, past, _ = fitted("conversion")
    test, truth = made_up(3000, seed=4)
    mobile, paid = test.column("device_kind") == 2, test.column("entry_channel") == 3
    score = np.where(mobile, np.random.default_rng(0).permutation(truth), truth)
    score = np.where(paid, np.clip(3 * score, 0, 1), score)
    found = find(heads_of(SMALL)["conversion"], model, test, {"lotse": score}, SMALL.evaluation)
    card = model_card(About.of("lotse-conversion", model, past, SMALL, TAGS), found)
    assert re.search(r"^The worst: ordered worst: device: mobile \(AUC .*furthest off: channel: paid \(ECE", card, re.M)


def test_without_segments_and_tags_a_card_says_so() -> None:
    model, past, found = fitted("conversion", 400)
    few = replace(found, table=found.table[~found.table["age"].str.contains("=")])
    card = model_card(About.of("lotse-conversion", model, past, SMALL, {}), few)
    assert "No segment was large enough" in card and "Source `unknown`" in card


def test_a_bar_in_a_name_does_not_end_a_table() -> None:
    model, past, found = fitted("conversion", 400)
    tags = {**TAGS, "source": "a|b"}
    card = model_card(About.of("lotse-conversion", model, past, SMALL, tags), found)
    assert "| source | a/b |" in card
