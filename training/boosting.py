"""Boosted trees that start from the linear model's score, and the two written as one LightGBM model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightgbm as lgb
import numpy as np

from training.config import TrainingSettings
from training.datasets import Slice
from training.heads import Head
from training.linear import LinearModel, tree_texts
from training.losses import TWEEDIE_POWER

Tick = Callable[[int, int], None]


def boost(
    part: Slice,
    rows: np.ndarray | None,
    start: np.ndarray,
    head: Head,
    settings: TrainingSettings,
    *,
    valid: np.ndarray | None = None,
    rounds: int | None = None,
    tick: Tick | None = None,
) -> tuple[lgb.Booster, np.ndarray]:
    """Trees on top of the scores `start`, float64 (n,): until the loss on the rows `valid` rises, or for `rounds`.

    rows, valid: positions in `part`, None for all and for none; tick is called with (trees, most trees).
    Returns the booster and its loss on `valid` after each tree, float64.
    """
    most = rounds or settings.lightgbm.num_boost_round
    chosen = parameters(part.names, head, settings)
    rows, weight = part.distinct(rows)
    matrix, answer = (part.matrix, part.answer) if rows is None else (part.matrix[rows], part.answer[rows])
    data = lgb.Dataset(
        matrix,
        answer,
        weight=weight,
        init_score=start if rows is None else start[rows],
        feature_name=list(part.names),
        params=chosen,
    )
    callbacks: list[Any] = []
    if tick:
        callbacks.append(lambda env: tick(env.iteration + 1, most))
    if valid is None:
        return lgb.train(chosen, data, most, callbacks=callbacks), np.zeros(0)
    valid, weight = part.distinct(valid)
    watch = lgb.Dataset(
        part.matrix[valid], part.answer[valid], weight=weight, init_score=start[valid], reference=data
    )  # fmt: skip
    losses: dict[str, Any] = {}
    callbacks += [
        lgb.early_stopping(settings.lightgbm.early_stopping_rounds, verbose=False),
        lgb.record_evaluation(losses),
    ]
    booster = lgb.train(chosen, data, most, valid_sets=[watch], valid_names=["later"], callbacks=callbacks)
    (curve,) = losses["later"].values()
    return booster, np.asarray(curve)


def parameters(names: Sequence[str], head: Head, settings: TrainingSettings) -> dict[str, Any]:
    """LightGBM's parameters for a head on the features `names`."""
    chosen = settings.lightgbm
    task: dict[str, Any] = {"objective": "binary", "metric": "binary_logloss"}
    if head.task == "value":
        task = {"objective": "tweedie", "tweedie_variance_power": TWEEDIE_POWER, "metric": "tweedie"}
    if chosen.monotone and head.monotone:
        task["monotone_constraints"] = [head.monotone.get(name, 0) for name in names]
    return {
        **chosen.model_dump(exclude={"num_boost_round", "early_stopping_rounds", "monotone"}),
        **task,
        "bagging_freq": 1,
        "boost_from_average": False,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def merged(linear: LinearModel, booster: lgb.Booster, rounds: int) -> lgb.Booster:
    """One LightGBM model: the linear model's trees, then the first `rounds` of the booster's."""
    text = booster.model_to_string(num_iteration=max(rounds, 1))
    header, _, rest = text.partition("\nTree=0\n")
    trees, _, end = rest.partition("\nend of trees")
    boosted = [tree.partition("\n")[2] for tree in ("Tree=0\n" + trees).split("Tree=")[1:]] if rounds else []
    # the sizes are of the old trees; without them LightGBM reads tree by tree
    kept = [line for line in header.split("\n") if not line.startswith("tree_sizes=")]
    numbered = [f"Tree={number}\n{tree}" for number, tree in enumerate([*tree_texts(linear), *boosted])]
    return lgb.Booster(model_str="\n".join(kept) + "\n" + "".join(numbered) + "\nend of trees" + end)
