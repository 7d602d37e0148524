"""Trackers' requests for schemathesis, which the API's document does not describe: captured ones of real clients, sound
and with anything in the place of anything.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import schemathesis
from hypothesis import strategies as st

from tests.contracts.captured import CAPTURES, captures, tracker
from tests.contracts.mangled import ANYTHING, replaced

TRACKERS: Final = ("adobe", "ga4", "matomo", "plausible", "segment", "snowplow", "tealium")
# Paths that no capture has.
MORE: Final = {
    "/debug/mp/collect": ("POST", "ga4"),
    "/ee/v1/privacy/set-consent": ("POST", "adobe"),
    "/ee/v1/identity/acquire": ("POST", "adobe"),
    "/v1/batch": ("POST", "segment"),
    "/bulk-event": ("POST", "tealium"),
    "/tealium/webhook": ("POST", "tealium"),
    "/acme/main/0123456789abcdef0123456789abcdef": ("GET", "tealium"),
}
CONSENT: Final = {"consent": [{"standard": "Adobe", "version": "2.0", "value": {"collect": {"val": "y"}}}]}
BATCHES: Final = {"/v1/batch": "batch", "/bulk-event": "events"}
# What trackers and the gate may answer; a redirect or a 5xx is neither.
_STATUSES: Final = ("200", "202", "204", "400", "404", "405", "413", "415", "422", "429")
_AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"


class Seen(NamedTuple):
    """What a tracker's clients have sent to a path: bodies and queries."""

    tracker: str
    bodies: list[str]
    queries: list[dict[str, str]]


def seen() -> dict[tuple[str, str], Seen]:
    """By path and method."""
    found: dict[tuple[str, str], Seen] = {}
    bodies: dict[str, list[str]] = {name: [] for name in TRACKERS}
    for name in TRACKERS:
        adapter = tracker(name)
        for file in sorted(CAPTURES.glob("*.jsonl")):
            for capture in captures(file.stem):
                hit, endpoint = capture.hit, adapter.endpoint(capture.hit.path)
                if endpoint is None or hit.method not in endpoint.methods:
                    continue
                one = found.setdefault((hit.path, hit.method), Seen(name, [], []))
                one.bodies.append(hit.body.decode())
                bodies[name].append(hit.body.decode())
                one.queries.append(dict(parse_qsl(hit.query, keep_blank_values=True)))
    for path, (method, name) in MORE.items():
        sent = [json.dumps(CONSENT)] if path.endswith("set-consent") else bodies[name]
        if path in BATCHES:
            sent = [json.dumps({BATCHES[path]: [json.loads(body) for body in sent if body[:1] == "{"][:20]})]
        found[path, method] = Seen(name, sent, [{"requestId": "15cdf34a-9999-4eb6-b21e-7ca1ec7f07c6"}])
    return found


SEEN: Final = seen()


@st.composite
def _bodies(draw: st.DrawFn, whole: list[str]) -> bytes:
    """A captured body: as it is, with other values, or with other characters."""
    body = draw(st.sampled_from(whole))
    kind = draw(st.sampled_from(["as it is", "values", "values", "characters"]))
    if kind == "values" and body.startswith(("{", "[")):
        return json.dumps(replaced(json.loads(body), draw(st.randoms(use_true_random=False)))).encode()
    if kind != "as it is":
        for place in draw(st.lists(st.integers(0, max(len(body) - 1, 0)), max_size=6)):
            body = body[:place] + draw(st.text(max_size=3)) + body[place + 1 :]
    return body.encode("utf-8", "surrogatepass")


@st.composite
def _queries(draw: st.DrawFn, whole: list[dict[str, str]]) -> dict[str, str]:
    query = dict(draw(st.sampled_from(whole)))
    values = st.text(max_size=30) | st.sampled_from([value for value in ANYTHING if isinstance(value, str)])
    for name in draw(st.lists(st.sampled_from(sorted(query) or ["x"]), max_size=3)):
        query[name] = draw(values)
    return query


def _media_type(path: str) -> str:
    """Content types choose nothing here, so each path has one of its own by which its bodies are made."""
    return "application/vnd.lotse" + "".join(letter if letter.isalnum() else "-" for letter in path)


for (_path, _method), _seen in SEEN.items():
    if _method == "POST":
        schemathesis.openapi.media_type(_media_type(_path), _bodies(_seen.bodies or [""]))


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Add what trackers send to the document."""
    for (path, method), _ in SEEN.items():
        operation: dict[str, Any] = {
            "parameters": [{"name": "_", "in": "query", "schema": {"type": "string"}}],
            "responses": {status: {"description": "As the tracker's own server."} for status in _STATUSES},
        }
        if method == "POST":
            operation["requestBody"] = {"content": {_media_type(path): {"schema": {}}}}
        raw_schema["paths"].setdefault(path, {})[method.lower()] = operation


@schemathesis.hook
def flatmap_query(context: schemathesis.HookContext, query: Any) -> st.SearchStrategy[Any]:
    """Captured queries for trackers."""
    operation = context.operation
    found = None if operation is None else SEEN.get((operation.path, operation.method.upper()))
    return st.just(query) if found is None else _queries(found.queries)


@schemathesis.hook
def map_headers(context: schemathesis.HookContext, headers: Any) -> Any:
    """A browser's, for what is dropped of programs."""
    operation = context.operation
    if operation is None or (operation.path, operation.method.upper()) not in SEEN:
        return headers
    return {**(headers or {}), "User-Agent": _AGENT, "Origin": "https://www.shop.example"}
