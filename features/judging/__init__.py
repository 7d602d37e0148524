"""How experiments are judged: what a finished report and a running service have in common.

In: sums over units (`means`), or units. Out: effects of arms, bounds that hold at every look, guardrails, sample
ratios. `training.experiments` judges tables of units by it, `serving` what it has counted itself.
"""
