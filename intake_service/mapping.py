"""Between the stored request and the messages of intake.v1, in this one place."""

from typing import Any

import sqlalchemy as sa
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.access import PartnerLimits
from chassis.clock import SECOND, Micros, from_timestamp, to_timestamp
from chassis.errors import InvalidRequest, Violation
from chassis.ids import parse_id
from chassis.rate_limit import RateStanding
from intake_service import integration_request as flow
from intake_service.integration_request import FailureReason, Status, is_own_doubt
from intake_service.store.changes import Call
from intake_service.store.leases import Announcement, ClaimAnswer, Report
from intake_service.store.rows import StoredRequest
from intake_service.validation import check_filter, prose
from integrationhub.intake.v1 import dead_letters_pb2, intake_pb2, lifecycle_pb2

STATUS_TO_PROTO = {
    Status.RECEIVED: intake_pb2.INTEGRATION_REQUEST_STATUS_RECEIVED,
    Status.PROCESSING: intake_pb2.INTEGRATION_REQUEST_STATUS_PROCESSING,
    Status.WAITING_EXTERNAL: intake_pb2.INTEGRATION_REQUEST_STATUS_WAITING_EXTERNAL,
    Status.COMPLETED: intake_pb2.INTEGRATION_REQUEST_STATUS_COMPLETED,
    Status.FAILED: intake_pb2.INTEGRATION_REQUEST_STATUS_FAILED,
}
NO_STATUS = intake_pb2.INTEGRATION_REQUEST_STATUS_UNSPECIFIED
STATUS_FROM_PROTO = {number: status for status, number in STATUS_TO_PROTO.items()}
STATE_FROM_PROTO = {
    dead_letters_pb2.DEAD_LETTER_STATE_UNSPECIFIED: "",
    dead_letters_pb2.DEAD_LETTER_STATE_OPEN: "open",
    dead_letters_pb2.DEAD_LETTER_STATE_REDRIVEN: "redriven",
    dead_letters_pb2.DEAD_LETTER_STATE_DISCARDED: "discarded",
}
STATE_TO_PROTO = {state: number for number, state in STATE_FROM_PROTO.items()}
#: The ranges of the two protobuf types, which nothing enforces on the wire.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_LONGEST_SECONDS = 315_576_000_000
_CLAIM_STATUS = {
    "granted": lifecycle_pb2.CLAIM_STATUS_GRANTED,
    "not_available": lifecycle_pb2.CLAIM_STATUS_NOT_AVAILABLE,
    "not_found": lifecycle_pb2.CLAIM_STATUS_NOT_FOUND,
    "poisoned": lifecycle_pb2.CLAIM_STATUS_POISONED,
    "busy": lifecycle_pb2.CLAIM_STATUS_BUSY,
}
REPORT_STATUS = {
    "accepted": lifecycle_pb2.REPORT_STATUS_ACCEPTED,
    "stale": lifecycle_pb2.REPORT_STATUS_STALE,
    "not_found": lifecycle_pb2.REPORT_STATUS_NOT_FOUND,
}


def check_id(text: str, pointer: str = "/id") -> str:
    """The canonical form of a request's id. Raises: InvalidRequest when it is no UUID."""
    try:
        return parse_id(text)
    except ValueError as error:
        raise InvalidRequest(
            "The id is not a UUID; check it.", [Violation(pointer=pointer, detail="must be a UUID")]
        ) from error


def to_integration_request(request: StoredRequest, *, with_payload: bool = False) -> intake_pb2.IntegrationRequest:
    """The message of a stored request."""
    message = intake_pb2.IntegrationRequest()
    write_integration_request(message, request, with_payload=with_payload)
    return message


