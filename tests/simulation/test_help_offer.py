"""When the demo's shop offers help: thresholds by what the crowd's scores do, and a flag that the service can use."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from features.compiler import compile_fold
from features.experiments import SCORES
from serving.experiments.attributes import names_of
from serving.experiments.configuration import Configuration
from simulation.crowd import Visit
from simulation.help_offer import FLAG, OFFER, USUAL, configuration, thresholds

ROOT = Path(__file__).resolve().parents[2]
NAMES = names_of(SCORES, compile_fold())


def silent(steps: int, acting: float, hesitating: float, head: str) -> tuple[Visit, dict[str, float]]:
    """A visit of so many steps: its score after the last, and a while later."""
    events = [{"name": "view_item"}] * steps
    visit = Visit("v", events, [0.0] * steps, token="t", scores=[{head: acting}] * steps)
    return visit, {head: hesitating}


def test_hesitating_passes_the_threshold_and_acting_does_not() -> None:
    random = np.random.default_rng(1)
    acting = random.uniform(0.3, 0.5, 200)
    crowd = [silent(1, float(score), float(score) + 0.2, "bounce") for score in acting]
    crowd += [silent(3, float(score) / 2, float(score), "exit") for score in acting]
    found = thresholds(crowd)
    for head, first in (("bounce", 1), ("exit", 3)):
        pairs = [(visit.scores[-1][head], now[head]) for visit, now in crowd if len(visit.events) == first]
        before, after = np.array(pairs).T
        assert np.median(before) < found[head] < np.median(after)


def test_what_is_settled_says_nothing_of_hesitating() -> None:
    crowd = [silent(1, 0.4, 0.6, "bounce")] * 20
    assert thresholds(crowd + [silent(1, 0.0, 0.0, "bounce")] * 500) == thresholds(crowd)


def test_a_crowd_that_is_too_small_gets_the_usual_ones() -> None:
    assert thresholds([]) == USUAL


def test_the_flag_can_be_used_and_asks_for_the_scores() -> None:
    used = Configuration(configuration({"bounce": 0.45, "exit": 0.5}), NAMES)
    assert used.ruleset.attributes == {"bounce", "exit", "idle_seconds", "interactive_events", "purchases"}

    def value(**attributes: float) -> object:
        known = {"bounce": 0.0, "exit": 0.0, "idle_seconds": 12.0, "interactive_events": 1, "purchases": 0}
        return used.ruleset.evaluate(FLAG, {**known, **attributes}).value

    assert value(bounce=0.46) == OFFER
    assert value(bounce=0.44) == "none"
    assert value(bounce=0.46, idle_seconds=1) == "none"  # in the middle of something
    assert value(exit=0.6) == "none"  # of the first step bounce is asked
    assert value(exit=0.6, interactive_events=4) == OFFER
    assert value(exit=0.9, interactive_events=9, purchases=1) == "none"


def test_the_document_shows_the_flag_as_it_is() -> None:
    shown = re.search(r"```json\n(.*?)```", (ROOT / "docs" / "demo.md").read_text(), re.DOTALL)
    assert shown
    content = json.loads(shown[1])
    assert content["features"] == configuration({"bounce": 0.508, "exit": 0.203})["features"]
