"""Tables that training writes, as they are told: by session age, by score and by threshold.

In: lines of CSV files and trees of JSON files. Out: plain numbers, null for what is undefined. Of fewer visitors than
allowed only the name is told, with `hidden`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

Tree = dict[str, Any]
# Standard errors on either side of a 95 % interval.
INTERVAL: Final = 1.96
_COUNTS: Final = ("rows", "sessions", "visitors")
_NAMES: Final = ("age", "model", "base_rate", *_COUNTS)


def number(text: str | float | None) -> float | None:
    """A number of a file; None where it is none, or not finite.

    >>> number("0.5"), number(""), number("nan"), number(float("inf"))
    (0.5, None, None, None)
    """
    try:
        found = float(text) if text not in (None, "") else math.nan  # type: ignore[arg-type]
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def whole(text: str | float | None) -> int | None:
    """The same of a count."""
    found = number(text)
    return None if found is None else round(found)


def ages(lines: Iterable[Mapping[str, str]], least_visitors: int) -> list[Tree]:
    """Lines of evaluation.csv or realised.csv about the model itself: each metric with its interval.

    Ages and segments without rows are left out.
    """
    found = []
    for line in lines:
        if line.get("model") == "lotse" and whole(line["rows"]):
            counts = {name: whole(line[name]) for name in _COUNTS}
            told: Tree = {"age": line["age"], **counts, "base_rate": number(line["base_rate"]), "metrics": {}}
            for name, text in line.items():
                if name not in _NAMES and not name.endswith(("_low", "_high")):
                    low, high = line.get(f"{name}_low"), line.get(f"{name}_high")
                    told["metrics"][name] = {"value": number(text), "low": number(low), "high": number(high)}
            found.append(hidden(told, "age", least_visitors))
    return found


def comparison(lines: Iterable[Mapping[str, str]], least_visitors: int) -> list[Tree]:
    """Lines of comparison.csv: each metric of champion and candidate, and their difference with its interval."""
    found = []
    for line in lines:
        if whole(line["rows"]):
            names = [name.removesuffix("_difference") for name in line if name.endswith("_difference")]
            told: Tree = {"age": line["age"], **{name: whole(line[name]) for name in _COUNTS}}
            told["metrics"] = {
                name: {
                    "champion": number(line[f"{name}_one"]),
                    "candidate": number(line[f"{name}_other"]),
                    "difference": number(line[f"{name}_difference"]),
                    "low": number(line[f"{name}_low"]),
                    "high": number(line[f"{name}_high"]),
                }
                for name in names
            }
            found.append(hidden(told, "age", least_visitors))
    return found


def reliability(lines: Sequence[Mapping[str, str]], least_visitors: int) -> list[Tree]:
    """reliability.csv: of each session age the bins of its curve."""
    found = []
    for age, of in groupby(lines, key=lambda line: line["age"]):
        bins: list[Tree] = []
        for line in of:
            point: Tree = {name: number(line[name]) for name in ("score", "observed", "low", "high")}
            point |= {name: whole(line.get(name)) for name in ("rows", "visitors")}
            bins.append(hidden(point, "score", least_visitors))
        found.append({"age": age, "bins": bins})
    return found


def groups(found: Iterable[Mapping[str, Any]], least_visitors: int) -> list[Tree]:
    """Groups of drift.json: mean score and what happened, with its interval."""
    told = []
    for one in found:
        mean, error = number(one["mean_answer"]), number(one["error"])
        spread = None if mean is None or error is None else INTERVAL * error
        group = {
            "name": one["name"],
            "rows": one["rows"],
            "visitors": one.get("visitors"),
            "mean_score": number(one["mean_score"]),
            "mean_answer": mean,
            "low": None if mean is None or spread is None else mean - spread,
            "high": None if mean is None or spread is None else mean + spread,
        }
        told.append(hidden(group, "name", least_visitors))
    return told


def thresholds(tree: Mapping[str, Any], least_visitors: int) -> Tree | None:
    """thresholds.json, None where it tells of fewer visitors than is allowed here."""
    return None if tree["least_visitors"] < least_visitors else {**tree, "moments": list(tree["moments"])}


def hidden(line: Tree, name: str, least_visitors: int) -> Tree:
    """The line, or its name alone where its visitors are too few, or nobody has counted them.

    >>> hidden({"age": "all", "visitors": 50, "rows": 70}, "age", 50)
    {'age': 'all', 'visitors': 50, 'rows': 70, 'hidden': False}
    >>> hidden({"age": "all", "visitors": 49, "rows": 70}, "age", 50)
    {'age': 'all', 'hidden': True}
    """
    visitors = line.get("visitors")
    if visitors is None or visitors < least_visitors:
        return {name: line[name], "hidden": True}
    return {**line, "hidden": False}