def write_integration_request(
    message: intake_pb2.IntegrationRequest, request: StoredRequest, *, with_payload: bool = False
) -> None:
    """Write a stored request into its place in an answer: a message that is put there is copied with all its parts."""
    standing = request.standing
    message.id = request.id
    message.partner_id = request.partner_id
    message.external_id = request.external_id
    message.source_system = request.source_system
    message.target_system = request.target_system
    message.status = STATUS_TO_PROTO[standing.status]
    message.correlation_id = request.correlation_id
    message.attempts = standing.attempts
    message.version = request.version
    _write_instant(message.created_at, request.created_at)
    _write_instant(message.updated_at, request.updated_at)
    if with_payload:
        message.payload_json = request.payload_json
    if standing.failure_reason:
        message.failure_reason = standing.failure_reason
    if standing.failure_detail:
        message.failure_detail = standing.failure_detail
    if standing.external_response_json:
        message.external_response_json = standing.external_response_json
    if standing.next_attempt_at is not None and not standing.status.is_terminal:
        _write_instant(message.next_attempt_at, standing.next_attempt_at)


def from_limits(message: intake_pb2.PartnerLimits) -> PartnerLimits:
    """What a partner's token allows, as the gateway hands it on."""
    return PartnerLimits(
        sources=frozenset(message.sources.names) if message.HasField("sources") else None,
        targets=frozenset(message.targets.names) if message.HasField("targets") else None,
        rate_per_minute=max(0, message.rate_per_minute) if message.HasField("rate_per_minute") else None,
    )


def write_rate(message: intake_pb2.PartnerRate, rate: RateStanding) -> None:
    """Write where a partner stands with its limit."""
    message.limit = rate.limit
    message.remaining = rate.remaining
    message.reset_seconds = rate.reset_seconds


def write_claim_result(message: lifecycle_pb2.ClaimResult, request_id: str, answer: ClaimAnswer) -> None:
    """Write one claim's answer."""
    message.integration_request_id = request_id
    message.status = _CLAIM_STATUS[answer.status]
    if answer.before is None or answer.after is None:
        return
    before = answer.before.standing
    standing, lease = answer.after.standing, message.lease
    write_integration_request(lease.integration_request, answer.after, with_payload=True)
    lease.token = standing.lease_token
    lease.in_doubt = before.in_doubt
    lease.lookups = standing.lookups
    lease.timed_out = standing.timed_out
    lease.traceparent = answer.after.traceparent
    lease.retries = standing.retries
    lease.cycle = standing.cycle
    lease.announced = standing.sent_token == standing.lease_token
    lease.own_doubt = is_own_doubt(before, standing)
    _write_instant(lease.expires_at, standing.expires_at)
    _write_instant(lease.claimed_at, answer.claimed_at)
    if standing.sent_at is not None:
        _write_instant(lease.sent_at, standing.sent_at)


def from_announcement(message: lifecycle_pb2.Announcement) -> Announcement:
    """What a worker announces for one target. Raises: InvalidRequest."""
    sending = flow.Sending(timeout_seconds=_seconds(message.timeout))
    return Announcement(sending, frozenset(message.checked_sources))


def from_report(worker_id: str, message: lifecycle_pb2.Report) -> Report:
    """A worker's report. Raises: InvalidRequest for a step or a reason that is not one."""
    call = None
    if message.HasField("call"):
        made = message.call
        call = Call(
            kind=check_filter(made.kind or "attempt", "/call/kind", maximum=16),
            outcome=check_filter(made.outcome, "/call/outcome", maximum=32),
            detail=prose(made.detail),
            duration_ms=_seconds(made.duration) * 1000,
            response=prose(made.response, maximum=None),
        )
    return Report(
        worker_id=worker_id,
        request_id=check_id(message.integration_request_id, "/integrationRequestId"),
        token=message.token,
        step=_step(message),
        call=call,
    )


