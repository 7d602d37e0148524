"""The document of `GET /v1/insight/models`: of each head its versions, how they did, and how the champion does now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from serving.model_health import measured
from serving.model_health.asked import Asked
from serving.model_health.measured import Tree, number, whole
from serving.model_health.reasons import reasons
from serving.model_health.store import Run, Store, Version
from serving.model_health.timeline import champion_since, life, moment_ms, plain, version_of
from serving.model_health.traffic import sessions_per_day

# Versions whose runs are looked at; there may be hundreds.
_VERSIONS: Final = 20
# Features whose drift is told over time.
_FOLLOWED: Final = 6
# A last look that is older tells nothing of today.
_OLD_MS: Final = 7 * 86_400_000
_REALISED: Final = (
    "rows", "sessions", "mean_score", "mean_answer", "mean_answer_error", "change", "change_error", "ratio",
    "ratio_error", "ratio_alarm", "calibration", "calibration_noise", "calibration_alarm", "off",
)  # fmt: skip
_OVER_TIME: Final = (
    "score_psi", "score_psi_alarm", "drifted_features", "mean_score", "mean_answer", "ratio", "ratio_error",
    "ratio_alarm", "calibration", "calibration_noise", "calibration_alarm",
)  # fmt: skip


def document(asked: Asked, store: Store | None, now_ms: int) -> Tree:
    """All of it; store: None where there is no registry.

    Raises
    ------
    RegistryError
        The registry does not answer.
    """
    return {
        "at_ms": now_ms,
        "registry": store is not None,
        "least_visitors": asked.least_visitors,
        "sessions_per_day": sessions_per_day(asked.closed, now_ms, asked.least_visitors),
        "heads": {head: _head(asked, store, head, now_ms) for head in asked.heads} if store else {},
    }


def _head(asked: Asked, store: Store, head: str, now_ms: int) -> Tree:
    name = f"{asked.prefix}-{head}"
    aliases = store.aliases(name)
    versions = store.versions(name) if aliases else []
    by_number = {one.number: one for one in versions}
    champion, challenger = (by_number.get(aliases.get(alias, "")) for alias in (asked.champion, asked.challenger))
    if champion is challenger:
        challenger = None
    # the newest, and those that matter, however old they are
    shown = [one for place, one in enumerate(versions) if place < _VERSIONS or one in (champion, challenger)]
    trained = {one.number: store.run(one.run) if one.run else None for one in shown}
    run = trained.get(champion.number) if champion else None
    # runs of watching are in the experiment that training's are in
    experiments = list(dict.fromkeys(one.experiment for one in trained.values() if one))
    watched = store.runs(experiments, f"drift-{head}")
    latest = next((one for one in watched if champion and one.params.get("version") == champion.number), None)
    compared = store.runs(experiments, f"compare-{head}")
    told = [
        version_of(one, trained[one.number], [alias for alias, at in aliases.items() if at == one.number])
        for one in shown
    ]
    drift = store.tree(latest.id, "drift.json") if latest else None
    realised = _realised(store, latest, drift, asked.least_visitors) if latest and drift else None
    test = _test(store, champion, run, asked.least_visitors) if champion and run else None
    since_ms, by = champion_since(champion.tags) if champion else (None, None)
    parameters = run.params if run else {}
    return {
        "model": name,
        "question": parameters.get("question"),
        "task": "value" if test and _of_amounts(test) else "binary",
        **_state(champion, latest, drift, now_ms),
        "champion": champion.number if champion else None,
        "champion_since_ms": since_ms,
        "champion_by": by,
        "challenger": challenger.number if challenger else None,
        "versions": told,
        "life": life(shown),
        "test": test,
        "realised": realised,
        "drift": _drift(drift, latest) if latest and drift else None,
        "over_time": _over_time(watched, drift),
        "comparison": _comparison(store, compared[0], asked.least_visitors) if compared else None,
        "reasons": reasons(store.table(run.id, "importance.csv") or ()) if run else [],
        "what_if": {
            "test": _what_if(store, run, asked.least_visitors),
            "realised": _what_if(store, latest, asked.least_visitors),
        },
    }


def _state(champion: Version | None, latest: Run | None, drift: Mapping[str, Any] | None, now_ms: int) -> Tree:
    """well, alarm or unknown, and why: of the last look at the champion."""
    why = None
    if champion is None:
        why = "no_champion"
    elif latest is None or drift is None:
        why = "not_watched"
    elif drift["drifted"]:
        return {"state": "alarm", "why": None}
    elif now_ms - latest.at_ms > _OLD_MS:
        why = "old"
    elif drift["realised"] is None:
        why = "few_outcomes"
    return {"state": "unknown" if why else "well", "why": why}


def _of_amounts(test: Tree) -> bool:
    return any("d2" in line.get("metrics", {}) for line in test["ages"])


def _test(store: Store, version: Version, run: Run, least_visitors: int) -> Tree:
    """How a version did on its test; curves are null where the run has not left them."""
    lines, curves = store.table(run.id, "evaluation.csv"), store.table(run.id, "reliability.csv")
    return {
        "version": version.number,
        "ages": measured.ages(lines or (), least_visitors),
        "reliability": None if curves is None else measured.reliability(curves, least_visitors),
    }


def _drift(drift: Mapping[str, Any], run: Run) -> Tree:
    """Drift of the scores and of every feature, the worst first."""
    return {
        **_window(run),
        "drifted": drift["drifted"],
        "score": plain(drift["score"]),
        "features": [plain(one) for one in drift["features"]],
    }


def _window(run: Run) -> Tree:
    """Which run it was, of which version, and what it looked at."""
    return {
        "at_ms": run.at_ms,
        "version": run.params.get("version"),
        "from_ms": moment_ms(run.params.get("window_from")),
        "to_ms": moment_ms(run.params.get("window_to")),
        "rows": whole(run.params.get("rows")),
        "sessions": whole(run.params.get("sessions")),
        "visitors": whole(run.params.get("visitors")),
    }


def _realised(store: Store, run: Run, drift: Mapping[str, Any], least_visitors: int) -> Tree | None:
    """What became of the sessions since the champion's test beside what it promised."""
    found = drift["realised"]
    if found is None:
        return None
    return {
        **_window(run),
        **plain({name: found.get(name) for name in _REALISED}),
        "by_score": measured.groups(found["by_score"], least_visitors),
        "by_age": measured.groups(found["by_age"], least_visitors),
        "ages": measured.ages(store.table(run.id, "realised.csv") or (), least_visitors),
    }


