"""Allocations: rows of closed sessions in, probabilities out; the frame holds whatever a plug-in says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from benchmarks.allocation import SHOPS, lotse_regret
from features.allocation import (
    DAY_MS,
    Allocation,
    Contextual,
    Fixed,
    Goal,
    Plan,
    State,
    StateError,
    Sums,
    Table,
    Thompson,
    allocation_of,
)
from features.allocation.adaptive import Adaptive
from features.settings import Settings, SettingsError
from tests.workspace import ROOT

ARMS = ("control", "banner", "chat")
EVEN = (1 / 3, 1 / 3, 1 / 3)
EDGES = (0.1, 0.3, 0.6)
NAMES = [point.name for point in entry_points(group="lotse.allocations")]


def rows_of(
    rates: np.ndarray, units: int, seed: int, shares: tuple[float, ...] = EVEN, edges: tuple[float, ...] = EDGES
) -> dict[str, np.ndarray]:
    """Rows assigned by fixed shares; rates (B, A) by bin without the one of missing scores."""
    random = np.random.default_rng(seed)
    arm = random.choice(len(shares), units, p=shares)
    score = random.random(units)
    place = np.searchsorted(edges, score, "right") if len(rates) > 1 else np.zeros(units, int)
    outcome = (random.random(units) < rates[place, arm]).astype(float)
    return {"arm": arm, "score": score, "outcome": outcome, "exposed_at": np.zeros(units)}


def seen(plan: Plan, rates: np.ndarray, units: int = 6000, days: int = 3) -> State:
    state = plan.nothing()
    for day in range(days):
        state = state.seen("log", day * DAY_MS, plan.sums(rows_of(rates, units, day), now_ms=DAY_MS))
    return state


def plan_of(allocation: Allocation, goal: Goal | None = None, share: float = 0.05, holdback: float = 0.1) -> Plan:
    return Plan(ARMS, EVEN, allocation, goal or Goal(), holdback, share)


BY_RISK = np.array([[0.20, 0.10, 0.15], [0.15, 0.15, 0.20], [0.10, 0.20, 0.15], [0.05, 0.20, 0.10]])


# what every plug-in keeps to


@pytest.mark.parametrize("name", NAMES)
def test_every_allocation_begins_with_the_fixed_shares(name: str) -> None:
    plan = plan_of(allocation_of({"name": name}))
    table = plan.table(plan.nothing(), now_ms=0)
    for score in (None, 0.0, 0.5, 1.0):
        assert table.of(score) == pytest.approx(EVEN)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["binary", "revenue"])
def test_every_allocation_keeps_to_the_frame(name: str, kind: str) -> None:
    plan = plan_of(allocation_of({"name": name}), Goal(kind))  # type: ignore[arg-type]
    state = seen(plan, np.array([[0.02, 0.30, 0.10]]))
    table = plan.table(state, now_ms=3 * DAY_MS)
    for line in table.bins:
        assert sum(line) == pytest.approx(1)
        assert min(line) >= 0.05 - 1e-12
    assert table.of(0.5, held=True) == EVEN
    again = Table.from_json(table.to_json())
    assert again == table
    assert again.choose(0.4, 0.5) == table.choose(0.4, 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_the_logged_propensity_is_how_often_an_arm_is_chosen(name: str) -> None:
    plan = plan_of(allocation_of({"name": name}))
    table = plan.table(seen(plan, BY_RISK, 600), now_ms=3 * DAY_MS)
    numbers = (np.arange(100_000) + 0.5) / 100_000
    for score in (None, 0.05, 0.5, float("nan")):
        chosen = [table.choose(float(number), score) for number in numbers]
        arms = np.array([arm for arm, _ in chosen])
        for arm, propensity in set(chosen):
            assert propensity == table.of(score)[arm]
            assert (arms == arm).mean() == pytest.approx(propensity, abs=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_allocation_and_its_options_are_documented(name: str) -> None:
    page = (ROOT / "docs" / "allocation.md").read_text()
    assert f"| `{name}` |" in page
    for option in set(type(allocation_of({"name": name})).model_fields) - (
        {"edges"} if name != "contextual" else set()
    ):
        assert f"| `{option}` |" in page, option


def test_the_recipe_of_the_documentation_works() -> None:
    page = (ROOT / "docs" / "allocation.md").read_text()
    (recipe,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class " in block)
    names: dict[str, object] = {"np": np, "Settings": Settings, "State": State, "Goal": Goal}
    exec(compile("from __future__ import annotations\n" + recipe, "recipe", "exec", dont_inherit=True), names)
    plan = plan_of(names["EpsilonGreedy"]())  # type: ignore[operator]
    assert plan.table(plan.nothing(), 0).of() == pytest.approx(EVEN)
    assert int(np.argmax(plan.table(seen(plan, np.array([[0.1, 0.3, 0.1]])), 0).of())) == 1


@dataclass(frozen=True)
class Greedy:
    """A plug-in of somebody else, sure of itself."""

    edges: tuple[float, ...] = (0.5,)
    said: tuple[float, ...] = (0.0, 1.0, 0.0)

    def probabilities(self, state: State, shares: tuple[float, ...], goal: Goal, now_ms: int) -> np.ndarray:
        return np.tile(self.said, (3, 1))


def test_no_plug_in_leaves_the_frame() -> None:
    plan = plan_of(Greedy())
    assert plan.table(plan.nothing(), 0).of(0.7) == pytest.approx((0.05, 0.9, 0.05))
    with pytest.raises(ValueError, match="Greedy returned .* expected probabilities"):
        plan = plan_of(Greedy(said=(0.0, 2.0, 0.0)))
        plan.table(plan.nothing(), 0)


# what adaptive ones learn


@pytest.mark.parametrize("allocation", [Thompson(), Contextual(edges=EDGES)])
def test_the_better_arm_is_chosen_more_often(allocation: Adaptive) -> None:
    rates = np.array([[0.05, 0.05, 0.08]])
    higher = plan_of(allocation)
    lower = plan_of(allocation, Goal(better="lower"))
    assert higher.table(seen(higher, rates), 3 * DAY_MS).of(0.4)[2] > 0.85
    assert lower.table(seen(lower, rates), 3 * DAY_MS).of(0.4)[2] == pytest.approx(0.05, abs=0.01)


def test_thompsons_probabilities_are_those_of_draws_from_beta_posteriors() -> None:
    """Of one period, with a prior too wide to matter."""
    plan = Plan(ARMS, EVEN, Thompson(effect_deviation=10.0), holdback=0, minimum_share=0)
    rows = rows_of(np.array([[0.10, 0.11, 0.12]]), 3000, seed=1)
    ours = plan.table(plan.nothing().seen("log", 0, plan.sums(rows, DAY_MS)), DAY_MS).of()
    yes = np.bincount(rows["arm"], rows["outcome"])
    units = np.bincount(rows["arm"])
    draws = np.random.default_rng(0).beta(1 + yes, 1 + units - yes, (200_000, 3))
    assert ours == pytest.approx(np.bincount(draws.argmax(axis=1)) / 200_000, abs=0.02)


def test_contextual_finds_whom_an_arm_helps() -> None:
    plan = plan_of(Contextual(edges=EDGES))
    table = plan.table(seen(plan, BY_RISK), 3 * DAY_MS)
    assert [int(np.argmax(line)) for line in table.bins[:-1]] == [0, 2, 1, 1]
    # of those without a score nothing is known but what is common to all
    assert max(table.of(None)) < 0.9


def test_days_on_which_an_arm_was_shown_most_do_not_speak_for_it() -> None:
    """Simpson's paradox: the banner is worse every day, and better in total."""
    plan = Plan(("control", "banner"), (0.5, 0.5), Thompson(half_life_days=None, recent_days=None), holdback=0)
    state = plan.nothing()
    for day, (share, control, banner) in enumerate(((0.1, 0.05, 0.04), (0.9, 0.20, 0.17))):
        rows = rows_of(np.array([[control, banner]]), 20_000, day, shares=(1 - share, share))
        state = state.seen("log", day * DAY_MS, plan.sums(rows, DAY_MS))
    total = sum(state.by_period().values(), Sums(*(np.zeros((2, 2)) for _ in range(3))))
    pooled = total.total.sum(axis=0) / total.units.sum(axis=0)
    assert pooled[1] > pooled[0]
    assert plan.table(state, DAY_MS).of()[1] < 0.1