def _step(message: lifecycle_pb2.Report) -> flow.Step:
    match message.WhichOneof("step"):
        case "sending":
            return flow.Sending(timeout_seconds=_seconds(message.sending.timeout))
        case "completed":
            answer = prose(message.completed.external_response_json, maximum=None)
            return flow.Completed(external_response_json=answer or None)
        case "failed":
            return flow.Failed(
                reason=_failure_reason(message.failed.reason),
                detail=prose(message.failed.detail),
                dead_letter=message.failed.dead_letter,
            )
        case "retry":
            return flow.Retry(
                delay_seconds=_seconds(message.retry.delay),
                spends_retry=message.retry.spends_retry,
                still_in_doubt=message.retry.still_in_doubt,
            )
        case "in_doubt":
            return flow.InDoubt(
                delay_seconds=_seconds(message.in_doubt.delay),
                lookup_made=message.in_doubt.lookup_made,
                timed_out=message.in_doubt.timed_out,
                since_sent_seconds=(
                    _seconds(message.in_doubt.since_sent) if message.in_doubt.HasField("since_sent") else None
                ),
            )
        case "release":
            return flow.Release(
                delay_seconds=_seconds(message.release.delay),
                not_sent=message.release.not_sent,
                still_in_doubt=message.release.still_in_doubt,
            )
        case _:
            raise InvalidRequest("The report names no step.", [Violation(pointer="/step", detail="is missing")])


def _failure_reason(text: str) -> FailureReason:
    try:
        return FailureReason(text)
    except ValueError as error:
        raise InvalidRequest(
            "The failure reason is not one.", [Violation(pointer="/failed/reason", detail="is not a failure reason")]
        ) from error


def to_history_entry(row: sa.Row[Any]) -> intake_pb2.HistoryEntry:
    """The message of one history row."""
    return intake_pb2.HistoryEntry(
        kind=row.kind,
        at=to_timestamp(row.at),
        from_status=STATUS_TO_PROTO[Status(row.from_status)] if row.from_status else NO_STATUS,
        to_status=STATUS_TO_PROTO[Status(row.to_status)],
        attempt=row.attempt,
        outcome=row.outcome,
        detail=row.detail,
        duration_ms=row.duration_ms,
        response=row.response,
        actor=row.actor,
    )


def to_dead_letter(row: sa.Row[Any], request: StoredRequest | None = None) -> dead_letters_pb2.DeadLetter:
    """The message of a dead letter; in a list, where no request is given, the row names it by its ids and systems."""
    message = dead_letters_pb2.DeadLetter(
        id=row.id,
        integration_request=(
            to_integration_request(request, with_payload=True)
            if request is not None
            else intake_pb2.IntegrationRequest(
                id=row.request_id,
                partner_id=row.partner_id,
                external_id=row.external_id,
                source_system=row.source_system,
                target_system=row.target_system,
                correlation_id=row.correlation_id,
            )
        ),
        reason=row.reason,
        detail=row.detail,
        attempts=row.attempts,
        state=STATE_TO_PROTO[row.state],
        created_at=to_timestamp(row.created_at),
        settled_by=row.settled_by or "",
        settled_reason=row.settled_reason or "",
        payload_not_readable=request is not None and not request.payload_json,
    )
    if row.settled_at is not None:
        message.settled_at.CopyFrom(to_timestamp(row.settled_at))
    return message


def optional_instant(message: Any, field: str, pointer: str) -> int | None:
    """An optional timestamp field as an instant. Raises: InvalidRequest when it is beyond the years 1 to 9999."""
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    if not _FIRST_SECOND <= timestamp.seconds <= _LAST_SECOND:
        detail = "must be between the years 1 and 9999"
        raise InvalidRequest(f"{pointer} {detail}.", [Violation(pointer=pointer, detail=detail)])
    return from_timestamp(timestamp)


def _write_instant(message: Timestamp, at: Micros) -> None:
    message.seconds = at // SECOND
    message.nanos = at % SECOND * 1000


def _seconds(duration: Duration) -> float:
    if abs(duration.seconds) > _LONGEST_SECONDS:
        detail = "must be within 10,000 years"
        raise InvalidRequest(f"A duration {detail}.", [Violation(pointer="/duration", detail=detail)])
    return duration.seconds + duration.nanos / 1e9
