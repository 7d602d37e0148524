"""Everything about the journeys of some sessions as one document: what `lotse report` shows and a service answers.

In: sessions and what is asked. Out: plain lists and numbers, ready for JSON; None for what is undefined or told of too
few visitors (`features.journeys.small`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from features.journeys import cohorts
from features.journeys.dwell import dwell
from features.journeys.endings import endings, wilson
from features.journeys.funnels import Funnel, Mode, reached
from features.journeys.paths import Walk, backward, code_of, forward, walk
from features.journeys.segments import VISITS, segments, visit
from features.journeys.sessions import Sessions
from features.journeys.small import LEAST_VISITORS, hidden
from features.journeys.told import Crowd, funnel_told, path_told
from features.steps import KEPT_STEPS, STEPS

_DAY_MS: Final = 86_400_000
# Where a shop or a site that collects leads wants its visitors to come by.
_TO_A_GOAL: Final = ("item", "cart add", "checkout", "payment", "purchase", "lead")
_MODES: Final[tuple[Mode, ...]] = ("loose", "strict")
SINCE: Final = ("within a day", "1 to 7 days", "7 to 30 days", "over 30 days")


@dataclass(frozen=True)
class Asked:
    """What to tell: the path from `begin` (any, if empty) and, if there is one, back from `goal`; funnels; steps that
    are not looked at; moves a picture has; k; what is brief and what is long.

    Raises
    ------
    EventError
        A step is asked for that there is not.
    """

    funnels: tuple[Funnel, ...] = ()
    begin: tuple[str, ...] = ()
    goal: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    depth: int = 6
    least_visitors: int = LEAST_VISITORS
    brief_seconds: float = cohorts.BRIEF_SECONDS
    long_seconds: float = cohorts.LONG_SECONDS

    def __post_init__(self) -> None:
        for step in (*self.begin, *self.goal, *self.without):
            code_of(step)


def journeys(sessions: Sessions, asked: Asked = Asked()) -> dict[str, Any]:
    """The document."""
    way = walk(sessions, asked.without)
    crowd = Crowd(np.unique(sessions["visitor"], return_inverse=True)[1], asked.least_visitors)
    found: dict[str, Any] = {
        "least_visitors": asked.least_visitors,
        "kept_steps": KEPT_STEPS,
        "open": sessions.open,
        "without_path": sessions.pathless,
    }
    if not len(sessions) or not crowd.enough(np.ones(len(sessions), bool)):
        return found | {"sessions": None}
    first = forward(way, asked.begin, asked.depth)
    return found | {
        "sessions": len(sessions),
        "visitors": int(crowd.visitor.max()) + 1,
        "from_day": _day(int(sessions["started_at"].min())),
        "to_day": _day(int(sessions["last_at"].max())),
        "without_steps": crowd.count(way.length == 0),
        "longer": crowd.count(way.cut),
        "without": list(asked.without),
        "forward": {"begin": list(asked.begin), **path_told(first, crowd)},
        "entries": [] if asked.begin else _entries(way, crowd, asked.depth),
        "backward": _backward(sessions, way, crowd, asked),
        "funnels": [_funnel(sessions, way, crowd, funnel) for funnel in asked.funnels],
        "endings": _endings(sessions, crowd),
        "dwell": _dwell(sessions, crowd),
        "returning": _returning(sessions, crowd),
        "cohorts": _cohorts(sessions, way, crowd, asked),
    }


def usual(sessions: Sessions, asked: Asked) -> Asked:
    """What is asked, with funnels along the steps to a goal that there are, and that goal, where none are given."""
    seen = endings(sessions).seen
    steps = tuple(step for step in _TO_A_GOAL if seen[code_of(step)])
    goal = asked.goal or tuple(step for step in ("purchase", "lead") if step in steps)[:1]
    funnels = asked.funnels or tuple(Funnel(steps, mode) for mode in _MODES if len(steps) > 1)
    return replace(asked, funnels=funnels, goal=goal)


def _entries(way: Walk, crowd: Crowd, depth: int) -> list[dict[str, Any]]:
    """The paths from each way to begin, the most frequent first."""
    first = way.steps[:, 0].astype(np.int64)
    few = crowd.few(np.where(first > 0, first, -1), len(STEPS))
    counts = np.where(few, 0, np.bincount(first, minlength=len(STEPS)))
    counts[0] = 0
    begins = [STEPS[step] for step in np.argsort(-counts, kind="stable") if counts[step]]
    told = [(step, path_told(forward(way, (step,), depth), crowd)) for step in begins]
    return [{"begin": [step], **one} for step, one in told if one["sessions"] is not None]


def _backward(sessions: Sessions, way: Walk, crowd: Crowd, asked: Asked) -> dict[str, Any] | None:
    if not asked.goal:
        return None
    told = path_told(backward(way, asked.goal, asked.depth), crowd, backwards=True)
    goal = code_of(asked.goal[-1])
    later = way.cut & ((sessions["steps_seen_bits"] >> goal) & 1 == 1) & ~(way.steps == goal).any(axis=1)
    return {"goal": list(asked.goal), "after_kept": crowd.count(later), **told}


def _funnel(sessions: Sessions, way: Walk, crowd: Crowd, funnel: Funnel) -> dict[str, Any]:
    far = reached(way, funnel, sessions["steps_seen_bits"])
    lost = []
    for number, name in enumerate(funnel.steps[:-1], start=1):
        there = (far.reached == number) & (far.at_most == number)
        ended = there & (sessions["last_step"] == code_of(name))
        few = crowd.few(np.where(there, ended.astype(np.int64), -1), 2)
        lost.append(None if few.any() or not crowd.enough(there) else int(ended.sum()))
    return {
        "title": funnel.title,
        "steps": list(funnel.steps),
        "mode": funnel.mode,
        "entry": funnel.entry,
        **funnel_told(far, len(funnel.steps), crowd, segments(sessions, way)),
        "ended_there": lost,
    }


def _endings(sessions: Sessions, crowd: Crowd) -> dict[str, Any]:
    found, size = endings(sessions), len(STEPS)
    last, bits = sessions["last_step"], sessions["steps_seen_bits"]
    # where many end, but few go on, how many end tells how many go on
    went_on = np.zeros(size, bool)
    for step in np.flatnonzero(found.seen):
        went_on[step] = crowd.count(((bits >> step) & 1 == 1) & (last != step)) is None
    few = hidden(crowd.cells(np.where(last > 0, last, -1), 1, size), crowd.k, also=went_on[None])[0]
    began = sessions["path_0"] & 15
    few_begin = crowd.few(np.where(began > 0, began, -1), size)
    lines = []
    for step in np.flatnonzero(found.seen):
        if not crowd.enough((bits >> step) & 1 == 1):
            continue
        told = not few[step]
        lines.append(
            {
                "step": STEPS[step],
                "sessions": int(found.seen[step]),
                "began": None if few_begin[step] else int(found.began[step]),
                "ended": int(found.ended[step]) if told else None,
                "share": _number(found.share[step]) if told else None,
                "low": _number(found.low[step]) if told else None,
                "high": _number(found.high[step]) if told else None,
                "excess": round(float(found.excess[step])) if told else None,
                "bottleneck": bool(told and STEPS[step] != "purchase" and found.low[step] > found.common),
            }
        )
    return {"common_share": found.common, "steps": lines}


def _dwell(sessions: Sessions, crowd: Crowd) -> list[dict[str, Any]]:
    lines = []
    for one in dwell(sessions):
        if not crowd.enough(one.opened):
            continue
        line: dict[str, Any] = {"kind": one.kind, "sessions": int(one.opened.sum())}
        sides = {"": one.opened, "ended_": one.opened & one.ended, "went_on_": one.opened & ~one.ended}
        for name, which in sides.items():
            values = one.quantiles(which) if crowd.enough(which) else (np.nan,) * 3
            for what, value in zip(("median", "mean", "p90"), values, strict=True):
                line[f"{name}{what}_seconds"] = _number(value)
        lines.append(line)
    return lines


def _returning(sessions: Sessions, crowd: Crowd) -> dict[str, Any]:
    code = visit(sessions)
    days = (sessions["started_at"] - sessions["previous_visit_at"]) / _DAY_MS
    since = np.where(code == VISITS.index("returning"), np.digitize(days, [1, 7, 30]), -1)
    return {
        "visits": _conversions(sessions, crowd, VISITS, code),
        "since_the_visit_before": _conversions(sessions, crowd, SINCE, since),
    }


def _conversions(sessions: Sessions, crowd: Crowd, labels: Sequence[str], code: np.ndarray) -> list[dict[str, Any]]:
    """Sessions by group, and how many of them bought."""
    few = crowd.few(code, len(labels))
    code = np.where((code >= 0) & few[code], -1, code)
    bought = (sessions["purchases"] > 0).astype(np.int64)
    pairs = np.where(code >= 0, 2 * code + bought, -1)
    concealed = hidden(crowd.cells(pairs, len(labels), 2), crowd.k)
    counts = np.bincount(pairs[pairs >= 0], minlength=2 * len(labels)).reshape(-1, 2)
    low, high = wilson(counts[:, 1], counts.sum(axis=1))
    lines = []
    for place in np.flatnonzero(counts.sum(axis=1)).tolist():
        told = not concealed[place].any()
        lines.append(
            {
                "visit": labels[place],
                "sessions": int(counts[place].sum()),
                "bought": int(counts[place, 1]) if told else None,
                "low": _number(low[place]) if told else None,
                "high": _number(high[place]) if told else None,
            }
        )
    return lines


def _cohorts(sessions: Sessions, way: Walk, crowd: Crowd, asked: Asked) -> dict[str, Any]:
    brief, long = cohorts.cohorts(sessions, asked.brief_seconds, asked.long_seconds)
    told: dict[str, Any] = {"brief_seconds": asked.brief_seconds, "long_seconds": asked.long_seconds}
    if not crowd.enough(brief) or not crowd.enough(long):
        return told | {"brief": None, "long": None, "traits": []}
    side = np.where(brief, 0, np.where(long, 1, -1))
    # of a dimension, one label's share follows from those of all others
    few = {
        f"{dimension}: {labels[code]}"
        for dimension, (labels, codes) in segments(sessions, way).items()
        for code in np.flatnonzero(_concealed(crowd, side, codes, len(labels)).any(axis=0))
    }
    traits = []
    for trait in cohorts.differences(sessions, way, brief, long):
        members = trait.members
        if trait.name in few or (members is not None and _concealed(crowd, side, members * 1, 2).any()):
            continue
        values = {name: _number(getattr(trait, name)) for name in ("brief", "long", "effect", "low", "high", "h")}
        kind = "share" if members is not None else "amount"
        traits.append({"name": trait.name, "kind": kind, "at_start": trait.at_start, **values})
    return told | {"brief": int(brief.sum()), "long": int(long.sum()), "traits": traits}


def _concealed(crowd: Crowd, side: np.ndarray, codes: np.ndarray, size: int) -> np.ndarray:
    """Of those that left and those that stayed, by code: which cells are not told, bool (2, size)."""
    return hidden(crowd.cells(np.where(side >= 0, side * size + codes, -1), 2, size), crowd.k)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"
