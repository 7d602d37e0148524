"""What conditions may ask of a session, and what goals may count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from features.events import CONSENTS

if TYPE_CHECKING:
    from features.compiler import Fold
    from serving.experiments.flags import Subject


def _session(subject: Subject) -> str:
    return f"{subject.visitor % 2**64:x}-{subject.started_at:x}"


def _visitor(subject: Subject) -> str:
    return f"{subject.visitor % 2**64:x}"


def _consent(subject: Subject) -> list[str]:
    return [name for name, bit in CONSENTS.items() if subject.consent & bit]


# Of every session, beside its scores and features.
OWN: Final[Mapping[str, Callable[[Subject], Any]]] = {
    "id": _session,
    "session": _session,
    "visitor": _visitor,
    "consent": _consent,
    "events": lambda subject: subject.events,
    "idle_seconds": lambda subject: subject.idle_seconds,
}


class Names(NamedTuple):
    """asked: of all scores and features; kept: of what a session that is over is handed on with, which goals may count:
    a feature that is computed of it (a share, a mean) is not there.
    """

    asked: frozenset[str]
    kept: frozenset[str]


def names_of(heads: Iterable[str], fold: Fold) -> Names:
    """Those of a service with these heads."""
    return Names(frozenset((*heads, *fold.names)), frozenset(fold.catalogue.fields))
