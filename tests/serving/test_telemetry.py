"""OpenTelemetry: spans reach a real receiver over OTLP, with the caller's trace, and nothing of a visitor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from features.settings import SettingsError
from serving.app import App
from serving.settings import TelemetrySettings
from serving.telemetry import Tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector(BaseHTTPRequestHandler):
    """Keeps the spans that it is sent."""

    spans: list[Any]

    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in sent.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    spans: list[Any] = []
    handler = type("Own", (Collector,), {"spans": spans})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
        server.shutdown()
        thread.join()


def ask(tracing: Tracing, *headers: tuple[bytes, bytes]) -> None:
    """A request through the application, which has no engine yet and answers 503."""
    app = App()
    app.tracing = tracing
    scope = {
        "type": "http", "method": "GET", "path": "/v1/sessions/secret-token", "query_string": b"",
        "headers": [(b"user-agent", b"jane's browser"), *headers], "client": ("203.0.113.7", 1), "server": None,
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        assert message.get("status", 503) == 503

    asyncio.run(app(scope, receive, send))


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_span_goes_on_with_the_callers_trace(collector: tuple[str, list[Any]]) -> None:
    endpoint, spans = collector
    tracing = Tracing(TelemetrySettings(enabled=True, endpoint=endpoint, sample=0))
    ask(tracing)  # nobody asked for a trace, and none is sampled
    ask(tracing, (b"traceparent", PARENT.encode()))
    tracing.close()
    (span,) = spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == tuple(PARENT.split("-")[1:3])
    assert span.name == "GET /v1/sessions/{token}" and span.status.code == 2
    assert attributes(span) == {
        "http.request.method": "GET", "http.route": "/v1/sessions/{token}", "http.response.status_code": 503,
    }  # fmt: skip
    sent = span.SerializeToString()
    assert all(text not in sent for text in (b"secret-token", b"jane", b"203.0.113"))


def test_requests_are_sampled(collector: tuple[str, list[Any]]) -> None:
    endpoint, spans = collector
    tracing = Tracing(TelemetrySettings(enabled=True, endpoint=endpoint, sample=1))
    for _ in range(5):
        ask(tracing)
    tracing.close()
    assert len(spans) == 5 and not any(span.parent_span_id for span in spans)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.telemetry._EXPORTER", "opentelemetry.exporter.nowhere")
    with pytest.raises(SettingsError, match=r"lotse\[otel\]"):
        Tracing(TelemetrySettings(enabled=True))
