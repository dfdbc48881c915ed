"""Spans with the seed's names. Off and free of cost unless an OTLP endpoint is named by the standard OTEL variables.

A request's trace context travels as the W3C `traceparent` text: in metadata, in the database row, in stream entries
and in the HTTP header to the external system. Batches carry it per item, so spans are made by hand and nothing is
"current". A processing's span id follows from the request and its lease: so intake can hang its own spans below it,
and a repeated processing can link to the one before, without anything being stored for that.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from chassis.logs import get_logger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = get_logger()

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
#: The last digit of a traceparent whose bit "sampled" is not set.
_NOT_SAMPLED = tuple("02468ace")
_next_span_id: ContextVar[int | None] = ContextVar("next_span_id", default=None)


class _Ids:
    """A provider's ids, except for a span whose id was chosen."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._others = provider.id_generator
        self.generate_trace_id = self._others.generate_trace_id
        self.is_trace_id_random = self._others.is_trace_id_random

    def generate_span_id(self) -> int:
        chosen = _next_span_id.get()
        return self._others.generate_span_id() if chosen is None else chosen


class OpenSpan:
    """A span that was begun; `traceparent` is the context for what happens inside."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: Span) -> None:
        context = span.get_span_context()
        self._span = span
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def fail(self, error: str) -> None:
        """Mark it as failed; `error` says why in the code's words, never a partner's."""
        self._span.set_status(Status(StatusCode.ERROR, error))

    def end(self) -> None:
        """End it."""
        self._span.end()


class Tracing:
    """Makes spans for one process; `enabled` is false when nobody collects them."""

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        self._provider = provider
        self._tracer = None
        if provider is not None:
            provider.id_generator = _Ids(provider)  # type: ignore[assignment]  # its base class is the SDK's
            self._tracer = provider.get_tracer("integration-hub")
        sampler = os.environ.get("OTEL_TRACES_SAMPLER", "parentbased_always_on")
        self._leaves_out_unsampled = sampler.startswith("parentbased")

    @classmethod
    def from_environment(cls, service: str) -> "Tracing":
        """Build by the standard OTEL variables; the exporter is imported only when it is wanted."""
        is_off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        is_elsewhere = os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
        if is_off or is_elsewhere or not any(map(os.environ.get, _ENDPOINTS)):
            return cls()
        protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), "grpc")
        if protocol != "grpc":
            log.warning("Traces are sent over gRPC, whatever protocol is asked for", protocol=protocol)
        from chassis.span_export import make_provider  # its imports are paid for only when they are used

        return cls(make_provider(os.environ.get("OTEL_SERVICE_NAME") or f"hub-{service}"))

    @property
    def enabled(self) -> bool:
        """Whether spans are recorded at all."""
        return self._tracer is not None

    def records(self, traceparent: str) -> bool:
        """Whether a span under this context would be recorded."""
        return self._tracer is not None and not (traceparent.endswith(_NOT_SAMPLED) and self._leaves_out_unsampled)

    def begin(
        self,
        name: str,
        traceparent: str,
        kind: SpanKind = SpanKind.INTERNAL,
        *,
        span_id: int | None = None,
        started_ns: int | None = None,
        follows: Sequence[str] = (),
        attributes: Mapping[str, str | int] | None = None,
    ) -> OpenSpan | None:
        """Begin a span under `traceparent`, for the caller to end; None when it is not recorded.

        `started_ns` is Unix time; `follows` are contexts of earlier work that this repeats. Attributes must hold no
        payload, token or secret.
        """
        if self._tracer is None or not self.records(traceparent):
            return None
        links = [Link(context) for text in follows if (context := _context_of(text)) is not None]
        reset = _next_span_id.set(span_id)
        try:
            span = self._tracer.start_span(
                name, _parent(traceparent), kind, attributes, links, started_ns, record_exception=False
            )
        finally:
            _next_span_id.reset(reset)
        return OpenSpan(span)

    def span(
        self,
        name: str,
        traceparent: str,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, str | int] | None = None,
    ) -> AbstractContextManager[str]:
        """Open a span for a `with`; gives the traceparent for what happens inside."""
        if self._tracer is None:
            return nullcontext(traceparent)
        return within(self.begin(name, traceparent, kind, attributes=attributes), traceparent)

    def record(
        self,
        name: str,
        traceparent: str,
        started_ns: int,
        *,
        attributes: Mapping[str, str | int] | None = None,
    ) -> str:
        """Record what has just ended and began at `started_ns`, Unix time; gives the context of its span."""
        if self._tracer is None:
            return traceparent
        span = self.begin(name, traceparent, started_ns=started_ns, attributes=attributes)
        if span is None:
            return traceparent
        span.end()
        return span.traceparent

    async def start(self) -> None:
        """Do nothing: spans are made on demand."""

    async def stop(self) -> None:
        """Send what is left; bounded by the exporter's own time-out."""
        if self._provider is not None:
            await asyncio.to_thread(self._provider.shutdown)


def within(span: OpenSpan | None, traceparent: str) -> AbstractContextManager[str]:
    """End `span` with a `with`, as failed when that is left by an error; gives its context, else `traceparent`."""
    return nullcontext(traceparent) if span is None else _ending(span)


def trace_fields(traceparent: str) -> dict[str, str]:
    """The fields that join a log line with its span; none when nobody traces."""
    return {"trace_id": traceparent[3:35], "span_id": traceparent[36:52]} if traceparent else {}


def processing_span_id(integration_request_id: str, lease_token: int) -> int:
    """The id of the span in which the holder of that lease works on the request."""
    digest = hashlib.blake2b(f"{integration_request_id}/{lease_token}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


def processing_traceparent(traceparent: str, integration_request_id: str, lease_token: int) -> str:
    """The context of that span, in the trace that the request was accepted in.

    Where nobody records the trace there is no such span: then it is the context that came in, or empty.
    """
    if not traceparent or traceparent.endswith(_NOT_SAMPLED):
        return traceparent
    return f"{traceparent[:36]}{processing_span_id(integration_request_id, lease_token):016x}{traceparent[52:]}"


def now_ns() -> int:
    """Unix time in nanoseconds, as spans count it."""
    return time.time_ns()


@contextmanager
def _ending(span: OpenSpan) -> Iterator[str]:
    try:
        yield span.traceparent
    except BaseException as error:
        span.fail(type(error).__name__)
        raise
    finally:
        span.end()


def _parent(traceparent: str) -> Context:
    context = _context_of(traceparent)
    return Context() if context is None else trace.set_span_in_context(NonRecordingSpan(context), Context())


def _context_of(traceparent: str) -> SpanContext | None:
    if not traceparent:
        return None
    trace_id, span_id, flags = int(traceparent[3:35], 16), int(traceparent[36:52], 16), int(traceparent[53:], 16)
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return context if context.is_valid else None
