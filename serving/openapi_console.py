"""The console in the OpenAPI document: its page and files, and what the live view is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from serving.console.live import LIVE
from serving.console.shell import FILE, PAGE
from serving.openapi_parts import Tree

_TEXT: Final[Tree] = {"schema": {"type": "string"}}
_FILES: Final[Tree] = dict.fromkeys(("text/javascript", "text/css", "image/svg+xml"), _TEXT)
_EVENT: Final = 'event: totals\ndata: {"at_ms": 1771622898123, "live": 420, ...}\n\n'

PARAMETERS: Final[Tree] = {
    "LiveList": {
        "name": "list",
        "in": "query",
        "description": "`recent`: the latest sessions; `idle`: the most silent; a head: the highest scores.",
        "schema": {"type": "string"},
        "example": "recent",
    },
    "ConsoleFile": {
        "name": "name",
        "in": "path",
        "required": True,
        "description": "A file of the page, such as `console.js`.",
        "schema": {"type": "string", "pattern": "^[a-z][a-z0-9_.]*$"},
        "example": "console.js",
    },
    "IfNoneMatchFile": {
        "name": "If-None-Match",
        "in": "header",
        "description": "The `ETag` of an answer before: 304 if the file is the same.",
        "schema": {"type": "string"},
    },
}


def paths(operation: Callable[..., Tree]) -> Tree:
    """The page and its files; operation: makes one."""
    page = operation("console", "The console: a page for people.", {"text/html": _TEXT}, errors=(404, 422, 500, 503))
    file = operation(
        "consoleFile", "A file of the console.", _FILES, parameters=("ConsoleFile",), errors=(404, 422, 500, 503)
    )
    for one in (page, file):
        one["parameters"].append({"$ref": "#/components/parameters/IfNoneMatchFile"})
        one["responses"]["304"] = {"description": "The file is what If-None-Match names."}
        one["security"] = [{}]
    live = operation(
        "live",
        "Server-sent events of all sessions that run: totals, health, rows; with a secret key.",
        {"text/event-stream": {**_TEXT, "example": _EVENT}},
        parameters=("LiveList",),
        errors=(404, 422, 500, 503),
    )
    live["security"] = [{"key": []}, {}]
    return {PAGE: {"get": page}, FILE: {"get": file}, LIVE: {"get": live}}
