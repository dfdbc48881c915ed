"""The story of one leased request, from its claim to its next report. What follows from an answer is in retry.py.

Each step looks at the work and either ends the story with a conclusion, which is reported, or lets it go on.
Nothing is posted before intake has committed `Sending`; every wait is intake's, never a sleeping task here.

Journey 3/5. Before: intake_service/commands.py. After: adapter_service/servicer.py.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping
from typing import assert_never

import msgspec
from google.protobuf.duration_pb2 import Duration
from opentelemetry.trace import SpanKind

from chassis.errors import HubError, OutcomeNotKnown, Unavailable
from chassis.logs import bind, get_logger
from chassis.targets import Target
from chassis.telemetry import LabelValues, Telemetry
from chassis.tracing import OpenSpan, Tracing, processing_span_id, trace_fields, within
from integrationhub.intake.v1 import lifecycle_pb2
from integrationhub.intake.v1.lifecycle_pb2 import Lease, Report, ReportStatus
from orchestrator_service import mapping, retry
from orchestrator_service.capacity import Place
from orchestrator_service.clients import AdapterClient, IntakeClient, NotDelivered
from orchestrator_service.retry import (
    Attempt,
    Completed,
    Decision,
    Failed,
    FailureReason,
    InDoubt,
    Lookup,
    LookupOutcome,
    Outcome,
    Policy,
    Progress,
    Release,
    Retry,
)
from orchestrator_service.validation import PayloadSchema

log = get_logger()

#: The adapter keeps the target's time-out itself; this much later its answer is taken for lost. Below the 15 s that
#: intake leaves a lease after an attempt's time-out, so that the loss can still be reported.
ANSWER_MARGIN_SECONDS = 10.0
#: A lookup ends within the 75 s that a lease lasts.
LOOKUP_CEILING_SECONDS = 50.0
HUB_TROUBLE_SECONDS = 2.0
#: From the announcement of a post to its first byte; with the time that a slow system takes beyond its time-out it
#: must fit into the 5 s after which a lookup is a proof.
ANNOUNCEMENT_SECONDS = 2.0
#: After a fault of our own, that others may see to it.
FAULT_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
MAX_DETAIL = 1000


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """How a lease came to this worker."""

    #: Trace context of the stream entry that named the request.
    rung_by: str = ""
    #: When it was asked for, in Unix time.
    begun_ns: int | None = None
    #: Before intake began to grant it, on the clock that only rises.
    begun_at: float = -math.inf
    #: The post in doubt was announced with a lease whose answer this worker never got: it has not made it.
    is_unheard: bool = False


_UNKNOWN = Origin()


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One leased request with what its steps need."""

    lease: Lease
    place: Place
    origin: Origin
    target: Target
    policy: Policy
    progress: Progress
    #: Trace context of this processing, for the calls made in it.
    traceparent: str


class Conclusion(msgspec.Struct, frozen=True, kw_only=True):
    """How the story ends: a decision to report, or None when another worker has the request."""

    decision: Decision | None
    call: mapping.Call | None = None


