"""Between the wire's messages and the pure values of retry.py. No decision is made here."""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple, assert_never

from google.protobuf.duration_pb2 import Duration

from chassis.clock import from_timestamp
from chassis.targets import Target
from chassis.tracing import processing_traceparent
from integrationhub.adapter.v1 import adapter_pb2
from integrationhub.adapter.v1.adapter_pb2 import DeliverRequest, DeliverResponse, LookupRequest, LookupResponse
from integrationhub.intake.v1 import lifecycle_pb2
from integrationhub.intake.v1.lifecycle_pb2 import Announcement, CallRecord, Lease, Report, Sending
from orchestrator_service.retry import (
    Attempt,
    Completed,
    Decision,
    Failed,
    InDoubt,
    Lookup,
    LookupOutcome,
    Outcome,
    Policy,
    Progress,
    Release,
    Retry,
)

#: An outcome that is not in these tables was made by a newer adapter: it is not known here, so never a success.
_OUTCOMES: Mapping[int, Outcome] = {
    adapter_pb2.OUTCOME_DELIVERED: Outcome.DELIVERED,
    adapter_pb2.OUTCOME_REJECTED: Outcome.REJECTED,
    adapter_pb2.OUTCOME_UNAVAILABLE: Outcome.UNAVAILABLE,
    adapter_pb2.OUTCOME_THROTTLED: Outcome.THROTTLED,
    adapter_pb2.OUTCOME_UNKNOWN: Outcome.UNKNOWN,
}
_LOOKUP_OUTCOMES: Mapping[int, LookupOutcome] = {
    adapter_pb2.LOOKUP_OUTCOME_FOUND: LookupOutcome.FOUND,
    adapter_pb2.LOOKUP_OUTCOME_ABSENT: LookupOutcome.ABSENT,
    adapter_pb2.LOOKUP_OUTCOME_NOT_KNOWN: LookupOutcome.NOT_KNOWN,
    adapter_pb2.LOOKUP_OUTCOME_UNSUPPORTED: LookupOutcome.UNSUPPORTED,
}


class Call(NamedTuple):
    """A call to the external system as the history keeps it."""

    kind: str
    outcome: str
    detail: str
    duration: Duration
    response_json: str


def policy_of(target: Target) -> Policy:
    """The part of a target that decisions need."""
    return Policy(
        retry_delays=target.retry_delays,
        idempotent=target.idempotent,
        retries_timeouts=target.on_timeout == "retry",
        timeout_seconds=target.timeout_seconds,
    )


def announcement_of(target: Target) -> Announcement:
    """What follows at once when a request of this target is leased and no schema is there to check it by."""
    return Announcement(
        target_system=target.name, timeout=seconds(target.timeout_seconds), checked_sources=sorted(target.schemas)
    )


def progress_of(lease: Lease) -> Progress:
    """How far the request has come."""
    return Progress(
        retries=lease.retries,
        lookups=lease.lookups,
        in_doubt=lease.in_doubt,
        timed_out=lease.timed_out,
        sent_at=from_timestamp(lease.sent_at),
        claimed_at=from_timestamp(lease.claimed_at),
        expires_at=from_timestamp(lease.expires_at),
    )


def parent_context(lease: Lease, rung_by: str) -> str:
    """The context to work in: the publication's if it is of the request's own trace (anybody may write to a stream)."""
    return rung_by if rung_by and rung_by[:36] == lease.traceparent[:36] else lease.traceparent


def earlier_contexts(lease: Lease) -> list[str]:
    """The contexts of the processing that this one repeats; a redrive has raised the token once more."""
    integration_request_id = lease.integration_request.id
    earlier = [lease.token - 1] + ([lease.token - 2] if lease.cycle > 1 else [])
    return [
        processing_traceparent(lease.traceparent, integration_request_id, token)
        for token in earlier
        if token > 0 and lease.traceparent
    ]


def deliver_request(lease: Lease, traceparent: str) -> DeliverRequest:
    """The attempt to make for a lease."""
    integration_request = lease.integration_request
    return DeliverRequest(
        integration_request_id=integration_request.id,
        external_id=integration_request.external_id,
        correlation_id=integration_request.correlation_id,
        traceparent=traceparent,
        source_system=integration_request.source_system,
        target_system=integration_request.target_system,
        payload_json=integration_request.payload_json,
        attempt=integration_request.attempts + (not lease.announced),
    )


