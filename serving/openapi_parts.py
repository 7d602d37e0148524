"""What the OpenAPI document is put together from: parameters, headers, examples, schemas that have no type."""

from __future__ import annotations

from typing import Any, Final

from serving.http.bodies import ENCODINGS
from serving.problems import TITLES

Tree = dict[str, Any]


def ref(name: str) -> Tree:
    """Where the schema of this name is."""
    return {"$ref": f"#/components/schemas/{name}"}


TOKEN_TEXT: Final = "ZJ6U4nYyTqOgAQAAAAAAAHqs0cYnV1FZk2mR8gVb4xE"
PROBLEM_IN_EVENTS: Final = {
    "type": "about:blank",
    "title": TITLES[422],
    "status": 422,
    "detail": "event 0, field price: found -1.0, expected a finite number, 0 or more",
    "errors": [{"index": 0, "field": "price", "found": "-1.0", "expected": "a finite number, 0 or more"}],
    "request_id": "9f86d081884c-00000002a",
}
EVENT: Final = {"visitor": "v-1", "id": "e-1", "name": "view_item", "item": "sku-1", "price": 19.9}
ANSWER: Final = {
    "session": TOKEN_TEXT,
    "status": "folded",
    "events": 3,
    "scores": {"bounce": 0.11, "conversion": 0.04, "exit": 0.21},
    "models": {"bounce": "3", "conversion": "3", "exit": "2"},
}
SCORES: Final[Tree] = {
    "type": "object",
    "properties": {
        "scores": {
            "type": "array",
            "description": "Of each row, in their order; a head that cannot be asked about it is left out.",
            "items": {"type": "object", "additionalProperties": {"type": "number"}},
        },
        "models": {"type": "object", "additionalProperties": {"type": "string"}},
        "reasons": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["scores", "models", "reasons"],
}
DESCRIPTION: Final[Tree] = {
    "type": "object",
    "properties": {
        "heads": {"type": "object", "additionalProperties": {"type": "object"}},
        "reasons": {"type": "object", "additionalProperties": {"type": "string"}},
        "feature_digest": {"type": "string"},
        "features": {"type": "array", "items": {"type": "string"}},
        "record_bytes": {"type": "integer"},
    },
    "required": ["heads", "reasons", "feature_digest", "features", "record_bytes"],
}
_ROWS: Final[Tree] = {"type": "array", "items": {"type": "object"}}
HELD: Final[Tree] = {
    "type": "object",
    "description": "What is held of a visitor, and what its names mean.",
    "properties": {
        "records": {**_ROWS, "description": "The session that runs, and with consent what is known of earlier visits."},
        "waiting": {**_ROWS, "description": "Sessions that are over and wait to be handed on."},
        "handed_on": {**_ROWS, "description": "Sessions that were handed on, on this machine."},
        "buffered": {**_ROWS, "description": "Events that wait until the store is back."},
        "decisions": {**_ROWS, "description": "Lines of the log of decisions."},
        "undelivered": {**_ROWS, "description": "Messages to others that could not be delivered."},
        "meanings": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["records", "waiting", "handed_on", "buffered", "decisions", "undelivered", "meanings"],
}
PROBLEM: Final[Tree] = {
    "type": "object",
    "description": "RFC 9457",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was found, what is expected, what to do."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "Of an array of events, what is wrong with each.",
            "items": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer"},
                    "field": {"type": "string"},
                    "found": {"type": "string"},
                    "expected": {"type": "string"},
                },
                "required": ["index", "field", "found", "expected"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "request_id"],
}
PARAMETERS: Final[Tree] = {
    "Token": {
        "name": "token",
        "in": "path",
        "required": True,
        "description": "What POST /v1/events answered as `session`.",
        "schema": {"type": "string", "minLength": 43, "maxLength": 43, "pattern": "^[A-Za-z0-9_-]{43}$"},
        "example": TOKEN_TEXT,
    },
    "SessionToken": {
        "name": "token",
        "in": "query",
        "description": "The same, where no `Authorization: Bearer <token>` is sent.",
        "schema": {"type": "string", "minLength": 43, "maxLength": 43, "pattern": "^[A-Za-z0-9_-]{43}$"},
        "example": TOKEN_TEXT,
    },
    "Scores": {
        "name": "scores",
        "in": "query",
        "description": "none: the events are folded, and the answer has no scores.",
        "schema": {"type": "string", "enum": ["all", "none"], "default": "all"},
    },
    "Explain": {
        "name": "explain",
        "in": "query",
        "description": "true: the answer tells what made each score. Slower than the scores; for few events only.",
        "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
    },
    "Threshold": {
        "name": "threshold",
        "in": "query",
        "description": "A head and a score whose crossing is told, such as conversion:0.3; may be repeated.",
        "schema": {
            "type": "array",
            "maxItems": 32,
            "items": {"type": "string", "pattern": r"^[a-z_]+:[0-9]{1,9}(\.[0-9]{1,9})?$"},
        },
        "example": ["conversion:0.3"],
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The request has its effect once, however often it is sent with this key.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!#-~]+$"},
    },
    "ContentEncoding": {
        "name": "Content-Encoding",
        "in": "header",
        "description": "How the body is compressed.",
        "schema": {"type": "string", "enum": [*ENCODINGS, "identity"]},
    },
    "LastEventId": {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The id of the latest event that was received: only what is new since then is told.",
        "schema": {"type": "string"},
        "example": "3-1-0",
    },
    "MlflowDeliveryId": {
        "name": "X-MLflow-Delivery-Id",
        "in": "header",
        "description": "Signed with the body.",
        "schema": {"type": "string"},
    },
    "MlflowTimestamp": {
        "name": "X-MLflow-Timestamp",
        "in": "header",
        "description": "Seconds since 1970, within five minutes of now; signed with the body.",
        "schema": {"type": "string"},
    },
    "MlflowSignature": {
        "name": "X-MLflow-Signature",
        "in": "header",
        "description": "`v1,` and in base64 the HMAC-SHA256 of `<delivery id>.<timestamp>.<body>`.",
        "schema": {"type": "string"},
    },
    "XRequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Names the request; repeated in the answer. One is made where there is none.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
    },
}
HEADERS: Final[Tree] = {
    "XRequestId": {"description": "The request's name.", "required": True, "schema": {"type": "string"}},
    "RetryAfter": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
    "AcceptEncoding": {"description": "The encodings that are read.", "schema": {"type": "string"}},
    "IdempotencyReplayed": {
        "description": "The request was done before: its events are duplicates.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "LotseModels": {
        "description": "With NDJSON and Arrow: the version of each head's model, such as bounce=3, exit=2.",
        "schema": {"type": "string"},
    },
}
