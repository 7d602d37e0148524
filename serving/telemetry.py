"""OpenTelemetry, where it is switched on: a span for each sampled request, sent by OTLP over HTTP.

A caller's `traceparent` decides whether its request is sampled, otherwise `telemetry.sample` does. A span holds method,
route and status, nothing of a visitor. BentoML's own tracing stays off: it costs more than a score on every request.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from features.settings import SettingsError

if TYPE_CHECKING:
    from serving.settings import TelemetrySettings

_EXPORTER: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class Tracing:
    """Makes the spans of one worker.

    Raises
    ------
    SettingsError
        The extra `otel` is not installed.
    """

    def __init__(self, settings: TelemetrySettings) -> None:
        try:
            exporter = importlib.import_module(_EXPORTER).OTLPSpanExporter
        except ImportError:
            raise SettingsError("telemetry.enabled needs an extra package: pip install 'lotse[otel]'") from None
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415
        from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample)),
            resource=Resource.create({"service.name": settings.service}),
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter(endpoint=settings.endpoint)))
        self._tracer = self._provider.get_tracer("lotse")
        self._extract = TraceContextTextMapPropagator().extract
        self._kind, self._error = SpanKind.SERVER, StatusCode.ERROR

    def begin(self, route: str, scope: dict[str, Any]) -> Any:
        """The span of a request that came."""
        carried = {
            name.decode(): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"traceparent", b"tracestate")
        }
        method = scope["method"][:16]
        return self._tracer.start_span(
            f"{method} {route}",
            context=self._extract(carried) if carried else None,
            kind=self._kind,
            attributes={"http.request.method": method, "http.route": route},
        )

    def end(self, span: Any, status: int) -> None:
        """It was answered."""
        if span.is_recording():
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_status(self._error)
        span.end()

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()
