"""One call, whole: whatever an adapter does, there is an outcome, a span and a measurement."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from adapter_service.adapters.base import settle_conflict
from adapter_service.attempts import MAX_LOOKUP_SECONDS, Attempts
from adapter_service.auth import FixedHeader
from adapter_service.calls import TargetCalls
from adapter_service.delivery import Delivery, Question
from adapter_service.outcome import (
    Delivered,
    DeliverOutcome,
    Found,
    LookupOutcome,
    NotKnown,
    Rejected,
    Unavailable,
    Unknown,
    Unsupported,
)
from adapter_service.registry import ExternalSystem
from chassis.http_client import HttpClient, NoAnswer, NotSent
from chassis.logs import add_bound_fields
from chassis.targets import Target
from chassis.telemetry import Telemetry
from chassis.tracing import Tracing

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DELIVERY = Delivery(
    request_id="id-1",
    external_id="e-1",
    correlation_id="c-1",
    traceparent=TRACEPARENT,
    source_system="SAP",
    document={},
    attempt=1,
)


class ScriptedAdapter:
    """Does what the test says."""

    url = "http://127.0.0.1:1/orders"

    def __init__(self, act: Callable[[], Awaitable[None]], *, supports_lookup: bool = True, hits: int = 1) -> None:
        self.supports_lookup = supports_lookup
        self._hits = hits
        self.asked: list[Question] = []
        self.deadlines: list[float] = []
        self._act = act

    async def deliver(self, delivery: Delivery, deadline: float) -> DeliverOutcome:
        self._note(delivery, deadline)
        await self._act()
        return Delivered(response_json="{}")

    async def lookup(self, question: Question, deadline: float) -> LookupOutcome:
        self._note(question, deadline)
        await self._act()
        return Found(response_json="{}", hits=self._hits)

    def _note(self, question: Question, deadline: float) -> None:
        self.asked.append(question)
        self.deadlines.append(deadline - asyncio.get_running_loop().time())


async def nothing() -> None:
    """Go well."""


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def act() -> None:
        raise error

    return act


def system_of(adapter: ScriptedAdapter, *, timeout_seconds: float = 60) -> ExternalSystem:
    target = Target(adapter="x", base_url="http://127.0.0.1:1", name="TotvsProtheus", timeout_seconds=timeout_seconds)
    http = HttpClient()
    calls = TargetCalls(target.name, http, FixedHeader(target, Path()))
    return ExternalSystem(target=target, adapter=adapter, calls=calls, http=http)


def attempts(tracing: Tracing | None = None) -> Attempts:
    return Attempts(Telemetry("adapter"), tracing or Tracing())


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotSent("no connection", retry_after_seconds=5), Unavailable(detail="no connection", retry_after_seconds=5)),
        (NoAnswer("no answer", timed_out=True), Unknown(detail="no answer", timed_out=True)),
        (NoAnswer("reset"), Unknown(detail="reset")),
        (ZeroDivisionError(), Unknown(detail="the adapter failed; the log says why")),
    ],
    ids=repr,
)
async def test_what_an_adapter_raises_becomes_an_outcome(error: Exception, outcome: DeliverOutcome) -> None:
    attempt = await attempts().deliver(system_of(ScriptedAdapter(raising(error))), DELIVERY)

    assert attempt.outcome == outcome


@pytest.mark.parametrize("error", [NotSent("x"), NoAnswer("x"), ZeroDivisionError()], ids=repr)
async def test_what_a_lookup_raises_is_not_known(error: Exception) -> None:
    attempt = await attempts().lookup(system_of(ScriptedAdapter(raising(error))), DELIVERY)

    assert type(attempt.outcome) is NotKnown


@pytest.mark.parametrize("error", [NotSent("x"), NoAnswer("x")], ids=repr)
async def test_a_conflict_whose_lookup_fails_is_not_known(error: Exception) -> None:
    refusal = Rejected(code="409", detail="conflict")

    outcome = await settle_conflict(ScriptedAdapter(raising(error)), DELIVERY, refusal, 0.0, idempotent=False)

    assert outcome == Unknown(code="409", detail="conflict")


async def test_a_delivery_has_the_targets_timeout() -> None:
    adapter = ScriptedAdapter(nothing)

    await attempts().deliver(system_of(adapter, timeout_seconds=42), DELIVERY)

    assert adapter.deadlines == [pytest.approx(42, abs=1)]


@pytest.mark.parametrize(("timeout_seconds", "expected"), [(60, MAX_LOOKUP_SECONDS), (3, 3)])
async def test_a_lookup_has_the_shorter_of_both_timeouts(timeout_seconds: float, expected: float) -> None:
    adapter = ScriptedAdapter(nothing)

    await attempts().lookup(system_of(adapter, timeout_seconds=timeout_seconds), DELIVERY)

    assert adapter.deadlines == [pytest.approx(expected, abs=1)]


async def test_a_target_that_cannot_be_asked_is_not_called() -> None:
    adapter = ScriptedAdapter(nothing, supports_lookup=False)

    attempt = await attempts().lookup(system_of(adapter), DELIVERY)

    assert (attempt.outcome, adapter.asked) == (Unsupported(), [])


async def test_a_cancelled_delivery_has_no_outcome() -> None:
    never = asyncio.Event()

    async def wait() -> None:
        await never.wait()

    task = asyncio.create_task(attempts().deliver(system_of(ScriptedAdapter(wait)), DELIVERY))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_call_carries_its_own_span() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    adapter = ScriptedAdapter(nothing)

    await attempts(Tracing(provider)).deliver(system_of(adapter), DELIVERY)

    (span,) = exporter.get_finished_spans()
    context = span.get_span_context()
    assert context is not None
    assert span.name == "http.external.totvs_protheus"
    assert f"{context.trace_id:032x}" == TRACEPARENT[3:35]
    assert adapter.asked[0].traceparent == f"00-{context.trace_id:032x}-{context.span_id:016x}-01"


async def test_a_call_is_measured() -> None:
    telemetry = Telemetry("adapter")

    await Attempts(telemetry, Tracing()).deliver(system_of(ScriptedAdapter(nothing)), DELIVERY)

    labels = {"system": "TotvsProtheus"}
    assert telemetry.registry.get_sample_value("external_system_call_duration_ms_count", labels) == 1


@pytest.mark.parametrize(("hits", "duplicates"), [(1, 0), (2, 1), (3, 1)])
async def test_a_request_that_the_system_holds_twice_is_logged_and_counted(hits: int, duplicates: int) -> None:
    telemetry = Telemetry("adapter")
    with capture_logs([add_bound_fields]) as lines:
        attempt = await Attempts(telemetry, Tracing()).lookup(system_of(ScriptedAdapter(nothing, hits=hits)), DELIVERY)

    assert isinstance(attempt.outcome, Found)
    said = [line for line in lines if line["event"] == "Duplicate in target"]
    assert [(x["log_level"], x["system"], x["request_id"], x["external_id"], x["hits"]) for x in said] == [
        ("error", "TotvsProtheus", "id-1", "e-1", hits)
    ] * duplicates
    counted = telemetry.registry.get_sample_value("duplicates_in_target_total", {"target": "TotvsProtheus"})
    assert (counted or 0) == duplicates


async def test_duplicates_that_a_conflict_brings_to_light_are_counted_too() -> None:
    refusal = Rejected(code="409", detail="conflict")

    class Conflicting(ScriptedAdapter):
        async def deliver(self, delivery: Delivery, deadline: float) -> DeliverOutcome:
            return await settle_conflict(self, delivery, refusal, deadline, idempotent=False)

    telemetry = Telemetry("adapter")
    attempt = await Attempts(telemetry, Tracing()).deliver(system_of(Conflicting(nothing, hits=2)), DELIVERY)

    assert isinstance(attempt.outcome, Delivered)
    assert telemetry.registry.get_sample_value("duplicates_in_target_total", {"target": "TotvsProtheus"}) == 1


def test_a_call_shorter_than_a_millisecond_is_measured_by_what_it_took() -> None:
    async def work() -> None:
        done_at = time.perf_counter() + 0.0002
        while time.perf_counter() < done_at:
            pass

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the services' own loop
        attempt = runner.run(attempts().deliver(system_of(ScriptedAdapter(work)), DELIVERY))

    assert attempt.seconds >= 0.0002