def test_old_outcomes_are_forgotten_by_half_lives() -> None:
    state = seen(plan_of(Thompson()), np.array([[0.05, 0.05, 0.06]]))

    def of(half_life_days: float | None, day: int) -> float:
        plan = plan_of(Thompson(half_life_days=half_life_days, recent_days=None), share=0)
        return plan.table(state, day * DAY_MS).of()[2]

    assert of(None, 300) == of(None, 3) == pytest.approx(of(1e9, 300))
    assert of(7, 300) == pytest.approx(1 / 3, abs=0.02)
    assert of(7, 3) > of(7, 20) > of(7, 60)


def test_an_arm_that_has_turned_is_noticed() -> None:
    def of(recent_days: float | None) -> float:
        plan = plan_of(Thompson(half_life_days=None, recent_days=recent_days))
        state = plan.nothing()
        for day in range(40):
            rates = [0.05, 0.05, 0.08] if day < 32 else [0.05, 0.05, 0.03]
            rows = rows_of(np.array([rates]), 2000, day)
            state = state.seen("log", day * DAY_MS, plan.sums(rows, DAY_MS))
        return plan.table(state, 40 * DAY_MS).of()[2]

    assert of(None) > 0.8
    assert of(3.0) < 0.2


def test_a_season_is_no_drift() -> None:
    """All arms fall together: nothing of what was learned is thrown away."""

    def of(recent_days: float | None) -> tuple[float, ...]:
        plan = plan_of(Thompson(recent_days=recent_days))
        state = plan.nothing()
        for day in range(20):
            rates = np.array([[0.10, 0.10, 0.11]]) * (1 if day < 16 else 0.4)
            state = state.seen("log", day * DAY_MS, plan.sums(rows_of(rates, 3000, day), DAY_MS))
        return plan.table(state, 20 * DAY_MS).of()

    assert of(3.0) == of(None)