def lookup_request(lease: Lease, traceparent: str) -> LookupRequest:
    """The question to ask for a lease in doubt."""
    integration_request = lease.integration_request
    return LookupRequest(
        integration_request_id=integration_request.id,
        external_id=integration_request.external_id,
        correlation_id=integration_request.correlation_id,
        traceparent=traceparent,
        target_system=integration_request.target_system,
    )


def attempt_of(response: DeliverResponse) -> Attempt:
    """What was heard of an attempt."""
    return Attempt(
        outcome=_OUTCOMES.get(response.outcome, Outcome.UNKNOWN),
        code=response.code,
        detail=response.detail,
        response_json=response.response_json,
        retry_after_seconds=_in_seconds(response.retry_after) if response.HasField("retry_after") else 0.0,
        timed_out=response.timed_out,
        credentials_refused=response.credentials_refused,
        seconds=_in_seconds(response.duration),
    )


def lookup_of(response: LookupResponse) -> Lookup:
    """What was heard of a lookup."""
    return Lookup(
        outcome=_LOOKUP_OUTCOMES.get(response.outcome, LookupOutcome.NOT_KNOWN),
        detail=response.detail,
        response_json=response.response_json,
        retry_after_seconds=_in_seconds(response.retry_after) if response.HasField("retry_after") else 0.0,
        credentials_refused=response.credentials_refused,
    )


def attempt_record(attempt: Attempt, duration: Duration) -> Call:
    """The attempt as the history keeps it."""
    return Call("attempt", attempt.outcome, attempt.said, duration, attempt.response_json)


def lookup_record(lookup: Lookup, duration: Duration) -> Call:
    """The lookup as the history keeps it."""
    return Call("lookup", lookup.outcome, lookup.detail, duration, lookup.response_json)


def sending_report(lease: Lease, timeout_seconds: float) -> Report:
    """Announce the post that comes next."""
    report = _report(lease)
    report.sending.CopyFrom(_sending(timeout_seconds))
    return report


def decision_report(lease: Lease, decision: Decision, call: Call | None) -> Report:
    """Say what was decided, and after which call."""
    report = _report(lease)
    if call is not None:
        _write_call(report.call, call)
    match decision:
        case Completed():
            report.completed.external_response_json = decision.external_response_json
        case Failed():
            report.failed.reason = decision.reason
            report.failed.detail = decision.detail
            report.failed.dead_letter = decision.dead_letter
        case Retry():
            report.retry.delay.CopyFrom(seconds(decision.delay_seconds))
            report.retry.spends_retry = True
            report.retry.still_in_doubt = decision.still_in_doubt
        case InDoubt():
            report.in_doubt.delay.CopyFrom(seconds(decision.delay_seconds))
            report.in_doubt.lookup_made = decision.lookup_made
            report.in_doubt.timed_out = decision.timed_out
            if decision.since_sent_seconds is not None:
                report.in_doubt.since_sent.CopyFrom(seconds(decision.since_sent_seconds))
        case Release():
            report.release.delay.CopyFrom(seconds(decision.delay_seconds))
            report.release.not_sent = decision.not_sent
            report.release.still_in_doubt = decision.still_in_doubt
        case _:
            assert_never(decision)
    return report


def seconds(span: float) -> Duration:
    """A span as its message."""
    whole, micros = divmod(round(span * 1e6), 1_000_000)
    return Duration(seconds=whole, nanos=micros * 1000)


@cache
def _sending(timeout_seconds: float) -> Sending:
    """Made once for each target: it is only copied."""
    return Sending(timeout=seconds(timeout_seconds))


def _in_seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _write_call(record: CallRecord, call: Call) -> None:
    record.kind = call.kind
    record.outcome = call.outcome
    record.detail = call.detail
    record.duration.CopyFrom(call.duration)
    record.response = call.response_json


def _report(lease: Lease) -> Report:
    return lifecycle_pb2.Report(integration_request_id=lease.integration_request.id, token=lease.token)
