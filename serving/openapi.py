"""The OpenAPI 3.1 document of the whole API, its schemas taken from the types that read and write the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from features.events import CHANNELS, CONSENTS, DEVICES, EVENT_NAMES
from features.sessions import STATUS_NAMES
from serving import openapi_console, openapi_experiments, openapi_flags, openapi_insight, openapi_pushes
from serving.bulk import ARROW, NDJSON
from serving.http import experiments
from serving.http.visitors import Decisions, Erased, Named
from serving.intake import TEXT_LIMIT, EventIn
from serving.openapi_parts import (
    ANSWER,
    DESCRIPTION,
    EVENT,
    HEADERS,
    HELD,
    PARAMETERS,
    PROBLEM,
    PROBLEM_IN_EVENTS,
    SCORES,
    Tree,
    ref,
)
from serving.problems import TITLES
from serving.requests import Answer
from serving.stream import IDLE_SECONDS

if TYPE_CHECKING:
    from serving.engine import Engine

# Who may ask: schemes of API keys, and which of them each operation wants, belong here.
_SECURITY_SCHEMES: Final[Tree] = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of `lotse keys create`. A public one sends events and reads sessions by token.",
    },
    "publicKey": {
        "type": "apiKey",
        "in": "query",
        "name": "key",
        "description": "A public key, where no header can be set.",
    },
    "sessionToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "What POST /v1/events answered as `session`: a visitor's right to what is held of them.",
    },
    "sessionTokenInQuery": {"type": "apiKey", "in": "query", "name": "token", "description": "The same."},
}
# The last: a service without keys is open to its own machine.
_SECURITY: Final[list[Tree]] = [{"key": []}, {"publicKey": []}, {}]
_OF_VISITORS: Final[list[Tree]] = [{"sessionToken": []}, {"sessionTokenInQuery": []}]
# What the gate may answer instead; a body that is too slow is answered with 408.
_AT_THE_GATE: Final = (401, 403, 429)

_TAGS: Final = {
    **dict.fromkeys(("configuration", "replace", "change", "rollBack", "versions", "version"), "operations"),
    **dict.fromkeys(("console", "consoleFile", "experiments", "live", "metrics", "openapi", "refresh"), "operations"),
    **dict.fromkeys(("mine", "eraseMine", "decisions", "export", "erase"), "privacy"),
}
_PROBLEM_TYPE: Final = "application/problem+json"


def document(engine: Engine) -> Tree:
    """The document as JSON-ready dicts."""
    limit = engine.settings.server.batch_limit
    event, answer, schemas = _schemas(engine)
    paths: Tree = {
        "/v1/events": {"post": _events(event, answer, limit)},
        "/v1/sessions/{token}": {"get": _session(answer)},
        "/v1/sessions/{token}/events": {"get": _stream(engine.settings.models.heads)},
        "/v1/score": {"post": _score(limit)},
        "/v1/features": {
            "get": _operation("features", "Heads, versions and feature names.", _json(ref("Description")))
        },
        "/v1/models/refresh": {"post": _refresh()},
        "/v1/visitors/me": {
            "get": _of_visitor("mine", "All that is held of a visitor.", "Held"),
            "delete": _of_visitor("eraseMine", "Erase all that is held of a visitor.", "Erased"),
        },
        "/v1/visitors/me/decisions": {"post": _decisions()},
        "/v1/visitors/export": {
            "post": _named("export", "All that is held of a visitor, by the tracker's id.", "Held")
        },
        "/v1/visitors/erase": {"post": _named("erase", "Erase it.", "Erased")},
        **openapi_flags.paths(_operation),
        **openapi_pushes.paths(_operation),
        **openapi_insight.paths(_operation),
        **openapi_console.paths(_operation),
        experiments.STATE: {"get": _experiments()},
        "/v1/openapi.json": {"get": _operation("openapi", "This document.", _json({"type": "object"}))},
        "/metrics": {"get": _operation("metrics", "Prometheus metrics of all workers.", _text(), errors=(500, 503))},
    }
    for methods in paths.values():
        if "get" in methods:
            head = {key: value for key, value in methods["get"].items() if key != "responses"}
            head |= {"operationId": f"{head['operationId']}Head", "summary": "The headers of a GET."}
            head["responses"] = {
                status: {key: value for key, value in response.items() if key not in ("content", "links")}
                for status, response in methods["get"]["responses"].items()
            }
            methods["head"] = head
    # BentoML answers these two itself
    paths["/livez"] = {"get": _bare("livez", "The process answers.", {"200": "It does."})}
    paths["/readyz"] = {
        "get": _bare(
            "readyz",
            "Every head scores its golden row as in training.",
            {"200": "It does.", "503": "It does not, or the service is starting."},
        )
    }
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Lotse",
            "version": "1",
            "description": "Live bounce, conversion and exit probabilities of running web sessions.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": _SECURITY,
        "tags": [{"name": "scores"}, {"name": "privacy"}, {"name": "operations"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": PARAMETERS
            | openapi_flags.PARAMETERS
            | openapi_pushes.PARAMETERS
            | openapi_insight.PARAMETERS
            | openapi_experiments.PARAMETERS
            | openapi_console.PARAMETERS,
            "headers": HEADERS,
            "responses": {f"Problem{status}": _problem(status) for status in TITLES},
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _schemas(engine: Engine) -> tuple[Tree, Tree, Tree]:
    """References to an event and an answer, and all schemas by name."""
    (event, answer, *_), schemas = msgspec.json.schema_components(
        [EventIn, Answer, Erased, Decisions, Named], ref_template="#/components/schemas/{name}"
    )
    schemas |= {
        "Held": HELD,
        **openapi_experiments.SCHEMAS,
        **openapi_flags.SCHEMAS,
        **openapi_pushes.SCHEMAS,
    }
    wire = schemas["EventIn"]["properties"]
    wire["name"] |= {
        "description": "An event name of GA4 or one mapped in configs/shop.toml.",
        "examples": list(EVENT_NAMES),
    }
    wire["channel"]["enum"], wire["device"]["enum"] = list(CHANNELS), list(DEVICES)
    wire["consent"]["description"] = f"Any of {', '.join(CONSENTS)}."
    wire["visitor"] |= {
        "description": "The tracker's visitor id; only a keyed pseudonym of it is kept.",
        "minLength": 1,
    }
    for field in ("visitor", "name", "id", "session", "item", "category", "campaign"):
        wire[field]["maxLength"] = TEXT_LIMIT
    wire["page"]["maxLength"] = 8 * TEXT_LIMIT
    for field in ("price", "quantity", "value"):
        wire[field]["minimum"] = 0
    wire["declared"]["maxItems"] = 4
    for field in ("time", "sent_at"):
        wire[field]["description"] = "Milliseconds since 1970, or ISO 8601."
    schemas["EventIn"]["examples"] = [EVENT]
    said = schemas["Answer"]["properties"]
    said["session"]["description"] = "The session's token, the access right to it; not with scores=none."
    said["status"]["enum"] = [*STATUS_NAMES, "read"]
    said["events"] |= {"description": "Events of the session so far.", "minimum": 0}
    said["scores"]["description"] = (
        "Of each head a probability, an expected amount, or an effect (uplift); nothing with scores=none."
    )
    said["models"]["description"] = "The version of each head's model."
    said["decided"]["description"] = "Heads whose answer was known already."
    said["reasons"]["description"] = "Why a head has no score, or only its prior."
    said["reason"]["description"] = (
        "store_unreachable: the events are kept and will be counted, but the scores know those of this request only."
    )
    said["flags"]["description"] = "With flags=...: of each feature its value, the variant of an experiment, and why."
    said["explanations"]["description"] = "With explain=true: of each head whose model was asked."
    schemas["Answer"]["examples"] = [ANSWER]
    schemas["Explanation"]["description"] = (
        "What made the margin, which is the log-odds (of an amount the logarithm) before calibration: "
        "baseline + contributions + others = margin."
    )
    names = engine.fold.names
    schemas["Row"] = {
        "type": "object",
        "description": "A feature vector: every feature of GET /v1/features, null where it is missing.",
        "properties": {name: {"type": ["number", "null"]} for name in names},
        "required": list(names),
        "additionalProperties": False,
    }
    schemas["Scores"] = SCORES
    schemas["Description"] = DESCRIPTION
    schemas["Problem"] = PROBLEM
    return event, answer, schemas


def _events(event: Tree, answer: Tree, limit: int) -> Tree:
    many = {"type": "array", "items": event, "maxItems": limit}
    results = {"type": "object", "properties": {"results": {"type": "array", "items": answer}}, "required": ["results"]}
    operation = _operation(
        "events",
        "Fold one event or an array of events and score their sessions.",
        _json({"anyOf": [answer, results]}, {"one": ANSWER, "several": {"results": [ANSWER]}}),
        body=_json({"oneOf": [event, many]}, {"one": EVENT, "several": [EVENT]})
        | {"text/plain": {"schema": {"type": "string"}, "example": '{"visitor": "v-1", "name": "page_view"}'}},
        parameters=("Scores", "Explain", "Flags", "IdempotencyKey", "ContentEncoding"),
        errors=(400, 409, 413, 415, 422, 500, 503),
    )
    success = operation["responses"]["200"]
    success["headers"]["Idempotency-Replayed"] = {"$ref": "#/components/headers/IdempotencyReplayed"}
    success["links"] = {
        name: {"operationId": name, "parameters": {"token": "$response.body#/session"}}
        for name in ("session", "mine", "decisions", "eraseMine")
    }
    return operation


def _experiments() -> Tree:
    return _operation(
        "experiments",
        "What runs, what closed sessions have taught, which arms were stopped; with a secret key.",
        _json(ref("ExperimentsState"), {"one": openapi_experiments.STATE_EXAMPLE}),
        parameters=("History",),
        errors=(422, 500, 503),
    )


def _session(answer: Tree) -> Tree:
    return _operation(
        "session",
        "Score a session as of now; idle time counts.",
        _json(answer, {"one": ANSWER | {"status": "read"}}),
        parameters=("Token", "Explain"),
        errors=(401, 404, 422, 500, 503),
    )


def _stream(heads: Sequence[str]) -> Tree:
    operation = _operation(
        "stream",
        "Server-sent events of a session: score, idle, closed.",
        {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'event: idle\nid: 3-1-0\ndata: {"idle_seconds": 5, "session": "...", "events": 3, ...}\n\n',
            }
        },
        parameters=("Token", "Threshold", "LastEventId"),
        errors=(401, 404, 422, 500, 503),
    )
    operation["description"] = (
        f"`score` when a score crosses a threshold, `idle` after {', '.join(map(str, IDLE_SECONDS))} seconds without "
        f"an event, `closed` when the session is over. Heads: {', '.join(heads)}."
    )
    return operation


def _score(limit: int) -> Tree:
    rows = {
        "type": "object",
        "properties": {"rows": {"type": "array", "items": ref("Row"), "minItems": 1, "maxItems": limit}},
        "required": ["rows"],
    }
    bulk = {
        NDJSON: {"schema": {"type": "string", "description": "A Row as JSON on each line."}},
        ARROW: {"schema": {"contentMediaType": ARROW}},
    }
    answered = {
        NDJSON: {"schema": {"type": "string", "description": "Scores of a row as JSON on each line, in their order."}},
        ARROW: {"schema": {"contentMediaType": ARROW}},
    }
    operation = _operation(
        "score",
        "Score given feature vectors: some as JSON, many as NDJSON or as an Arrow stream.",
        _json(ref("Scores")) | answered,
        body=_json(rows) | bulk,
        parameters=("ContentEncoding",),
        errors=(400, 413, 415, 422, 500, 503),
    )
    operation["responses"]["200"]["headers"]["Lotse-Models"] = {"$ref": "#/components/headers/LotseModels"}
    return operation


def _refresh() -> Tree:
    operation = _operation(
        "refresh",
        "Have the model registry asked now: for MLflow's webhooks.",
        _json({"type": "object", "properties": {"status": {"const": "asked"}}, "required": ["status"]}),
        body=_json({"type": "object"}),
        parameters=("MlflowDeliveryId", "MlflowTimestamp", "MlflowSignature", "ContentEncoding"),
        errors=(400, 401, 413, 415, 500, 503),
    )
    operation["description"] = "No key of the API is needed but the signature of the body, which is not read otherwise."
    operation["security"] = [{}]
    return operation


def _of_visitor(name: str, summary: str, schema: str) -> Tree:
    operation = _operation(name, summary, _json(ref(schema)), parameters=("SessionToken",), errors=(401, 422, 500, 503))
    operation["security"] = _OF_VISITORS
    return operation


def _decisions() -> Tree:
    operation = _operation(
        "decisions",
        "Object to automated decisions, or take that back: scores are the priors meanwhile, with the reason opted_out.",
        _json(ref("Decisions"), {"one": {"automated": False}}),
        body=_json(ref("Decisions"), {"one": {"automated": False}}),
        parameters=("SessionToken", "ContentEncoding"),
        errors=(400, 401, 404, 413, 415, 422, 500, 503),
    )
    operation["security"] = _OF_VISITORS
    return operation


def _named(name: str, summary: str, schema: str) -> Tree:
    return _operation(
        name,
        summary,
        _json(ref(schema)),
        body=_json(ref("Named"), {"one": {"visitor": "v-1"}}),
        parameters=("ContentEncoding",),
        errors=(400, 413, 415, 422, 500, 503),
    )


def _operation(
    name: str,
    summary: str,
    content: Tree,
    *,
    body: Tree | None = None,
    parameters: Sequence[str] = (),
    errors: Sequence[int] = (500, 503),
) -> Tree:
    request_id = {"X-Request-Id": {"$ref": "#/components/headers/XRequestId"}}
    responses: Tree = {"200": {"description": "OK", "headers": request_id, "content": content}}
    may = {*errors, *(_AT_THE_GATE if name != "openapi" else ()), *((408,) if body is not None else ())}
    responses |= {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in sorted(may)}
    operation: Tree = {
        "operationId": name,
        "tags": [_TAGS.get(name, "scores")],
        "summary": summary,
        "parameters": [{"$ref": f"#/components/parameters/{parameter}"} for parameter in (*parameters, "XRequestId")],
        "responses": responses,
    }
    if name == "openapi":
        operation["security"] = []
    if body is not None:
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _bare(name: str, summary: str, statuses: dict[str, str]) -> Tree:
    return {
        "operationId": name,
        "tags": ["operations"],
        "summary": summary,
        "responses": {status: {"description": description} for status, description in statuses.items()},
    }


def _problem(status: int) -> Tree:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/XRequestId"}}
    if status in (409, 429, 503):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    if status == 415:
        headers["Accept-Encoding"] = {"$ref": "#/components/headers/AcceptEncoding"}
    content: Tree = {"schema": ref("Problem")}
    if status == 422:
        content["example"] = PROBLEM_IN_EVENTS
    return {"description": TITLES[status], "headers": headers, "content": {_PROBLEM_TYPE: content}}


def _json(schema: Tree, examples: Tree | None = None) -> Tree:
    content = {"schema": schema}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"application/json": content}


def _text() -> Tree:
    return {"text/plain": {"schema": {"type": "string"}}}