def _over_time(watched: Sequence[Run], drift: Mapping[str, Any] | None) -> Tree:
    """What each look has found, the first one first; of the features those that drifted most in the last."""
    features = [one["name"] for one in drift["features"] if one["counts"]][:_FOLLOWED] if drift else []
    looks = []
    for run in reversed(watched):
        look = _window(run) | {"drifted": run.tags.get("drift") == "true"}
        look |= {name: number(run.metrics.get(name)) for name in _OVER_TIME}
        look["psi"] = {name: number(run.metrics.get(f"psi/{name}")) for name in features}
        look["ece"] = number(run.metrics.get("ece/events"))
        look["lift_10"] = number(run.metrics.get("lift_10/events"))
        looks.append(look)
    return {"features": features, "looks": looks}


def _comparison(store: Store, run: Run, least_visitors: int) -> Tree:
    """The last comparison of champion and candidate, and what the gate said, where it was asked."""
    refused = sorted(name for name in run.tags if name.startswith("refused."))
    return {
        "at_ms": run.at_ms,
        "champion": run.params.get("champion"),
        "candidate": run.params.get("candidate"),
        "since_ms": moment_ms(run.params.get("since")),
        "until_ms": moment_ms(run.params.get("until")),
        "promoted": {"true": True, "false": False}.get(run.tags.get("promoted", "")),
        "reasons": [run.tags[name] for name in refused],
        "ages": measured.comparison(store.table(run.id, "comparison.csv") or (), least_visitors),
    }


def _what_if(store: Store, run: Run | None, least_visitors: int) -> Tree | None:
    tree = store.tree(run.id, "thresholds.json", formatted=True) if run else None
    return measured.thresholds(tree, least_visitors) if tree else None
