"""Open Bandit Pipeline's side of `benchmarks.offpolicy`: arrays in, estimates out, under an interpreter that has it.

`python benchmarks/offpolicy_obp.py log.npz estimates.json`. It imports nothing of ours.
"""

import json
import sys
import warnings

import numpy as np
from obp.ope import (
    DirectMethod,
    DoublyRobust,
    InverseProbabilityWeighting,
    RegressionModel,
    SelfNormalizedInverseProbabilityWeighting,
)
from obp.policy import BernoulliTS
from sklearn.linear_model import LogisticRegression

POSITIONS = 3


def main(source: str, target: str) -> None:
    """Estimate with the expectations that were given, and with its own regression model."""
    warnings.simplefilter("ignore")
    log = np.load(source)
    rounds, arms = len(log["reward"]), int(log["arms"])
    if "campaign" in log:
        policy = BernoulliTS(
            n_actions=arms,
            len_list=POSITIONS,
            is_zozotown_prior=True,
            campaign=str(log["campaign"]),
            random_state=12345,
        )
        chosen = policy.compute_batch_action_dist(n_sim=100_000, n_rounds=1)[0]
        np.save(source + ".policy.npy", chosen)
        if log["target"].size == 0:
            return
    position = log["position"]
    dist = np.full((rounds, arms, POSITIONS), 1 / arms)  # it wants one at every position, and reads the shown one
    dist[np.arange(rounds), :, position] = log["target"]
    given = np.repeat(log["expected"][:, :, None], POSITIONS, axis=2)
    regression = RegressionModel(
        n_actions=arms,
        len_list=POSITIONS,
        action_context=np.eye(arms),
        base_model=LogisticRegression(C=100, max_iter=1000, random_state=12345),
    )
    own = regression.fit_predict(
        context=log["context"],
        action=log["arm"],
        reward=log["reward"],
        position=position,
        pscore=log["propensity"],
        n_folds=3,
        random_state=12345,
    )
    common = {
        "reward": log["reward"],
        "action": log["arm"],
        "pscore": log["propensity"],
        "position": position,
        "action_dist": dist,
    }
    found = {}
    for name, estimator, expected in (
        ("IPS", InverseProbabilityWeighting(), None),
        ("SNIPS", SelfNormalizedInverseProbabilityWeighting(), None),
        ("DM", DirectMethod(), given),
        ("DR", DoublyRobust(), given),
        ("DM, own regression", DirectMethod(), own),
        ("DR, own regression", DoublyRobust(), own),
    ):
        more = {} if expected is None else {"estimated_rewards_by_reg_model": expected}
        interval = estimator.estimate_interval(**common, **more, n_bootstrap_samples=1000, random_state=12345)
        found[name] = {
            "value": float(estimator.estimate_policy_value(**common, **more)),
            "low": interval["95.0% CI (lower)"],
            "high": interval["95.0% CI (upper)"],
        }
    with open(target, "w") as file:  # noqa: PTH123
        json.dump(found, file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
