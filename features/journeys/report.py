"""Everything about the journeys of some sessions as one document: what `lotse report` shows and a service answers.

In: sessions and what is asked. Out: plain lists and numbers, ready for JSON; None for what is undefined or told of too
few visitors (`features.journeys.small`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
        "from_ms": int(sessions["started_at"].min()),
        "to_ms": int(sessions["last_at"].max()),
        "without_steps": int((way.length == 0).sum()),
        "longer": int(way.cut.sum()),
        "without": list(asked.without),
        "forward": {"begin": list(asked.begin), **path_told(first, crowd)},
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


def _backward(sessions: Sessions, way: Walk, crowd: Crowd, asked: Asked) -> dict[str, Any] | None:
    if not asked.goal:
        return None
    told = path_told(backward(way, asked.goal, asked.depth), crowd, backwards=True)
    goal = code_of(asked.goal[-1])
    later = way.cut & ((sessions["steps_seen_bits"] >> goal) & 1 == 1) & ~(way.steps == goal).any(axis=1)
    return {"goal": list(asked.goal), "after_kept": int(later.sum()), **told}


def _funnel(sessions: Sessions, way: Walk, crowd: Crowd, funnel: Funnel) -> dict[str, Any]:
    far = reached(way, funnel, sessions["steps_seen_bits"])
    steps = len(funnel.steps)
    lost = []
    for number, name in enumerate(funnel.steps[:-1], start=1):
        there = (far.reached == number) & (far.at_most == number)
        ended = there & (sessions["last_step"] == code_of(name))
        cells = crowd.by(np.where(there, ended.astype(np.int64), -1), 2)
        few = hidden(cells[None], crowd.k)[0]
        lost.append(None if few.any() or not crowd.enough(there) else int(ended.sum()))
    return {
        "title": funnel.title,
        "steps": list(funnel.steps),
        "mode": funnel.mode,
        "entry": funnel.entry,
        **funnel_told(far, steps, crowd, segments(sessions, way)),
        "ended_there": lost,
    }


def _endings(sessions: Sessions, crowd: Crowd) -> dict[str, Any]:
    found = endings(sessions)
    lines = []
    last, bits = sessions["last_step"], sessions["steps_seen_bits"]
    # of each step: who ended there, who went on
    cells = np.zeros((len(STEPS), 2), np.int64)
    for step in np.flatnonzero(found.seen):
        took = (bits >> step) & 1 == 1
        cells[step] = crowd.by(np.where(took, (last != step).astype(np.int64), -1), 2)
    few = hidden(cells, crowd.k)
    began = hidden(crowd.by(sessions["path_0"] & 15, len(STEPS))[None], crowd.k)[0]
    for step in np.flatnonzero(found.seen):
        if not crowd.enough((bits >> step) & 1 == 1):
            continue
        told = not few[step].any()
        lines.append(
            {
                "step": STEPS[step],
                "sessions": int(found.seen[step]),
                "began": None if began[step] else int(found.began[step]),
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
            enough = crowd.enough(which)
            values = one.quantiles(which) if enough else (np.nan,) * 3
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
    bought = (sessions["purchases"] > 0).astype(np.int64)
    cells = np.where(code >= 0, 2 * code + bought, -1)
    few = hidden(crowd.by(cells, 2 * len(labels)).reshape(-1, 2), crowd.k)
    counts = np.bincount(cells[cells >= 0], minlength=2 * len(labels)).reshape(-1, 2)
    low, high = wilson(counts[:, 1], counts.sum(axis=1))
    lines = []
    for place, label in enumerate(labels):
        if crowd.enough(code == place):
            told = not few[place].any()
            lines.append(
                {
                    "visit": label,
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
    traits = []
    for trait in cohorts.differences(sessions, way, brief, long):
        if trait.members is not None:
            code = np.where(brief, 0, np.where(long, 2, -1)) + trait.members
            if hidden(crowd.by(np.where(brief | long, code, -1), 4).reshape(2, 2), crowd.k).any():
                continue
        names = ("brief", "long", "effect", "low", "high", "h")
        values = {name: _number(getattr(trait, name)) for name in names}
        kind = "share" if trait.members is not None else "amount"
        traits.append({"name": trait.name, "kind": kind, "at_start": trait.at_start, **values})
    return told | {"brief": int(brief.sum()), "long": int(long.sum()), "traits": traits}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