class Processor:
    """Takes leased requests through the steps."""

    def __init__(
        self,
        *,
        targets: Mapping[str, Target],
        schemas: Mapping[tuple[str, str], PayloadSchema],
        intake: IntakeClient,
        adapter: AdapterClient,
        telemetry: Telemetry,
        tracing: Tracing,
        chance: Callable[[], float] = random.random,
        announcement_seconds: float = ANNOUNCEMENT_SECONDS,
    ) -> None:
        self._policies = {name: mapping.policy_of(target) for name, target in targets.items()}
        self._schemas = schemas
        self._intake = intake
        self._adapter = adapter
        self._tracing = tracing
        self._chance = chance
        self._announcement_seconds = announcement_seconds
        self._active = 0
        telemetry.watch("worker_active_tasks", lambda: self._active)
        self._invalid = telemetry.counter("integration_validation_failures_total")
        #: A schema that refers to itself has paths without end.
        self._fields = LabelValues()
        self._retries = telemetry.counter("delivery_retries_total")
        required = {self._fields.bound(field) for schema in schemas.values() for field in sorted(schema.required)}
        telemetry.start_at_zero("integration_validation_failures_total", [{"field": field} for field in required])
        repeated = ("UNAVAILABLE", "THROTTLED", "UNKNOWN", "ABSENT")
        telemetry.start_at_zero(
            "delivery_retries_total", [{"target": name, "outcome": outcome} for name in targets for outcome in repeated]
        )

    async def process(self, lease: Lease, place: Place, target: Target, origin: Origin = _UNKNOWN) -> bool:
        """Take one request that was read from `target`'s stream to its next report.

        Returns whether that was recorded, so that the lease is no longer this worker's. In a task of its own: its log
        fields are bound for good.
        """
        integration_request = lease.integration_request
        span = self._begin_span(lease, origin) if self._tracing.records(lease.traceparent) else None
        with within(span, lease.traceparent) as traceparent:
            bind(
                correlation_id=integration_request.correlation_id,
                request_id=integration_request.id,
                partner_id=integration_request.partner_id,
                **trace_fields(traceparent),
            )
            self._active += 1
            try:
                log.info("Worker processing integration", system=target.name)
                work = Work(
                    lease=lease,
                    place=place,
                    origin=origin,
                    target=target,
                    policy=self._policies[target.name],
                    progress=mapping.progress_of(lease),
                    traceparent=traceparent,
                )
                return await self._report(work, await self._conclude(work))
            finally:
                self._active -= 1

    def _begin_span(self, lease: Lease, origin: Origin) -> OpenSpan | None:
        integration_request = lease.integration_request
        return self._tracing.begin(
            "worker.process_integration",
            mapping.parent_context(lease, origin.rung_by),
            SpanKind.CONSUMER,
            span_id=processing_span_id(integration_request.id, lease.token),
            started_ns=origin.begun_ns,
            follows=mapping.earlier_contexts(lease),
            attributes={
                "request_id": integration_request.id,
                "correlation_id": integration_request.correlation_id,
                "target": integration_request.target_system,
            },
        )

    async def _conclude(self, work: Work) -> Conclusion:
        try:
            return (
                self._redirect(work)
                or self._disown(work)
                or await self._settle_doubt(work)
                or self._end_expired(work)
                or self._end_invalid(work)
                or await self._give_way(work)
                or await self._find_adapter(work)
                or await self._announce(work)
                or await self._deliver(work)
            )
        except Exception:  # a fault of ours must neither lose the request nor be repeated at once
            log.exception("Error processing integration request")
            return Conclusion(decision=Release(delay_seconds=FAULT_SECONDS))

    def _redirect(self, work: Work) -> Conclusion | None:
        """Hand back what was rung in another target's stream; intake rings it in its own."""
        is_at_home = work.lease.integration_request.target_system == work.target.name
        return None if is_at_home else Conclusion(decision=_hand_back(work, 0))

    def _disown(self, work: Work) -> Conclusion | None:
        """Take back the post that was announced to this worker in an answer that it never got."""
        return Conclusion(decision=_take_back(0)) if work.origin.is_unheard else None

    async def _settle_doubt(self, work: Work) -> Conclusion | None:
        """Ask the target for what may have been posted, unless it may simply be posted again with the same key."""
        if not work.lease.in_doubt:
            return None
        if retry.may_post_again(work.progress, work.policy) and not work.progress.has_expired:
            return None
        try:
            lookup, duration = await self._look_up(work)
        except HubError as error:
            log.warning("Lookup was not made", reason=error.reason)
            again = InDoubt(delay_seconds=HUB_TROUBLE_SECONDS, lookup_made=False, timed_out=work.progress.timed_out)
            return Conclusion(decision=again)
        decision = retry.after_lookup(lookup, work.progress, work.policy)
        return Conclusion(decision=decision, call=mapping.lookup_record(lookup, duration))

    async def _look_up(self, work: Work) -> tuple[Lookup, Duration]:
        """Raises: HubError when the adapter could not be asked."""
        if not await work.place.turn():
            raise Unavailable("The target's other calls take too long.")
        started = time.perf_counter()
        work.place.call()
        try:
            response = await self._adapter.lookup(
                mapping.lookup_request(work.lease, work.traceparent),
                timeout_seconds=min(work.target.timeout_seconds + ANSWER_MARGIN_SECONDS, LOOKUP_CEILING_SECONDS),
            )
        except OutcomeNotKnown:
            lookup = Lookup(outcome=LookupOutcome.NOT_KNOWN, detail="The lookup took too long.")
            return lookup, mapping.seconds(time.perf_counter() - started)
        finally:
            work.place.answered()
        lookup = mapping.lookup_of(response)
        work.place.leave_alone(lookup.retry_after_seconds)
        return lookup, response.duration

    def _end_expired(self, work: Work) -> Conclusion | None:
        return Conclusion(decision=retry.expired()) if work.progress.has_expired else None

    def _end_invalid(self, work: Work) -> Conclusion | None:
        """Check the payload by the schema of its target and source; one in doubt was valid when it was posted.

        What a partner sent wrong is the partner's to send anew; what an operator redrove must come back to one.
        """
        integration_request = work.lease.integration_request
        schema = self._schemas.get((integration_request.target_system, integration_request.source_system))
        if schema is None or work.lease.in_doubt:
            return None
        findings = schema.check(integration_request.payload_json)
        if not findings:
            return None
        for finding in findings:
            log.warning("Validation failed", field=finding.field)
            self._invalid.labels(field=self._fields.bound(finding.field)).inc()
        log.warning("Payload validation failed", field=findings[0].field)
        detail = "; ".join(f"{finding.field}: {finding.detail}" for finding in findings)[:MAX_DETAIL]
        reason = FailureReason.VALIDATION_FAILED
        return Conclusion(decision=Failed(reason=reason, detail=detail, dead_letter=work.lease.cycle > 1))

    async def _give_way(self, work: Work) -> Conclusion | None:
        """Wait for its turn; hand back what has met a target that closed or slowed down, or a worker that drains."""
        has_turn = await work.place.turn()
        delay_seconds = work.place.refusal() if has_turn else HUB_TROUBLE_SECONDS
        return None if delay_seconds is None else Conclusion(decision=_hand_back(work, delay_seconds))

    async def _find_adapter(self, work: Work) -> Conclusion | None:
        """Hand back while the adapter is away: no attempt is spent on our own trouble."""
        if await self._adapter.reachable():
            return None
        return Conclusion(decision=_hand_back(work, HUB_TROUBLE_SECONDS))

    async def _announce(self, work: Work) -> Conclusion | None:
        """Have `Sending` committed, unless the claim did; a lease that is no longer ours ends before the first byte.

        An announcement that took long is taken back: whoever has to decide later by the time it names would err.
        """
        begun_at = work.origin.begun_at
        if not work.lease.announced:
            begun_at = time.monotonic()
            status = await self._tell(mapping.sending_report(work.lease, work.target.timeout_seconds))
            if status != lifecycle_pb2.REPORT_STATUS_ACCEPTED:
                return Conclusion(decision=None)
        if time.monotonic() - begun_at > self._announcement_seconds:
            log.warning("Announcement took too long and is taken back")
            return Conclusion(decision=_take_back(HUB_TROUBLE_SECONDS, still_in_doubt=work.lease.in_doubt))
        return None

    async def _deliver(self, work: Work) -> Conclusion:
        """Post, and decide by the answer; an answer that our own hop lost leaves the outcome unknown."""
        started = time.perf_counter()
        work.place.call(len(work.lease.integration_request.payload_json))
        try:
            response = await self._adapter.deliver(
                mapping.deliver_request(work.lease, work.traceparent),
                timeout_seconds=work.target.timeout_seconds + ANSWER_MARGIN_SECONDS,
            )
        except NotDelivered as error:
            log.warning("Adapter did not take the delivery", reason=error.reason)
            work.place.refused(HUB_TROUBLE_SECONDS if error.concerns_all else 0.0)
            return Conclusion(decision=_take_back(HUB_TROUBLE_SECONDS, still_in_doubt=work.lease.in_doubt))
        except HubError as error:
            log.warning("Adapter's answer was lost", reason=error.reason)
            attempt = Attempt(outcome=Outcome.UNKNOWN, detail="The adapter's answer was lost.")
            duration = mapping.seconds(time.perf_counter() - started)
        else:
            attempt = mapping.attempt_of(response)
            duration = response.duration
            work.place.record(attempt.outcome, attempt.retry_after_seconds)
        finally:
            work.place.answered()
        decision = retry.after_attempt(attempt, work.progress, work.policy, chance=self._chance())
        return Conclusion(decision=decision, call=mapping.attempt_record(attempt, duration))

    async def _report(self, work: Work, conclusion: Conclusion) -> bool:
        if conclusion.decision is None:
            return False
        status = await self._tell(mapping.decision_report(work.lease, conclusion.decision, conclusion.call))
        if status != lifecycle_pb2.REPORT_STATUS_ACCEPTED:
            _say_refused(work.target.name, conclusion.decision, conclusion.call)
            return False
        if isinstance(conclusion.decision, Retry):
            outcome = conclusion.call.outcome if conclusion.call is not None else ""
            self._retries.labels(target=work.target.name, outcome=outcome).inc()
        _say(work.target.name, conclusion.decision, conclusion.call)
        return True

    async def _tell(self, report: Report) -> ReportStatus.ValueType:
        """Report until intake has answered: an outcome is never dropped while this worker lives."""
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._intake.report(report)
            except HubError as error:
                if pause_seconds == FIRST_PAUSE_SECONDS:
                    log.warning("Report waits for intake", reason=error.reason)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, LONGEST_PAUSE_SECONDS)


