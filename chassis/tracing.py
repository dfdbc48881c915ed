"""Spans with the seed's names. Off and free of cost unless OTEL_EXPORTER_OTLP_ENDPOINT is set.

A request's trace context travels as the W3C `traceparent` text: in metadata, in the database row, in stream
entries and in the HTTP header to the external system. Batches carry it per item, so spans are made by hand.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """Makes spans for one process; `enabled` is false when nobody collects them."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("integration-hub") if provider is not None else None

    @classmethod
    def from_environment(cls, service: str) -> "Tracing":
        """Build by the standard OTEL variables; the exporter is imported only when it is wanted."""
        if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            return cls()
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # 80 ms, only when used

        provider = TracerProvider(resource=Resource.create({"service.name": f"hub-{service}"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    @property
    def enabled(self) -> bool:
        """Whether spans are recorded at all."""
        return self._tracer is not None

    @contextmanager
    def span(self, name: str, traceparent: str, kind: SpanKind = SpanKind.INTERNAL) -> Iterator[str]:
        """Open a span under `traceparent`; gives the traceparent for what happens inside."""
        if self._tracer is None:
            yield traceparent
            return
        parent = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
        with self._tracer.start_as_current_span(name, context=parent, kind=kind) as span:
            carrier: dict[str, str] = {}
            _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
            yield carrier.get("traceparent", traceparent)

    async def start(self) -> None:
        """Do nothing: spans are made on demand."""

    async def stop(self) -> None:
        """Send what is left; bounded by the SDK's own export timeout."""
        if self._provider is not None:
            self._provider.shutdown()