def test_one_reseller_is_no_effect() -> None:
    outcome = np.array([0.0, 10.0, 20.0, 5000.0])
    rows = {"arm": np.array([0, 0, 1, 1]), "score": np.zeros(4), "outcome": outcome, "exposed_at": np.zeros(4)}
    plan = Plan(("control", "banner"), (0.5, 0.5), Thompson(), Goal("revenue", cap=100.0))
    assert plan.sums(rows, DAY_MS).total.sum(axis=0).tolist() == [10.0, 120.0]


def test_open_and_young_sessions_are_left_for_the_next_time() -> None:
    now = 10 * DAY_MS
    rows = {
        "arm": np.array([0, 1, 2]),
        "score": np.full(3, 0.5),
        "outcome": np.array([1.0, np.nan, 1.0]),
        "exposed_at": np.array([now - 90 * 60_000, now - 90 * 60_000, now - 30 * 60_000]),
    }
    assert plan_of(Thompson()).sums(rows, now).units.sum(axis=0).tolist() == [1, 0, 0]
    assert plan_of(Thompson(settle_minutes=0)).sums(rows, now).units.sum(axis=0).tolist() == [1, 0, 1]
    assert plan_of(Fixed()).sums(rows, now).units.sum(axis=0).tolist() == [1, 0, 0]


# the state


@st.composite
def states(draw: st.DrawFn) -> State:
    state = State(ARMS, EDGES)
    for _ in range(draw(st.integers(0, 4))):
        source, period = draw(st.sampled_from("ab")), draw(st.integers(0, 2)) * DAY_MS
        rows = rows_of(BY_RISK, draw(st.integers(1, 60)), draw(st.integers(0, 5)))
        del rows["exposed_at"]
        state = state.seen(source, period, Sums.of(3, EDGES, **rows))
    return state


@hypothesis_settings(max_examples=60, deadline=None)
@given(states(), states(), states())
def test_states_merge_in_any_order_and_any_number_of_times(one: State, two: State, three: State) -> None:
    assert one.merged(two) == two.merged(one)
    assert one.merged(two).merged(three) == one.merged(two.merged(three))
    assert one.merged(one) == one
    assert State.from_json(one.to_json()) == one