def _hand_back(work: Work, delay_seconds: float) -> Release:
    """Give the lease back before the post, and undo what the claim has announced."""
    return _take_back(delay_seconds) if work.lease.announced else Release(delay_seconds=delay_seconds)


def _take_back(delay_seconds: float, *, still_in_doubt: bool = False) -> Release:
    """Undo the announcement; an earlier post that is in doubt stays so, whatever became of this one."""
    return Release(delay_seconds=delay_seconds, not_sent=True, still_in_doubt=still_in_doubt)


def _say_refused(system: str, decision: Decision, call: mapping.Call | None) -> None:
    """Log what intake did not take: the request has ended, another worker has it, or the report was on record already.

    Intake does not say which. The external system's answer stays out of it: it may hold the document.
    """
    outcome = call.outcome if call is not None else ""
    log.warning("Report was refused", system=system, step=type(decision).__name__, outcome=outcome)


def _say(system: str, decision: Decision, call: mapping.Call | None) -> None:
    """Log the decision; the texts of the seed's events are the seed's."""
    match decision:
        case Completed():
            log.info("Integration completed successfully", system=system)
        case Retry() if call is not None and call.outcome in (Outcome.UNAVAILABLE, Outcome.THROTTLED):
            log.warning("External system unavailable, will retry", system=system, delay_seconds=decision.delay_seconds)
        case Retry():
            log.warning("Request will be posted again", system=system, delay_seconds=decision.delay_seconds)
        case InDoubt():
            log.warning("Outcome not known, will be looked up", system=system, delay_seconds=decision.delay_seconds)
        case Release():
            log.info("Request handed back", system=system, delay_seconds=decision.delay_seconds)
        case Failed(reason=FailureReason.EXTERNAL_UNAVAILABLE):
            log.error("Max retries exceeded", system=system)
        case Failed(reason=FailureReason.VALIDATION_FAILED):
            pass  # said with its fields where it was found
        case Failed():
            log.error("Integration failed", system=system, reason=decision.reason)
        case _:
            assert_never(decision)
