"""The Python client against the OpenAPI document of a running service: nothing missing, nothing of another type."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from lotse_client import AsyncClient, Client, Event, Problem, calls
from lotse_client.errors import NotEvaluated
from lotse_client.events import Purpose

from features.events import CONSENTS
from tests.clients.shapes import Shape, differences, shape_of
from tests.workspace import ROOT, Service

PYTHON = ROOT / "clients" / "python"
# Of an operation of the document there may be several calls, by the type of the body.
OF_OPERATION = {"score_lines": "score", "score_arrow": "score"}
# The console's page, and what it loads: for people.
PAGES = {"console", "consoleFile"}
# What the client sends of itself: every request may be named, compressed, and shows a session's token in a header.
CENTRAL = {("header", "X-Request-Id"), ("header", "Content-Encoding")}
# Their answers have the version, of which the ETag is made, in the body.
PUSHES = ("replace", "change", "roll_back")
TOKEN = "ZJ6U4nYyTqOgAQAAAAAAAHqs0cYnV1FZk2mR8gVb4xE"
# A value of each argument that is not its default.
GIVEN: dict[str, Any] = {
    "events": [Event(visitor="v-1", name="page_view")], "explain": True, "scores": False, "flags": "all",
    "idempotency_key": "k-1", "token": TOKEN, "thresholds": {"conversion": 0.3}, "last_event_id": "3-1-0",
    "rows": [{"events": 1.0}], "table": b"ARROW1", "webhook_secret": "s", "body": b"{}", "automated": False,
    "visitor": "v-1", "targeting_key": TOKEN, "context": {"country": "DE"}, "if_none_match": '"5d1e"',
    "flag_config_etag": '"5d1e"', "flag_config_last_modified": "1771622898", "key": "help_offer", "since": "5d1e",
    "attributes": {"id": TOKEN}, "client_key": "sdk-abc", "content": {"features": {}}, "patch": {"features": {}},
    "dry_run": True, "if_match": "4be1f2a90c3d5e6f", "version": "4be1f2a90c3d5e6f", "begin": ["item"],
    "goal": ["purchase"], "without": ["search"], "funnel": ["item > cart add"], "depth": 4, "since_ms": 1,
    "history": ["leaving_soon"], "order": "idle",
    "until_ms": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def document(keyed: Service) -> dict[str, Any]:
    content: dict[str, Any] = keyed.http.get("/v1/openapi.json").json()
    return content


def functions() -> dict[str, Callable[..., calls.Call[Any]]]:
    """The operations that the client has."""
    own = inspect.getmembers(calls, inspect.isfunction)
    return {name: one for name, one in own if one.__module__ == calls.__name__ and not name.startswith("_")}


def called(name: str) -> calls.Call[Any]:
    """A call with every argument given."""
    function = functions()[name]
    return function(**{argument: GIVEN[argument] for argument in inspect.signature(function).parameters})


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Path, method, the client's name, and what is said of each operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method != "head" and operation["operationId"] not in PAGES:
                yield (
                    path,
                    method.upper(),
                    re.sub("[A-Z]", lambda a: f"_{a[0].lower()}", operation["operationId"]),
                    operation,
                )


def calls_of(name: str) -> list[calls.Call[Any]]:
    """The client's calls of an operation."""
    return [called(one) for one in functions() if OF_OPERATION.get(one, one) == name]


def ours_of(kind: Any) -> Shape:
    (schema,), schemas = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    for one in schemas.values():
        one.get("properties", {}).pop("etag", None)  # a header's
    return shape_of(schema, schemas)


def test_every_operation_is_there_and_no_other(document: dict[str, Any]) -> None:
    assert {name for _, _, name, _ in operations(document)} == {OF_OPERATION.get(one, one) for one in functions()}


def test_every_call_goes_where_the_document_says(document: dict[str, Any]) -> None:
    for path, method, name, _ in operations(document):
        pattern = re.sub(r"\\\{.*?\\\}", "[^/]+", re.escape(path))
        for call in calls_of(name):
            assert call.method == method and re.fullmatch(pattern, call.path), (name, call.path)


