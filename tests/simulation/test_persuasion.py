"""Effects that are planted in the crowd: true to their size, the same for the same seed, none for the control."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

from simulation.crowd import Visit, visits_of_shop
from simulation.persuasion import Persuasion, no_lift
from simulation.shop import simulate

HELP = Persuasion(
    "help",
    {
        "none": no_lift,
        "banner": lambda truth: 0.5 if truth["conversion"] < 0.2 else -0.3,
        "chat": lambda truth: 0.1,
    },
)
ARMS = tuple(HELP.lifts)


@pytest.fixture(scope="module")
def visits() -> list[Visit]:
    return visits_of_shop(simulate(visitors=12_000, seed=5))


def met(visits: list[Visit], value: str, persuasion: Persuasion = HELP) -> list[Visit]:
    """Those that come to the cart, after they were shown a value there."""
    found = []
    for drawn in visits:
        names = [event["name"] for event in drawn.events]
        if "add_to_cart" in names:
            visit, place = deepcopy(drawn), names.index("add_to_cart")
            persuasion.meet(visit, place, {"help": {"value": value, "reason": "SPLIT"}})
            # only the first time counts
            persuasion.meet(visit, place + 1, {"help": {"value": "banner", "reason": "SPLIT"}})
            found.append(visit)
    return found


@pytest.mark.parametrize("value", ARMS)
def test_as_many_buy_as_the_effect_says(visits: list[Visit], value: str) -> None:
    found = met(visits, value)
    assert len(found) > 1_000
    for low, high in ((0, 0.2), (0.2, 1)):
        group = [one for one in found if low <= one.truth[one.reactions["help"].place]["conversion"] < high]
        bought = np.array([one.bought_after("help") for one in group])
        chances = np.array([one.reactions["help"].chances[value] for one in group])
        assert bought.mean() == pytest.approx(chances.mean(), abs=4 * bought.std() / np.sqrt(len(group)))
    assert all(len(one.events) == len(one.offsets) for one in found)
    assert all(np.all(np.diff(one.offsets) >= 0) for one in found)


def test_the_seed_settles_what_a_visitor_does(visits: list[Visit]) -> None:
    bought = {value: [one.bought_after("help") for one in met(visits, value)] for value in ARMS}
    again = [one.bought_after("help") for one in met(visits, "banner")]
    assert bought["banner"] == again
    assert [one.bought_after("help") for one in met(visits, "banner", Persuasion("help", HELP.lifts, seed=1))] != again
    # who is won by little is won by more
    weak, strong = (Persuasion("help", {"banner": lift}) for lift in (lambda truth: 0.1, lambda truth: 0.5))
    won = [
        (one.bought_after("help"), other.bought_after("help"))
        for one, other in zip(met(visits, "banner", weak), met(visits, "banner", strong), strict=True)
    ]
    assert not any(one and not other for one, other in won)


def test_the_control_changes_nothing(visits: list[Visit]) -> None:
    numbers = {one.number: one for one in visits}
    assert all(one.events == numbers[one.number].events for one in met(visits, "none"))
    for told in ({}, {"help": {"value": "banner"}}, {"help": {"value": "other", "reason": "SPLIT"}}):
        visit = deepcopy(visits[0])
        HELP.meet(visit, 0, told)
        assert visit.reactions == {} and visit.events == visits[0].events


def test_what_was_missed_is_told(visits: list[Visit]) -> None:
    for one in met(visits, "chat"):
        reaction = one.reactions["help"]
        before = one.truth[reaction.place]["conversion"]
        best = 1.5 if before < 0.2 else 1.1
        assert reaction.missed == pytest.approx(min(before * best, 0.98) - min(before * 1.1, 0.98))
