"""What schemathesis cannot make from the API's document: rows as NDJSON and as Arrow streams, sound and damaged;
visitors of whom something is held; what trackers send (`fuzz_trackers`).
"""

from __future__ import annotations

import io
import json
import os
from typing import Any

import httpx
import pyarrow as pa
import schemathesis
from hypothesis import strategies as st

import benchmarks.fuzz_trackers  # noqa: F401  (registers its hooks)
from features.definitions import CATALOGUE
from serving.bulk import ARROW, NDJSON

NAMES = list(CATALOGUE.features)


def _arrow(values: list[float | None]) -> bytes:
    sink = io.BytesIO()
    table = pa.table({name: pa.array(values, pa.float64()) for name in NAMES})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _line(value: float | None) -> bytes:
    return json.dumps(dict.fromkeys(NAMES, value)).encode()


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of which some are others."""
    content = bytearray(draw(whole))
    for place in draw(st.lists(st.integers(0, max(len(content) - 1, 0)), max_size=8)):
        if content:
            content[place] = draw(st.integers(0, 255))
    return bytes(content)


_value = st.none() | st.floats()
_arrows = st.lists(_value, max_size=20).map(_arrow)
_lines = st.lists(_value.map(_line) | st.binary(max_size=40), max_size=20).map(b"\n".join)
schemathesis.openapi.media_type(ARROW, _arrows | damaged(_arrows) | st.binary(max_size=200))
schemathesis.openapi.media_type(NDJSON, _lines | damaged(_lines))


@schemathesis.hook
def map_headers(context: schemathesis.HookContext, headers: dict[str, str] | None) -> dict[str, str] | None:
    """Mostly without Content-Encoding: the bodies are plain, and all of them would be refused for it."""
    if headers and headers.get("Content-Encoding") and len(headers.get("X-Request-Id") or "") % 8:
        return {name: value for name, value in headers.items() if name != "Content-Encoding"}
    return headers


@schemathesis.hook
def filter_path_parameters(context: schemathesis.HookContext, path_parameters: dict[str, object] | None) -> bool:
    """A path with a line break is matched by none of Starlette's routes, so that its own 404 answers, as plain text."""
    return not any("\n" in str(value) for value in (path_parameters or {}).values())


VISITORS = [f"somebody-{number}" for number in range(5)]


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Visitors of whom something is held, in most requests about one: nobody guesses a token that is signed."""
    path, chosen = case.operation.path, int(case.id, 36) if case.id.isalnum() else 0
    if path == "/v1/insight/live":
        # an answer that never ends would be waited for: only what is refused is asked here
        case.query = {**(case.query or {}), "list": f"none-{chosen}"}
    if not path.startswith("/v1/visitors/") or chosen % 4 == 0:
        return
    visitor = VISITORS[chosen % len(VISITORS)]
    answer = httpx.post(
        f"{os.environ['LOTSE_FUZZED']}/v1/events", json={"visitor": visitor, "name": "page_view"}, timeout=20
    )
    if path.startswith("/v1/visitors/me"):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {answer.json()['session']}"}  # type: ignore[assignment]
    elif isinstance(case.body, dict) and "visitor" in case.body:
        case.body["visitor"] = visitor
