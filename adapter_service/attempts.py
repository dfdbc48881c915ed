"""One call to an external system, whole: deadline, span, metric, log, and an outcome whatever happens.

Nothing but a cancellation gets past this file: what an adapter raises becomes an outcome here.
"""

import asyncio
import re
import time
from functools import cache
from typing import Generic, TypeVar

import msgspec
from opentelemetry.trace import SpanKind
from prometheus_client import Counter, Histogram

from adapter_service.auth import CredentialsRefused
from adapter_service.delivery import Delivery, Question
from adapter_service.outcome import (
    Delivered,
    DeliverOutcome,
    Found,
    LookupOutcome,
    NotKnown,
    Unavailable,
    Unknown,
    Unsupported,
)
from adapter_service.registry import ExternalSystem
from chassis.http_client import NoAnswer, NotSent
from chassis.logs import bind, get_logger
from chassis.telemetry import Telemetry
from chassis.tracing import OpenSpan, Tracing, trace_fields, within

log = get_logger()

MAX_LOOKUP_SECONDS = 10.0
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NOT_WORD = re.compile(r"[^A-Za-z0-9]+")
_GOOD = (Delivered, Found)
Outcome = TypeVar("Outcome")


class Attempt(msgspec.Struct, Generic[Outcome], frozen=True, kw_only=True):
    """What came of a call, and how long it took."""

    outcome: Outcome
    seconds: float


class Attempts:
    """Makes calls and records them; each in a task of its own, which logs as that request's from then on."""

    def __init__(self, telemetry: Telemetry, tracing: Tracing) -> None:
        self._duration = telemetry.histogram("external_system_call_duration_ms")
        self._calls = telemetry.counter("external_system_calls_total")
        self._duplicates = telemetry.counter("duplicates_in_target_total")
        #: By system, operation and outcome: finding a series takes longer than adding to it.
        self._series: dict[tuple[str, str, str], tuple[Histogram, Counter]] = {}
        self._tracing = tracing

    async def deliver(self, system: ExternalSystem, delivery: Delivery) -> Attempt[DeliverOutcome]:
        """Post a document once. The target's timeout covers everything, a token's renewal included."""
        span = self._begin(system, delivery)
        with within(span, delivery.traceparent) as inside:
            _bind(delivery, inside)
            started, deadline = time.perf_counter(), _from_now(system.target.timeout_seconds)
            if span is not None:
                delivery = msgspec.structs.replace(delivery, traceparent=inside)
            outcome = await _deliver(system, delivery, deadline)
            attempt = Attempt(outcome=outcome, seconds=time.perf_counter() - started)
            self._record("deliver", system, attempt, span)
            self._report_duplicates(system, delivery, outcome)
        return attempt

    async def lookup(self, system: ExternalSystem, question: Question) -> Attempt[LookupOutcome]:
        """Ask a system once, within the target's timeout or MAX_LOOKUP_SECONDS, whichever is less."""
        if not system.adapter.supports_lookup:
            return Attempt(outcome=Unsupported(), seconds=0.0)
        span = self._begin(system, question)
        with within(span, question.traceparent) as inside:
            _bind(question, inside)
            started = time.perf_counter()
            deadline = _from_now(min(system.target.timeout_seconds, MAX_LOOKUP_SECONDS))
            if span is not None:
                question = msgspec.structs.replace(question, traceparent=inside)
            outcome = await _lookup(system, question, deadline)
            attempt = Attempt(outcome=outcome, seconds=time.perf_counter() - started)
            self._record("lookup", system, attempt, span)
            self._report_duplicates(system, question, outcome)
        return attempt

    def _begin(self, system: ExternalSystem, question: Question) -> OpenSpan | None:
        return self._tracing.begin(span_name(system.target.name), question.traceparent, SpanKind.CLIENT)

    def _record(
        self,
        operation: str,
        system: ExternalSystem,
        attempt: Attempt[DeliverOutcome] | Attempt[LookupOutcome],
        span: OpenSpan | None,
    ) -> None:
        name, outcome = system.target.name, type(attempt.outcome).__name__
        duration_ms = attempt.seconds * 1000
        durations, calls = self._series.get((name, operation, outcome)) or self._find(name, operation, outcome)
        durations.observe(duration_ms)
        calls.inc()
        went_well = isinstance(attempt.outcome, _GOOD)
        if span is not None and not went_well:
            span.fail(outcome)
        (log.info if went_well else log.warning)(
            "External system called",
            operation=operation,
            system=name,
            url=system.adapter.url,
            duration_ms=round(duration_ms, 3),
            outcome=outcome,
            code=getattr(attempt.outcome, "code", ""),
        )

    def _report_duplicates(
        self, system: ExternalSystem, question: Question, outcome: DeliverOutcome | LookupOutcome
    ) -> None:
        """Say that the system holds a request more than once. Which of them is one too many is for people to decide."""
        if not isinstance(outcome, _GOOD) or outcome.hits < 2:
            return
        name = system.target.name
        self._duplicates.labels(target=name).inc()
        log.error("Duplicate in target", system=name, external_id=question.external_id, hits=outcome.hits)

    def _find(self, name: str, operation: str, outcome: str) -> tuple[Histogram, Counter]:
        calls = self._calls.labels(system=name, operation=operation, outcome=outcome)
        series = self._series[name, operation, outcome] = self._duration.labels(system=name), calls
        return series


def _bind(question: Question, inside: str) -> None:
    """Log all from here on as this request's, whatever batch it came in."""
    bind(correlation_id=question.correlation_id, request_id=question.request_id, **trace_fields(inside))


def _from_now(seconds: float) -> float:
    """A deadline by the loop's clock; uvloop's counts whole milliseconds, so durations are taken by another."""
    return asyncio.get_running_loop().time() + seconds


@cache
def span_name(target: str) -> str:
    """`http.external.` and the target's name in snake case: TotvsProtheus gives totvs_protheus."""
    return "http.external." + _NOT_WORD.sub("_", _WORD_START.sub("_", target)).lower()


async def _deliver(system: ExternalSystem, delivery: Delivery, deadline: float) -> DeliverOutcome:
    try:
        return await system.adapter.deliver(delivery, deadline)
    except CredentialsRefused as error:
        return Unavailable(
            detail=error.detail,
            code=error.code,
            retry_after_seconds=error.retry_after_seconds,
            credentials_refused=True,
        )
    except NotSent as error:
        return Unavailable(detail=error.detail, retry_after_seconds=error.retry_after_seconds)
    except NoAnswer as error:
        return Unknown(detail=error.detail, timed_out=error.timed_out)
    except Exception:  # a bug in an adapter must not pass for "nothing was sent"
        log.exception("Adapter failed", system=system.target.name)
        return Unknown(detail="the adapter failed; the log says why")


async def _lookup(system: ExternalSystem, question: Question, deadline: float) -> LookupOutcome:
    try:
        return await system.adapter.lookup(question, deadline)
    except CredentialsRefused as error:
        return NotKnown(
            detail=error.detail,
            code=error.code,
            retry_after_seconds=error.retry_after_seconds,
            credentials_refused=True,
        )
    except NotSent as error:
        return NotKnown(detail=error.detail, retry_after_seconds=error.retry_after_seconds)
    except NoAnswer as error:
        return NotKnown(detail=error.detail)
    except Exception:  # the same
        log.exception("Adapter failed", system=system.target.name)
        return NotKnown(detail="the adapter failed; the log says why")
