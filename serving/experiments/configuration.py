"""configs/experiments.json as the service runs it: checked whole, then made into rules once a version.

In: GrowthBook's features, and experiments (`features.experiments`) that some of their rules name by `key`. Such a rule
says whom an experiment is for; which arm a unit gets, the experiment's allocation says. Out: a `Configuration`, or an
error that names every place and what to do there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

from features.allocation import Goal, Plan, Table, allocation_of
from features.events import hash64
from features.experiments import Experiment, parse_experiments
from features.settings import SettingsError
from serving.experiments.ruleset import Ruleset, asked_by

FILE: Final = "configs/experiments.json"
# What every session has beside scores and features.
OWN: Final = ("id", "session", "visitor", "consent", "declared", "events", "idle_seconds")
_SECTIONS: Final = ("attributes", "experiments", "features", "savedGroups", "contextualBandits")
_UNITS: Final = {"session": "session", "visitor": "visitor"}


class Trial(NamedTuple):
    """An experiment as it runs: its definition, the rule of a feature that names it, and its tables of probabilities.

    number: `hash64` of its key; feature, rule: which rule, and its place there; variations: values of its arms, those of
    killed arms the control's.
    """

    key: str
    number: int
    definition: Experiment
    plan: Plan
    feature: str
    rule: int
    variations: tuple[Any, ...]
    seed: str


class Configuration:
    """One version.

    Attributes
    ----------
    ruleset: for GrowthBook's package; trials: by key, those that run; by_feature: the same by feature, in the order of
    the rules.
    """

    def __init__(self, content: Mapping[str, Any], known: Collection[str], origin: str = FILE) -> None:
        """Check and make one; known: names of all scores and features.

        Raises
        ------
        SettingsError
            Names every place that cannot be used, and what to do there.
        """
        problems = list(_problems(content, {*known, *OWN}))
        if problems:
            raise SettingsError(f"{origin}: {'; '.join(problems)}")
        definitions = parse_experiments(content.get("experiments", {}), origin)
        self.content = content
        self.trials: dict[str, Trial] = {}
        self.by_feature: dict[str, list[Trial]] = defaultdict(list)
        features = {}
        for key, feature in content.get("features", {}).items():
            features[key], found = _compiled(key, feature, definitions, origin)
            self.by_feature[key] = found
            self.trials |= {trial.key: trial for trial in found}
        _check_all_used(definitions, self.trials, origin)
        self.ruleset = Ruleset({**content, "features": features})
        self.version = self.ruleset.version


def parse(text: bytes, known: Collection[str], origin: str = FILE) -> Configuration:
    """A configuration out of JSON.

    Raises
    ------
    SettingsError
        Not JSON, or as of `Configuration`.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{origin} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise SettingsError(f'{origin}: expected an object such as {{"features": {{...}}, "experiments": {{...}}}}')
    return Configuration(content, known, origin)
