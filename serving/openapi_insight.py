"""Journeys and models in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from features.steps import STEPS
from serving.insight import PATH
from serving.insight_models import PATH as MODELS
from serving.openapi_parts import Tree

_STEP: Final[Tree] = {"type": "string", "enum": list(STEPS[1:])}


def _steps(name: str, description: str) -> Tree:
    schema = {"type": "array", "items": _STEP, "maxItems": 10}
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _number(name: str, description: str, least: int, most: int) -> Tree:
    schema = {"type": "integer", "minimum": least, "maximum": most}
    return {"name": name, "in": "query", "description": description, "schema": schema}


PARAMETERS: Final[Tree] = {
    "JourneysBegin": _steps("begin", "Paths of sessions that begin with these steps, in order."),
    "JourneysGoal": _steps("goal", "Paths back from this step, as of its first time; several lead to the last."),
    "JourneysWithout": _steps("without", "Steps that are not looked at."),
    "JourneysFunnel": {
        "name": "funnel",
        "in": "query",
        "description": "`item > cart add` is loose, `item >> cart add` strict, `^` before it asks for the entry.",
        "schema": {"type": "array", "items": {"type": "string"}, "maxItems": 8},
        "example": ["item > cart add > purchase"],
    },
    "JourneysDepth": _number("depth", "Moves that the paths have; 6 by default.", 1, 12),
    "JourneysSince": _number("since_ms", "Sessions that began at or after this time, ms UTC.", 0, 2**53),
    "JourneysUntil": _number("until_ms", "Sessions that began before this time.", 0, 2**53),
}

_MODELS: Final[Tree] = {
    "type": "object",
    "properties": {
        "at_ms": {"type": "integer"},
        "registry": {"type": "boolean", "description": "Whether there is one."},
        "least_visitors": {"type": "integer"},
        "sessions_per_day": {"type": ["object", "null"]},
        "heads": {"type": "object", "additionalProperties": {"type": "object"}},
    },
    "required": ["at_ms", "registry", "least_visitors", "sessions_per_day", "heads"],
}


def paths(operation: Callable[..., Tree]) -> Tree:
    """GET /v1/insight/journeys and /v1/insight/models; operation: makes one."""
    journeys = operation(
        "journeys",
        "Paths, funnels, endings and cohorts over the sessions that were handed on.",
        {"application/json": {"schema": {"type": "object"}}},
        parameters=tuple(PARAMETERS),
        errors=(422, 500, 503),
    )
    models = operation(
        "models",
        "How the models are: versions, tests, realised calibration and lift, drift, comparison, reasons, thresholds.",
        {"application/json": {"schema": _MODELS}},
        errors=(422, 500, 503),
    )
    journeys["security"] = models["security"] = [{"key": []}, {}]
    return {PATH: {"get": journeys}, MODELS: {"get": models}}