def test_replays_and_late_rows_change_nothing_that_they_should_not() -> None:
    plan = plan_of(Thompson())
    rows = rows_of(BY_RISK, 500, 0)
    early = {name: column[:300] for name, column in rows.items()}
    first = plan.nothing().seen("log", 0, plan.sums(early, DAY_MS))
    whole = first.seen("log", 0, plan.sums(rows, DAY_MS))
    assert whole.units == 500
    assert whole.seen("log", 0, plan.sums(early, DAY_MS)) == whole
    assert whole.merged(first) == whole
    assert whole.seen("other", 0, plan.sums(early, DAY_MS)).units == 800
    assert whole.since(DAY_MS).units == 0


def test_a_state_of_other_arms_is_refused() -> None:
    state = State(("control", "banner"))
    with pytest.raises(StateError, match="begin a new phase"):
        state.merged(State(("control", "chat")))
    with pytest.raises(StateError, match="begin a new phase"):
        plan_of(Thompson()).table(state, 0)
    for text in ("", "[]", "{}", '{"format":2}', '{"format":1,"arms":["a"],"edges":[],"entries":[{"source":"a"}]}'):
        with pytest.raises(StateError):
            State.from_json(text)
    broken = json.loads(seen(plan_of(Thompson()), BY_RISK, 10, 1).to_json())
    broken["entries"][0]["units"] = [[1.0]]
    with pytest.raises(StateError, match="is not of 2 bins and 3 arms"):
        State.from_json(json.dumps(broken))


# what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "bandit"}, "unknown allocation 'bandit'; known: contextual, fixed, thompson"),
        (
            {"name": "thompson", "halflife": 3},
            r"allocation\.halflife: unknown option of 'thompson'; known: .*half_life",
        ),
        ({"name": "thompson", "half_life_days": -1}, r"allocation\.half_life_days: .* \(found -1\)"),
        ({"name": "contextual", "edges": [0.5, 0.2]}, r"allocation\.edges: .*each above the one before"),
    ],
)
def test_bad_options_are_refused_with_the_place(options: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        allocation_of(options)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"shares": (0.5, 0.5)}, "expected one above 0 for each"),
        ({"shares": (0.5, 0.4, 0.2)}, "summing to 1"),
        ({"minimum_share": 0.4}, "expected 0 to 0.333 for 3 arms"),
        ({"holdback": 1.5}, "expected 0 to 1"),
    ],
)
def test_a_frame_that_cannot_hold_is_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Plan(**{"arms": ARMS, "shares": EVEN, **changed})  # type: ignore[arg-type]


def test_an_arm_that_is_none_is_refused() -> None:
    rows = {"arm": np.array([0, 3]), "score": np.zeros(2), "outcome": np.zeros(2), "exposed_at": np.zeros(2)}
    with pytest.raises(ValueError, match="arms from 0 to 3; this experiment has 3"):
        plan_of(Thompson()).sums(rows, DAY_MS)


def test_choosing_needs_no_tables() -> None:
    """A service starts a second sooner without pandas, and SciPy's statistics."""
    script = (
        "import sys, features.allocation; print([m for m in ('pandas', 'pyarrow', 'scipy.stats') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# simulated shops; the figures are benchmarks/allocation.py's


def test_thompson_misses_far_less_than_an_even_split() -> None:
    shop = SHOPS[0]
    even = np.mean([lotse_regret(shop, Plan(ARMS, EVEN, Fixed(), holdback=0), seed) for seed in range(4)])
    ours = np.mean([lotse_regret(shop, plan_of(Thompson(), share=0, holdback=0), seed) for seed in range(4)])
    assert ours < 0.5 * even


def test_contextual_misses_less_where_the_effect_differs_by_risk() -> None:
    (shop,) = (shop for shop in SHOPS if shop.name == "effect by risk")
    edges = (0.2, 0.4, 0.6, 0.8)
    blind = np.mean([lotse_regret(shop, plan_of(Thompson(), share=0, holdback=0), seed) for seed in range(4)])
    ours = [lotse_regret(shop, plan_of(Contextual(edges=edges), share=0, holdback=0), seed) for seed in range(4)]
    assert np.mean(ours) < 0.85 * blind
