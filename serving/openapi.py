"""The OpenAPI 3.1 document of the whole API, its schemas taken from the types that read and write the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from features.events import CHANNELS, CONSENTS, DEVICES, EVENT_NAMES
from serving.intake import EventIn
from serving.requests import Answer

if TYPE_CHECKING:
    from serving.engine import Engine


def document(engine: Engine) -> dict[str, Any]:
    """The document as JSON-ready dicts."""
    (event, answer), schemas = msgspec.json.schema_components(
        [EventIn, Answer], ref_template="#/components/schemas/{name}"
    )
    schemas["Problem"] = _PROBLEM
    wire = schemas["EventIn"]["properties"]
    wire["name"] |= {
        "description": "An event name of GA4 or one mapped in configs/shop.toml.",
        "examples": list(EVENT_NAMES),
    }
    wire["channel"]["enum"], wire["device"]["enum"] = list(CHANNELS), list(DEVICES)
    wire["consent"]["description"] = f"Any of {', '.join(CONSENTS)}."
    wire["visitor"]["description"] = "The tracker's visitor id; only a keyed pseudonym of it is kept."
    for field in ("price", "quantity", "value"):
        wire[field]["minimum"] = 0
    many = {"type": "array", "items": event, "maxItems": engine.settings.server.batch_limit}
    results = {"type": "object", "properties": {"results": {"type": "array", "items": answer}}}
    vector = {
        "type": "object",
        "properties": {name: {"type": ["number", "null"]} for name in engine.fold.names},
        "required": list(engine.fold.names),
        "additionalProperties": False,
    }
    rows = {"type": "object", "properties": {"rows": {"type": "array", "items": vector}}, "required": ["rows"]}
    scores = {
        "type": "object",
        "properties": {
            "scores": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "number"}}},
            "models": {"type": "object"},
            "reasons": {"type": "object"},
        },
    }
    token = {"name": "token", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lotse",
            "version": "1",
            "description": "Live bounce, conversion and exit probabilities of running web sessions.",
        },
        "paths": {
            "/v1/events": {
                "post": _operation(
                    "Fold one event or an array of events and score their sessions.",
                    _json({"oneOf": [answer, results]}),
                    body={"oneOf": [event, many]},
                    errors=(400, 413, 415, 422),
                )
            },
            "/v1/sessions/{token}": {
                "get": _operation("Score a session as of now; idle time counts.", _json(answer), errors=(401, 404))
                | {"parameters": [token]}
            },
            "/v1/score": {
                "post": _operation(
                    "Score given feature vectors.", _json(scores), body=rows, errors=(400, 413, 415, 422)
                )
            },
            "/v1/features": {"get": _operation("Heads, versions and feature names.", _json({"type": "object"}))},
            "/v1/openapi.json": {"get": _operation("This document.", _json({"type": "object"}))},
            "/livez": {"get": _operation("The process answers.", _text())},
            "/readyz": {"get": _operation("Every head scores its golden row as in training.", _text(), errors=(503,))},
            "/metrics": {"get": _operation("Prometheus metrics.", _text())},
        },
        "components": {"schemas": schemas},
    }


_PROBLEM = {
    "type": "object",
    "description": "RFC 9457",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _text() -> dict[str, Any]:
    return {"text/plain": {"schema": {"type": "string"}}}


def _operation(
    summary: str, content: dict[str, Any], *, body: dict[str, Any] | None = None, errors: tuple[int, ...] = ()
) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses: dict[str, Any] = {"200": {"description": "OK", "content": content}}
    responses |= {str(status): {"description": "Refused", "content": problem} for status in errors}
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _json(body)}
    return operation
