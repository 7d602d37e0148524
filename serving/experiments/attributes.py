"""What conditions may ask of every session beside its scores and features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from features.events import CONSENTS

if TYPE_CHECKING:
    from serving.experiments.flags import Subject


def _session(subject: Subject) -> str:
    return f"{subject.visitor % 2**64:x}-{subject.started_at:x}"


def _visitor(subject: Subject) -> str:
    return f"{subject.visitor % 2**64:x}"


def _consent(subject: Subject) -> list[str]:
    return [name for name, bit in CONSENTS.items() if subject.consent & bit]


OWN: Final[Mapping[str, Callable[[Subject], Any]]] = {
    "id": _session,
    "session": _session,
    "visitor": _visitor,
    "consent": _consent,
    "events": lambda subject: subject.events,
    "idle_seconds": lambda subject: subject.idle_seconds,
}
