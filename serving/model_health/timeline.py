"""What became of a head's versions, from the tags that training's verbs put on them.

In: the versions and the aliases of a registered model. Out: the versions, the newest first, and their life in order of
time. A version whose alias was moved by hand has no tag of it, and one of an earlier release does not say which verb.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from serving.model_health.measured import Tree, number
from serving.model_health.store import Run, Version

# Metrics over all rows right after an event, as runs have them.
_METRICS: Final = ("auc", "pr_auc", "log_loss", "brier", "ece", "lift_10", "mae", "d2", "ratio")
_GATE: Final = "gate"
# Tag of a moment -> what happened, the tag that names the verb, the tag that names another version.
_MOMENTS: Final = {
    "promoted_at": ("promoted", "promoted_by", "promoted_from"),
    "refused_at": ("refused", "refused_by", ""),
    "replaced_at": ("replaced", "", "replaced_by"),
    "rolled_back_at": ("rolled_back", "", "rolled_back_to"),
    "restored_at": ("restored", "", ""),
}
# What only one verb does.
_VERBS: Final = {"rolled_back": "lotse rollback", "restored": "lotse rollback"}


def moment_ms(text: str | None) -> int | None:
    """A moment of a tag, ms UTC; None where it is none.

    >>> moment_ms("2026-01-01T00:00:00.250Z"), moment_ms("soon"), moment_ms(None)
    (1767225600250, None, None)
    """
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def version_of(version: Version, run: Run | None, aliases: Iterable[str]) -> Tree:
    """A version: where it comes from, how it did on its test, and what the gate said."""
    tags = version.tags
    return {
        "version": version.number,
        "aliases": sorted(aliases),
        "registered_ms": version.registered_ms,
        "registered_by": tags.get("registered_by"),
        "source": tags.get("source"),
        "learned_until_ms": moment_ms(tags.get("learned_until")),
        "promoted_ms": moment_ms(tags.get("promoted_at")),
        "promoted_by": tags.get("promoted_by"),
        "refused_because": tags.get("refused_because"),
        "gate": {name: text for name, text in tags.items() if name == _GATE or name.startswith(f"{_GATE}_")},
        "test": {name: number(run.metrics[f"{name}/events"]) for name in _METRICS if f"{name}/events" in run.metrics}
        if run
        else {},
    }


def life(versions: Sequence[Version]) -> list[Tree]:
    """All that happened to them, in order of time: at_ms, what, version, by (the verb, where it is known), other."""
    found: list[Tree] = []
    for version in versions:
        registered = {"at_ms": version.registered_ms, "what": "registered", "version": version.number}
        found.append({**registered, "by": version.tags.get("registered_by"), "other": None})
        for tag, (what, by, other) in _MOMENTS.items():
            at = moment_ms(version.tags.get(tag))
            if at is not None:
                verb = version.tags.get(by) or _VERBS.get(what)
                named = version.tags.get(other) or None
                found.append({"at_ms": at, "what": what, "version": version.number, "by": verb, "other": named})
    return sorted(found, key=lambda one: (one["at_ms"], int(one["version"])))


def champion_since(tags: Mapping[str, str]) -> tuple[int | None, str | None]:
    """Since when a champion has been it, ms UTC, and by which verb; None, where nothing says so."""
    promoted, restored = moment_ms(tags.get("promoted_at")), moment_ms(tags.get("restored_at"))
    if restored is not None and restored >= (promoted or 0):
        return restored, "lotse rollback"
    return promoted, tags.get("promoted_by")


def plain(tree: Mapping[str, Any]) -> Tree:
    """Without what is not a number."""
    return {name: number(value) if isinstance(value, float) else value for name, value in tree.items()}
