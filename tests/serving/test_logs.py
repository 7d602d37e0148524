"""Logs: sampled, one object a line, and nothing of a visitor in them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from serving.logs import RequestLog, configure
from serving.settings import LogSettings


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    root = logging.getLogger()
    before = root.handlers, root.level
    yield capsys
    root.handlers, root.level = before


def lines(written: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in written.readouterr().err.splitlines()]


def test_one_request_of_many_leaves_a_line(stderr: pytest.CaptureFixture[str]) -> None:
    configure(LogSettings())
    log = RequestLog(0.01)
    for _ in range(1_000):
        log.note("/v1/events", "POST", 200, 0.0012345678)
    found = lines(stderr)
    assert len(found) == 10
    assert {key: found[0][key] for key in ("route", "method", "status", "seconds", "one_of", "level", "logger")} == {
        "route": "/v1/events", "method": "POST", "status": 200, "seconds": 0.001235, "one_of": 100,
        "level": "INFO", "logger": "lotse.requests",
    }  # fmt: skip


def test_no_sample_is_no_line_but_failures_are_told(stderr: pytest.CaptureFixture[str]) -> None:
    configure(LogSettings(sample=0))
    log = RequestLog(0)
    for status in (200, 503, 404):
        log.note("/v1/events", "POST", status, 0.1)
    assert [line["status"] for line in lines(stderr)] == [503]


def test_a_flood_of_errors_is_left_out(stderr: pytest.CaptureFixture[str]) -> None:
    configure(LogSettings(errors_per_second=0.001))
    for number in range(100):
        logging.getLogger("lotse.app").error("failed with %d", number)
    logging.getLogger("lotse.app").error("something else")
    assert [line["message"] for line in lines(stderr)] == ["failed with 0", "something else"]


def test_text_is_for_people_and_tracebacks_are_one_object(stderr: pytest.CaptureFixture[str]) -> None:
    configure(LogSettings(format="text"))
    logging.getLogger("lotse.app").warning("for people")
    assert stderr.readouterr().err.endswith(" WARNING lotse.app: for people\n")
    configure(LogSettings(format="json"))
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("lotse.app").exception("an error")
    (line,) = lines(stderr)
    assert "ValueError: inside" in str(line["exc_info"])


def test_access_logs_of_others_are_off(stderr: pytest.CaptureFixture[str]) -> None:
    configure(LogSettings(level="debug"))
    for name in ("uvicorn.access", "bentoml.access"):
        assert not logging.getLogger(name).hasHandlers()  # uvicorn looks for this
        logging.getLogger(name).info("10.1.2.3 /v1/sessions/token")
    logging.getLogger("uvicorn.error").info("started")
    assert [line["message"] for line in lines(stderr)] == ["started"]
