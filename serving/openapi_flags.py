"""Flags in the OpenAPI document: OFREP's two paths, whose errors are its own and not those of RFC 9457."""

from __future__ import annotations

from typing import Any, Final

from serving.openapi_parts import TOKEN_TEXT, ref

Tree = dict[str, Any]

FLAGS_PARAMETER: Final[Tree] = {
    "name": "flags",
    "in": "query",
    "description": "all, or keys of features, separated by commas: the answer has their values for the session.",
    "schema": {"type": "string", "enum": ["all"]},
    "example": "all",
}
_EVALUATED: Final[Tree] = {
    "type": "object",
    "properties": {
        "key": {"type": "string"},
        "value": {"description": "Of any type; without one the caller's own default holds."},
        "variant": {"type": "string", "description": "The arm of an experiment."},
        "reason": {"type": "string", "enum": ["STATIC", "TARGETING_MATCH", "SPLIT", "UNKNOWN"]},
    },
    "required": ["key", "reason"],
}
_FAILED: Final[Tree] = {
    "type": "object",
    "properties": {
        "key": {"type": "string"},
        "errorCode": {
            "type": "string",
            "enum": ["PARSE_ERROR", "TARGETING_KEY_MISSING", "INVALID_CONTEXT", "FLAG_NOT_FOUND"],
        },
        "errorDetails": {"type": "string"},
    },
    "required": ["errorCode", "errorDetails"],
}
_CONTEXT: Final[Tree] = {
    "type": "object",
    "properties": {
        "context": {
            "type": "object",
            "description": "What conditions may ask for beside scores and features, which are ours to say.",
            "properties": {
                "targetingKey": {
                    "type": "string",
                    "description": "The session's token; with a secret key also the tracker's id of the visitor.",
                }
            },
        }
    },
}
SCHEMAS: Final[Tree] = {"Evaluated": _EVALUATED, "NotEvaluated": _FAILED, "EvaluationContext": _CONTEXT}


def _evaluation(operation: Tree, success: Tree, refused: tuple[str, ...]) -> Tree:
    """An operation with OFREP's own answers for what cannot be evaluated."""
    responses = operation["responses"]
    headers = responses["200"]["headers"]
    for status in refused:
        told = "The flag is not defined." if status == "404" else "The request or its context cannot be used."
        content = {"application/json": {"schema": ref("NotEvaluated")}}
        if status in responses:
            content |= {"application/problem+json": {"schema": ref("Problem")}}
        responses[status] = {"description": told, "headers": headers, "content": content}
    responses["200"]["content"] = {"application/json": {"schema": success}}
    return operation


def one(operation: Tree) -> Tree:
    """POST /ofrep/v1/evaluate/flags/{key}."""
    return _evaluation(operation, ref("Evaluated"), ("400", "404"))


def many(operation: Tree) -> Tree:
    """POST /ofrep/v1/evaluate/flags."""
    success: Tree = {
        "type": "object",
        "properties": {
            "flags": {"type": "array", "items": ref("Evaluated")},
            "metadata": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
        },
        "required": ["flags"],
    }
    operation = _evaluation(operation, success, ("400",))
    about = "Of the flags, the configuration and the models."
    tag: Tree = {"ETag": {"description": about, "schema": {"type": "string"}}}
    operation["responses"]["200"]["headers"] = operation["responses"]["200"]["headers"] | tag
    operation["responses"]["304"] = {
        "description": "They are what `If-None-Match` names.",
        "headers": operation["responses"]["200"]["headers"],
    }
    return operation


BODY: Final[Tree] = {
    "application/json": {
        "schema": ref("EvaluationContext"),
        "example": {"context": {"targetingKey": TOKEN_TEXT, "country": "DE"}},
    }
}
KEY_PARAMETER: Final[Tree] = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "Of a feature.",
    "schema": {"type": "string", "minLength": 1},
    "example": "help_offer",
}
TAG_PARAMETER: Final[Tree] = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The ETag of an answer: 304 if nothing has changed.",
    "schema": {"type": "string"},
}
CLIENT_KEY: Final[Tree] = {
    "name": "client_key",
    "in": "path",
    "required": True,
    "description": "An API key; anything where no keys are needed.",
    "schema": {"type": "string", "minLength": 1},
    "example": "sdk-abc",
}
ATTRIBUTES: Final[Tree] = {
    "application/json": {
        "schema": {
            "type": "object",
            "properties": {"attributes": {"type": "object", "properties": {"id": {"type": "string"}}}},
        },
        "example": {"attributes": {"id": TOKEN_TEXT, "country": "DE"}},
    }
}
REMOTE: Final[Tree] = {
    "type": "object",
    "properties": {
        "status": {"const": 200},
        "features": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "properties": {"defaultValue": {}},
                "required": ["defaultValue"],
            },
        },
    },
    "required": ["status", "features"],
}
