"""The API's document: sound, the same as the routes and as docs/api.md, and what the service does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from benchmarks.fuzz import fuzz
from serving.app import App
from serving.openapi import document
from serving.problems import TITLES
from tests.serving.in_process import engine_of, start
from tests.workspace import ROOT, Service

BENTOML = {"/livez", "/readyz"}
DOCS = (ROOT / "docs" / "api.md").read_text()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return start(tmp_path_factory.mktemp("document"))


@pytest.fixture(scope="module")
def openapi(app: App) -> dict[str, Any]:
    return document(engine_of(app))


def operations(openapi: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation) for path, methods in openapi["paths"].items() for method, operation in methods.items()
    ]


def test_the_document_is_one_of_openapi_3_1(openapi: dict[str, Any]) -> None:
    validate(openapi)


def test_document_routes_and_docs_tell_of_the_same_endpoints(openapi: dict[str, Any], app: App) -> None:
    told = {(path, method.upper()) for path, method, _ in operations(openapi)}
    assert told - {(path, "GET") for path in BENTOML} == {
        (p, method) for p, found in app.routes.items() for method in found
    }
    headings = re.findall(r"^### `([A-Z]+) ([^`]+)`$", DOCS, re.MULTILINE)
    assert {(path, method) for method, path in headings} == {
        (path, method) for path, method in told if method != "HEAD"
    }


def test_every_parameter_and_status_is_in_the_docs(openapi: dict[str, Any]) -> None:
    for parameter in openapi["components"]["parameters"].values():
        assert f"`{parameter['name']}" in DOCS, parameter["name"]
    for header in ("X-Request-Id", "Retry-After", "Idempotency-Replayed", "Lotse-Models", "Accept-Encoding"):
        assert f"`{header}`" in DOCS, header
    for _, _, operation in operations(openapi):
        for status in operation["responses"]:
            if status != "200":
                assert f"| {status} |" in DOCS, status
    assert {f"Problem{status}" for status in TITLES} == set(openapi["components"]["responses"])


def test_every_operation_tells_what_it_answers_and_refuses(openapi: dict[str, Any]) -> None:
    for path, method, operation in operations(openapi):
        assert operation["summary"] and operation["operationId"]
        if path in BENTOML:
            continue
        statuses = set(operation["responses"])
        assert {"200", "500", "503"} <= statuses
        sends = method in ("post", "put", "patch") and path != "/v1/experiments/rollback"
        assert ("requestBody" in operation) == sends == ("413" in statuses)
        assert ({"401", "403", "429"} <= statuses) == (path != "/v1/openapi.json")
        assert "X-Request-Id" in operation["responses"]["200"]["headers"]


def test_examples_are_what_their_schemas_say(openapi: dict[str, Any]) -> None:
    checked = 0
    for _, _, operation in operations(openapi):
        contents = [operation.get("requestBody", {}).get("content", {})]
        contents += [response.get("content", {}) for response in operation["responses"].values()]
        for content in contents:
            for described in content.values():
                examples = [example["value"] for example in described.get("examples", {}).values()]
                examples += [described["example"]] if "example" in described else []
                for example in examples:
                    schema = {**described["schema"], "components": openapi["components"]}
                    Draft202012Validator(schema).validate(example)
                    checked += 1
    for response in openapi["components"]["responses"].values():
        for described in response["content"].values():
            if "example" in described:
                schema = {**described["schema"], "components": openapi["components"]}
                Draft202012Validator(schema).validate(described["example"])
                checked += 1
    assert checked > 6


def test_the_service_does_what_the_document_says(service: Service, tmp_path: Path) -> None:
    """A short run; `python -m benchmarks.fuzz` sends 100,000 cases."""
    cases, found = fuzz(f"http://127.0.0.1:{service.port}", 15, 1, phases="examples,fuzzing")
    assert not found, found
    assert cases > 150
