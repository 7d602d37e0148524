"""Pushes of the configuration in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from serving.http import pushes
from serving.openapi_parts import Tree, ref

_VERSION: Final[Tree] = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
_DIFFERENCE: Final[Tree] = {
    "type": "object",
    "properties": {kind: {"type": "array", "items": {"type": "string"}} for kind in ("added", "changed", "removed")},
    "required": ["added", "changed", "removed"],
}
_CHANGES: Final[Tree] = {
    "type": "object",
    "description": "By section (features, experiments, attributes, ...), of those that differ.",
    "additionalProperties": _DIFFERENCE,
}
_PUSHED: Final[Tree] = {
    "type": "object",
    "properties": {"version": _VERSION, "changes": _CHANGES, "dry_run": {"type": "boolean"}},
    "required": ["version", "changes", "dry_run"],
}
_KEPT: Final[Tree] = {
    "type": "object",
    "properties": {
        "version": _VERSION,
        "at": {"type": "integer", "description": "ms since 1970"},
        "how": {"type": "string", "enum": ["put", "patch", "rollback", "file"]},
        "by": {"type": "string", "description": "Id of the API key; left out where none was needed."},
        "configuration": ref("Configuration"),
    },
    "required": ["version", "at", "how"],
}
_CONFIGURATION: Final[Tree] = {
    "type": "object",
    "description": "configs/experiments.json: docs/flags.md and docs/experiments.md say what is in it.",
    "properties": {
        "attributes": {"type": "array", "items": {"type": "string"}},
        **{name: {"type": "object"} for name in ("features", "experiments", "savedGroups", "contextualBandits")},
    },
}
SCHEMAS: Final[Tree] = {"Configuration": _CONFIGURATION, "Pushed": _PUSHED, "ConfigurationVersion": _KEPT}
PARAMETERS: Final[Tree] = {
    "DryRun": {
        "name": "dry_run",
        "in": "query",
        "description": "true: only say what would change.",
        "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
    },
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "description": "The ETag of the configuration that was seen: 412 if it is another one by now.",
        "schema": {"type": "string"},
    },
    "RolledBackTo": {
        "name": "version",
        "in": "query",
        "description": "Default: the one that was pushed before the one that runs.",
        "schema": {"type": "string"},
    },
    "KeptVersion": {
        "name": "version",
        "in": "path",
        "required": True,
        "description": "As the list of versions has it.",
        "schema": {"type": "string", "minLength": 1},
        "example": "4be1f2a90c3d5e6f",
    },
}
_EXAMPLE: Final = {"features": {"help_offer": {"defaultValue": "none", "rules": []}}}


def paths(operation: Callable[..., Tree]) -> Tree:
    """Of GET, PUT and PATCH /v1/experiments, its versions, and the way back; operation: makes one."""
    pushing = (400, 412, 413, 415, 422, 500, 503)
    shown = _json(
        {
            "type": "object",
            "properties": {
                "version": _VERSION,
                "written_at": {"type": "integer", "description": "ms since 1970; 0 without a file."},
                "error": {"type": "string", "description": "Why the file as it is now does not run."},
                "configuration": ref("Configuration"),
            },
            "required": ["version", "written_at", "error", "configuration"],
        }
    )
    versions = _json(
        {
            "type": "object",
            "properties": {"version": _VERSION, "versions": {"type": "array", "items": ref("ConfigurationVersion")}},
            "required": ["version", "versions"],
        }
    )

    def push(name: str, summary: str, body: Tree) -> Tree:
        parameters = ("DryRun", "IfMatch", "ContentEncoding")
        return _tagged(operation(name, summary, _json(ref("Pushed")), body=body, parameters=parameters, errors=pushing))

    whole = {"application/json": {"schema": ref("Configuration"), "example": _EXAMPLE}}
    part = dict.fromkeys(("application/merge-patch+json", "application/json"), whole["application/json"])
    told = operation(
        "configuration", "What runs, and what keeps a newer file from running.", shown, errors=(422, 500, 503)
    )
    back = operation(
        "rollBack",
        "Have a version run that was there before; its experiments go on in the phase that they then had.",
        _json(ref("Pushed")),
        parameters=("RolledBackTo", "DryRun", "IfMatch"),
        errors=(404, 412, 422, 500, 503),
    )
    listed = operation("versions", "What was pushed, the newest first.", versions, errors=(422, 500, 503))
    one = operation(
        "version",
        "A version with its configuration.",
        _json(ref("ConfigurationVersion")),
        parameters=("KeptVersion",),
        errors=(404, 422, 500, 503),
    )
    return {
        pushes.EXPERIMENTS: {
            "get": _tagged(told),
            "put": push("replace", "Have another configuration run; one that cannot changes nothing.", whole),
            "patch": push("change", "The same in parts: a JSON merge patch (RFC 7396).", part),
        },
        pushes.VERSIONS: {"get": listed},
        pushes.VERSION: {"get": _tagged(one)},
        pushes.ROLLBACK: {"post": _tagged(back)},
    }


def _tagged(operation: Tree) -> Tree:
    """With the version as ETag."""
    headers: dict[str, Any] = operation["responses"]["200"]["headers"]
    operation["responses"]["200"]["headers"] = headers | {
        "ETag": {"description": "The version.", "schema": {"type": "string"}}
    }
    return operation


def _json(schema: Tree) -> Tree:
    return {"application/json": {"schema": schema}}
