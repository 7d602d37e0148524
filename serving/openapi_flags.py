"""Flags in the OpenAPI document: OFREP's paths, whose errors are its own and not those of RFC 9457; GrowthBook's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from serving.http import growthbook, ofrep, ofrep_stream
from serving.openapi_parts import TOKEN_TEXT, Tree, ref

_FLAGS: Final[Tree] = {
    "name": "flags",
    "in": "query",
    "description": "all, or keys of features, separated by commas: the answer has their values for the session.",
    "schema": {"type": "string", "enum": ["all"]},
    "example": "all",
}
_METADATA: Final[Tree] = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_EVALUATED: Final[Tree] = {
    "type": "object",
    "properties": {
        "key": {"type": "string"},
        "value": {"description": "Of any type; without one the caller's own default holds."},
        "variant": {"type": "string", "description": "The arm of an experiment; default, targeted or none."},
        "reason": {"type": "string", "enum": ["STATIC", "TARGETING_MATCH", "SPLIT", "UNKNOWN"]},
        "metadata": _METADATA | {"description": "Of one flag: the version of the configuration."},
    },
    "required": ["key", "reason", "variant"],
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
        "metadata": _METADATA | {"description": "Of one flag; empty."},
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


_STREAM: Final[Tree] = {
    "type": "object",
    "description": "Where a page hears that the session's flags may be others.",
    "properties": {
        "type": {"const": "sse"},
        "endpoint": {
            "type": "object",
            "description": "On the origin that was asked.",
            "properties": {"requestUri": {"type": "string"}},
            "required": ["requestUri"],
        },
        "inactivityDelaySec": {"type": "integer"},
    },
    "required": ["type", "endpoint"],
}


_EVENT: Final = 'id: 5d1e\ndata: {"type":"refetchEvaluation","etag":"5d1e","lastModified":1771622898}\n\n'
_BODY: Final[Tree] = {
    "application/json": {
        "schema": ref("EvaluationContext"),
        "example": {"context": {"targetingKey": TOKEN_TEXT, "country": "DE"}},
    }
}
_KEY: Final[Tree] = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "Of a feature.",
    "schema": {"type": "string", "minLength": 1},
    "example": "help_offer",
}
_TAG: Final[Tree] = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The ETag of an answer: 304 if nothing has changed.",
    "schema": {"type": "string"},
}
_REFETCH: Final[Tree] = {
    name: {
        "name": wire,
        "in": "query",
        "description": "What the event stream told; the answer is as of now in any case.",
        "schema": {"type": "string"},
    }
    for name, wire in {"RefetchEtag": "flagConfigEtag", "RefetchModified": "flagConfigLastModified"}.items()
}
_SINCE: Final[Tree] = {
    "name": "since",
    "in": "query",
    "description": "The state of the session that the flags were made of; part of the address that OFREP's answer has.",
    "schema": {"type": "string"},
}
_CLIENT_KEY: Final[Tree] = {
    "name": "client_key",
    "in": "path",
    "required": True,
    "description": "An API key; anything where no keys are needed.",
    "schema": {"type": "string", "minLength": 1},
    "example": "sdk-abc",
}
_ATTRIBUTES: Final[Tree] = {
    "application/json": {
        "schema": {
            "type": "object",
            "properties": {"attributes": {"type": "object", "properties": {"id": {"type": "string"}}}},
        },
        "example": {"attributes": {"id": TOKEN_TEXT, "country": "DE"}},
    }
}
_REMOTE: Final[Tree] = {
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
_FEATURES: Final[Tree] = {
    "type": "object",
    "properties": {
        "status": {"const": 200},
        "features": {
            "type": "object",
            "description": "Without rules that an SDK cannot or must not evaluate.",
            "additionalProperties": {
                "type": "object",
                "properties": {"defaultValue": {}, "rules": {"type": "array", "items": {"type": "object"}}},
                "required": ["defaultValue", "rules"],
            },
        },
        "savedGroups": {"type": "object", "description": "Empty with a public key."},
        "dateUpdated": {"type": "string", "format": "date-time"},
    },
    "required": ["status", "features", "savedGroups", "dateUpdated"],
}
PARAMETERS: Final[Tree] = {
    "Flags": _FLAGS,
    "FlagKey": _KEY,
    "IfNoneMatch": _TAG,
    **_REFETCH,
    "Since": _SINCE,
    "ClientKey": _CLIENT_KEY,
}


def paths(operation: Callable[..., Tree]) -> Tree:
    """Of OFREP and of GrowthBook's SDKs; operation: makes one."""
    refused = (400, 413, 415, 500, 503)
    several = ("IfNoneMatch", "RefetchEtag", "RefetchModified", "ContentEncoding")
    flags = operation("flags", "All flags of a session, by OFREP.", {}, body=_BODY, parameters=several, errors=refused)
    flag = operation(
        "flag",
        "One flag of a session, by OFREP.",
        {},
        body=_BODY,
        parameters=("FlagKey", "ContentEncoding"),
        errors=refused,
    )
    stream = operation(
        "refetches",
        "OFREP's event stream: when to ask for a session's flags again.",
        {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENT}},
        parameters=("Token", "Since", "LastEventId"),
        errors=(401, 404, 422, 500, 503),
    )
    remote = operation(
        "evaluate",
        "All flags of a session, for GrowthBook's SDKs with remote evaluation.",
        {"application/json": {"schema": _REMOTE}},
        body=_ATTRIBUTES,
        parameters=("ClientKey", "ContentEncoding"),
        errors=(400, 413, 415, 422, 500, 503),
    )
    features = operation(
        "sdkFeatures",
        "Features for GrowthBook's SDKs that evaluate by themselves, as far as they can.",
        {"application/json": {"schema": _FEATURES}},
        parameters=("ClientKey", "IfNoneMatch"),
    )
    return {
        ofrep.FLAGS: {"post": _many(flags)},
        ofrep.FLAG: {"post": _one(flag)},
        ofrep_stream.STREAM: {"get": stream},
        growthbook.EVAL: {"post": remote},
        growthbook.FEATURES: {"get": _not_modified(features)},
    }


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


def _one(operation: Tree) -> Tree:
    """POST /ofrep/v1/evaluate/flags/{key}."""
    return _evaluation(operation, ref("Evaluated"), ("400", "404"))


def _many(operation: Tree) -> Tree:
    """POST /ofrep/v1/evaluate/flags."""
    success: Tree = {
        "type": "object",
        "properties": {
            "flags": {"type": "array", "items": ref("Evaluated")},
            "metadata": _METADATA,
            "eventStreams": {"type": "array", "items": _STREAM, "description": "Not with a secret key."},
        },
        "required": ["flags"],
    }
    operation = _evaluation(operation, success, ("400",))
    about = "Of the flags, the configuration and the models."
    tag: Tree = {"ETag": {"description": about, "schema": {"type": "string"}}}
    operation["responses"]["200"]["headers"] = operation["responses"]["200"]["headers"] | tag
    return _not_modified(operation)


def _not_modified(operation: Tree) -> Tree:
    """With the answer to `If-None-Match`."""
    operation["responses"]["304"] = {
        "description": "They are what `If-None-Match` names.",
        "headers": operation["responses"]["200"]["headers"],
    }
    return operation