def test_every_parameter_is_sent_as_the_document_wants_it(document: dict[str, Any]) -> None:
    checked = 0
    for path, _, name, operation in operations(document):
        told = [
            document["components"]["parameters"][one["$ref"].rpartition("/")[2]]
            for one in operation.get("parameters", ())
        ]
        by_token = any("sessionToken" in one for one in operation.get("security", ()))
        wanted = {(one["in"], one["name"]): one["schema"] for one in told if (one["in"], one["name"]) not in CENTRAL}
        for call in calls_of(name):
            parts = re.fullmatch(re.sub(r"\\\{(.*?)\\\}", r"(?P<\1>[^/]+)", re.escape(path)), call.path)
            assert parts
            sent: dict[tuple[str, str], list[str]] = {
                ("path", key): [value] for key, value in parts.groupdict().items()
            }
            for key, value in call.query:
                sent.setdefault(("query", key), []).append(value)
            proper = {one["name"].lower(): one["name"] for one in told if one["in"] == "header"}
            for key, value in call.headers.items():
                if key != "accept":
                    sent["header", proper.get(key, key)] = [value]
            if by_token:
                assert call.token == TOKEN
                sent["query", "token"] = [call.token]
            assert sent.keys() == wanted.keys(), name
            for which, values in sent.items():
                schema = wanted[which]
                value: Any = values if schema["type"] == "array" else values[0]
                Draft202012Validator(schema).validate(int(value) if schema["type"] == "integer" else value)
                checked += 1
    assert checked >= 40


def test_every_body_is_what_the_document_wants(document: dict[str, Any]) -> None:
    checked = set()
    for _, _, name, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {})
        sent = {call.content_type: call for call in calls_of(name) if call.body is not None}
        # pages that may set no header send JSON as text; a merge patch may be called JSON, too
        others = {"text/plain"} | ({"application/json"} if calls.MERGE_PATCH in content else set())
        assert content.keys() - others == sent.keys(), name
        for kind, call in sent.items():
            if kind in (calls.JSON, calls.MERGE_PATCH) and name != "score":
                schema = {**content[kind]["schema"], "components": document["components"]}
                Draft202012Validator(schema).validate(msgspec.json.decode(call.body))
                checked.add(name)
    assert len(checked) >= 9
    event = shape_of(document["components"]["schemas"]["EventIn"], document["components"]["schemas"])
    assert list(differences(event, ours_of(Event), "event", sent=True)) == []
    assert set(Purpose.__args__) == set(CONSENTS)  # type: ignore[attr-defined]


def test_every_answer_is_read_as_the_document_says(document: dict[str, Any]) -> None:
    found, schemas = [], document["components"]["schemas"]
    for _, _, name, operation in operations(document):
        success = operation["responses"]["200"]
        content = success.get("content", {"text/plain": {}})
        for call in calls_of(name):
            if "application/json" not in content or call.content_type in (calls.NDJSON, calls.ARROW):
                assert call.answer in (str, bytes, list[dict[str, float]]), name
                continue
            theirs, ours = shape_of(content["application/json"]["schema"], schemas), ours_of(call.answer)
            if name == "events":
                # one event is answered by itself, and an array, which is what the client sends, by results
                (several,) = [one for one in content["application/json"]["schema"]["anyOf"] if "properties" in one]
                theirs = shape_of(several, schemas)
            assert "ETag" not in success["headers"] or name in PUSHES or "etag" in call.answer.__struct_fields__, name
            found += differences(theirs, ours, name, sent=False)
    found += differences(shape_of(schemas["Problem"], schemas), ours_of(Problem), "problem", sent=False)
    found += differences(shape_of(schemas["NotEvaluated"], schemas), ours_of(NotEvaluated), "evaluation", sent=False)
    assert found == [], "\n".join(found)


def test_a_change_of_the_document_is_noticed(document: dict[str, Any]) -> None:
    """The comparison itself: a field more, one less, another type, another word are told."""
    schemas = msgspec.json.decode(msgspec.json.encode(document["components"]["schemas"]))
    answer = schemas["Answer"]["properties"]
    answer["age"], answer["events"], answer["status"]["enum"] = {"type": "integer"}, {"type": "string"}, ["started"]
    del answer["decided"]
    told = "\n".join(
        differences(shape_of(schemas["Answer"], schemas), ours_of(calls.answers.Answer), "answer", sent=False)
    )
    for place in (
        "answer.age: only in the document",
        "answer.decided: only in the client",
        "answer.events",
        "answer.status",
    ):
        assert place in told
    assert len(told.splitlines()) == 4


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_every_operation_is_a_method_with_the_same_arguments(client: type) -> None:
    for name, function in functions().items():
        wanted = list(inspect.signature(function).parameters.values())
        _, *found = inspect.signature(getattr(client, name)).parameters.values()
        assert [(one.name, one.kind, one.default) for one in found] == [
            (one.name, one.kind, one.default) for one in wanted
        ]
        assert getattr(client, name).__doc__, name


def test_the_synchronous_client_is_made_from_the_other() -> None:
    script = (
        "import make_sync; assert make_sync.made() == make_sync.MADE.read_text(), 'run clients/python/make_sync.py'"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PYTHON, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
