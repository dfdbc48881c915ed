"""Between the wire and the values inside: requests are checked here, outcomes become answers here.

The only file beside servicer.py that knows the generated messages.
"""

from typing import assert_never

import msgspec
from google.protobuf.duration_pb2 import Duration

from adapter_service.delivery import Delivery, Question
from adapter_service.outcome import (
    Absent,
    Delivered,
    DeliverOutcome,
    Found,
    LookupOutcome,
    NotKnown,
    Rejected,
    Throttled,
    Unavailable,
    Unknown,
    Unsupported,
)
from adapter_service.registry import ExternalSystem
from chassis.correlation import clean_correlation_id, clean_traceparent
from chassis.errors import InvalidRequest, Violation
from chassis.targets import NAME
from integrationhub.adapter.v1 import adapter_pb2 as pb

MAX_BATCH = 1000
_DOCUMENT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_delivery(request: pb.DeliverRequest) -> Delivery:
    """Check one attempt to make. Raises: InvalidRequest; nothing was sent then."""
    violations = _check_ids(request.integration_request_id, request.external_id)
    document: dict[str, msgspec.Raw] = {}
    try:
        document = _DOCUMENT.decode(request.payload_json)
    except (ValueError, RecursionError):
        violations.append(Violation(pointer="/payload", detail="must be a JSON object"))
    if violations:
        raise InvalidRequest("The delivery cannot be made; correct the fields named.", violations)
    return Delivery(
        request_id=request.integration_request_id,
        external_id=request.external_id,
        correlation_id=clean_correlation_id(request.correlation_id),
        traceparent=clean_traceparent(request.traceparent),
        source_system=request.source_system,
        document=document,
        attempt=request.attempt,
    )


def read_question(request: pb.LookupRequest) -> Question:
    """Check one lookup to make. Raises: InvalidRequest."""
    violations = _check_ids(request.integration_request_id, request.external_id)
    if violations:
        raise InvalidRequest("The lookup cannot be made; correct the fields named.", violations)
    return Question(
        request_id=request.integration_request_id,
        external_id=request.external_id,
        correlation_id=clean_correlation_id(request.correlation_id),
        traceparent=clean_traceparent(request.traceparent),
    )


def check_batch(request: pb.DeliverBatchRequest) -> None:
    """Raises: InvalidRequest when a batch holds nothing or too much."""
    if not 1 <= len(request.deliveries) <= MAX_BATCH:
        raise InvalidRequest(f"A batch holds 1 to {MAX_BATCH} deliveries; split it.", limit=str(MAX_BATCH))


def to_deliver_response(outcome: DeliverOutcome, seconds: float) -> pb.DeliverResponse:
    """Write what came of one attempt."""
    response = pb.DeliverResponse()
    _write(response, outcome, seconds)
    return response


def to_batch_result(request_id: str, outcome: DeliverOutcome, seconds: float) -> pb.DeliverBatchResult:
    """Write what came of one attempt of a batch, in place: a message that is put into another is copied."""
    result = pb.DeliverBatchResult(integration_request_id=request_id)
    _write(result.response, outcome, seconds)
    return result


def _write(response: pb.DeliverResponse, outcome: DeliverOutcome, seconds: float) -> None:
    response.response_json = outcome.response_json
    _set_duration(response.duration, seconds)
    match outcome:
        case Delivered():
            response.outcome = pb.OUTCOME_DELIVERED
            return
        case Rejected():
            response.outcome = pb.OUTCOME_REJECTED
        case Unavailable():
            response.outcome = pb.OUTCOME_UNAVAILABLE
            response.credentials_refused = outcome.credentials_refused
            _set_retry_after(response, outcome.retry_after_seconds)
        case Throttled():
            response.outcome = pb.OUTCOME_THROTTLED
            _set_retry_after(response, outcome.retry_after_seconds)
        case Unknown():
            response.outcome = pb.OUTCOME_UNKNOWN
            response.timed_out = outcome.timed_out
        case _:
            assert_never(outcome)
    response.code = outcome.code
    response.detail = outcome.detail


def to_lookup_response(outcome: LookupOutcome, seconds: float) -> pb.LookupResponse:
    """Write what came of one lookup."""
    duration = to_duration(seconds)
    match outcome:
        case Found(response_json=found, detail=detail):
            return pb.LookupResponse(
                outcome=pb.LOOKUP_OUTCOME_FOUND, response_json=found, detail=detail, duration=duration
            )
        case Absent(detail=detail):
            return pb.LookupResponse(outcome=pb.LOOKUP_OUTCOME_ABSENT, detail=detail, duration=duration)
        case NotKnown(detail=detail, retry_after_seconds=retry_after, credentials_refused=refused):
            response = pb.LookupResponse(
                outcome=pb.LOOKUP_OUTCOME_NOT_KNOWN, detail=detail, duration=duration, credentials_refused=refused
            )
            _set_retry_after(response, retry_after)
            return response
        case Unsupported():
            return pb.LookupResponse(outcome=pb.LOOKUP_OUTCOME_UNSUPPORTED, duration=duration)
        case _:
            assert_never(outcome)


def to_target(system: ExternalSystem) -> pb.Target:
    """Write one configured target; nothing secret is in it."""
    target = system.target
    return pb.Target(
        name=target.name,
        adapter=target.adapter,
        base_url=target.base_url,
        idempotent=target.idempotent,
        supports_lookup=system.adapter.supports_lookup,
        timeout=to_duration(target.timeout_seconds),
    )


def to_duration(seconds: float) -> Duration:
    """Convert a span in seconds."""
    duration = Duration()
    _set_duration(duration, seconds)
    return duration


def _set_duration(duration: Duration, seconds: float) -> None:
    duration.seconds, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    duration.nanos = micros * 1000


def _check_ids(request_id: str, external_id: str) -> list[Violation]:
    violations = []
    if not NAME.fullmatch(request_id):
        violations.append(Violation(pointer="/integrationRequestId", detail=f"must match ^{NAME.pattern}$"))
    if external_id and not NAME.fullmatch(external_id):
        violations.append(Violation(pointer="/externalId", detail=f"must be empty or match ^{NAME.pattern}$"))
    return violations


def _set_retry_after(response: pb.DeliverResponse | pb.LookupResponse, seconds: float | None) -> None:
    if seconds is not None:
        _set_duration(response.retry_after, seconds)
