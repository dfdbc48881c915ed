"""JSON ↔ proto, in this one place: the partner's words on one side, the gRPC contract on the other.

Pure: values in, values out. The JSON bodies themselves are in gateway.bodies, the list's filter in gateway.list_query.
"""

import re
import uuid

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp
from msgspec import UNSET, UnsetType

from chassis.access import PartnerLimits
from chassis.clock import from_timestamp, to_rfc3339
from chassis.errors import InvalidRequest, Violation
from chassis.json_text import MalformedJson, NestingTooDeep, check_json
from gateway.bodies import (
    NAME_PATTERN,
    AcceptedBody,
    CreateBody,
    HistoryBody,
    HistoryEntryBody,
    IntegrationRequestBody,
    ListBody,
)
from gateway.problems import MalformedRequest
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1.intake_pb2 import (
    CreateIntegrationRequestRequest,
    HistoryEntry,
    IntegrationRequest,
    IntegrationRequestStatus,
    ListIntegrationRequestHistoryResponse,
    ListIntegrationRequestsResponse,
)

STATUS_NAMES = {
    IntegrationRequestStatus.INTEGRATION_REQUEST_STATUS_RECEIVED: "Received",
    IntegrationRequestStatus.INTEGRATION_REQUEST_STATUS_PROCESSING: "Processing",
    IntegrationRequestStatus.INTEGRATION_REQUEST_STATUS_WAITING_EXTERNAL: "WaitingExternal",
    IntegrationRequestStatus.INTEGRATION_REQUEST_STATUS_COMPLETED: "Completed",
    IntegrationRequestStatus.INTEGRATION_REQUEST_STATUS_FAILED: "Failed",
}
NAME = re.compile(NAME_PATTERN)
NAME_RULE = "must be 1 to 128 characters out of A-Z a-z 0-9 . _ : / -"

_NAME_FIELDS = ("externalId", "sourceSystem", "targetSystem")
_FIELDS = (*_NAME_FIELDS, "payload")
_MOST_VIOLATIONS = 20
_LONGEST_POINTER = 128
_CREATE = msgspec.json.Decoder(CreateBody)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_create_body(text: bytes) -> CreateBody:
    """Read the body of a create.

    Raises: MalformedRequest when it is not JSON as the hub takes it; InvalidRequest with every field at fault.
    """
    try:
        check_json(text)
    except (MalformedJson, NestingTooDeep) as error:
        raise MalformedRequest(f"The body is not JSON as the hub takes it: {error}.") from error
    try:
        body = _CREATE.decode(text)
    except msgspec.ValidationError:
        body = None
    if body is None or not _keeps_the_rules(body):
        raise InvalidRequest("The body breaks the contract; `errors` says where.", find_violations(text))
    return body


def find_violations(text: bytes) -> list[Violation]:
    """Name every field at fault; msgspec stops at the first one."""
    try:
        members = _MEMBERS.decode(text)
    except msgspec.ValidationError:
        return [Violation(pointer="", detail="must be a JSON object")]
    violations = [Violation(pointer=f"/{name}", detail="is required") for name in _FIELDS if name not in members]
    for name, value in members.items():
        if name not in _FIELDS:
            detail = f"is not a field of this call; the fields are {', '.join(_FIELDS)}"
            violations.append(Violation(pointer=_pointer(name), detail=detail))
        elif fault := _fault(name, value):
            violations.append(Violation(pointer=f"/{name}", detail=fault))
    return violations[:_MOST_VIOLATIONS]


def to_create_request(
    body: CreateBody, *, partner_id: str, limits: PartnerLimits, correlation_id: str, traceparent: str
) -> CreateIntegrationRequestRequest:
    """Write a create as intake takes it."""
    return CreateIntegrationRequestRequest(
        external_id=body.external_id,
        source_system=body.source_system,
        target_system=body.target_system,
        payload_json=str(body.payload, "utf-8"),
        correlation_id=correlation_id,
        partner_id=partner_id,
        traceparent=traceparent,
        partner_limits=to_limits(limits),
    )


def read_id(text: str) -> str:
    """Read an id of a path, in its 36-character form. Raises: InvalidRequest."""
    try:
        if len(text) != 36:
            raise ValueError("too short or too long")
        canonical = str(uuid.UUID(text))
        if canonical != text.lower():
            raise ValueError("the hyphens are elsewhere")
    except ValueError as error:
        violation = Violation(pointer="/id", detail="must be a UUID such as 3fa85f64-5717-4562-b3fc-2c963f66afa6")
        raise InvalidRequest("The id in the path is not a UUID.", [violation]) from error
    return canonical


def to_accepted_body(stored: IntegrationRequest) -> AcceptedBody:
    """Write the seed's answer to a create."""
    return AcceptedBody(
        id=stored.id,
        external_id=stored.external_id,
        status=STATUS_NAMES[stored.status],
        correlation_id=stored.correlation_id,
        created_at=_instant(stored.created_at),
    )


def to_body(stored: IntegrationRequest) -> IntegrationRequestBody:
    """Write the seed's answer to a query of one request."""
    return IntegrationRequestBody(
        id=stored.id,
        external_id=stored.external_id,
        source_system=stored.source_system,
        target_system=stored.target_system,
        status=STATUS_NAMES[stored.status],
        correlation_id=stored.correlation_id,
        created_at=_instant(stored.created_at),
        updated_at=_instant(stored.updated_at),
        external_response=_json_or_text(stored.external_response_json),
        attempts=stored.attempts or UNSET,
        failure_reason=stored.failure_reason or UNSET,
        failure_detail=stored.failure_detail or UNSET,
        next_attempt_at=_instant(stored.next_attempt_at) if stored.HasField("next_attempt_at") else UNSET,
    )


def to_list_body(page: ListIntegrationRequestsResponse) -> ListBody:
    """Write one page."""
    items = [to_body(stored) for stored in page.integration_requests]
    return ListBody(items=items, next_cursor=page.next_page_token or None)


def to_history_body(story: ListIntegrationRequestHistoryResponse) -> HistoryBody:
    """Write the story of one request."""
    return HistoryBody(items=[_entry(entry) for entry in story.entries])


def to_etag(stored: IntegrationRequest) -> str:
    """The strong validator of a request: its version rises with every change."""
    return f'"{stored.version}"'


def etag_matches(if_none_match: str | None, etag: str) -> bool:
    """Whether If-None-Match names this tag (RFC 9110, 13.1.2: a list or *, compared weakly)."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or tags == ["*"]


def to_limits(limits: PartnerLimits) -> pb.PartnerLimits | None:
    """Write what intake is to enforce; absent stays absent, since an empty list allows nothing."""
    if limits.sources is None and limits.targets is None and limits.rate_per_minute is None:
        return None
    return pb.PartnerLimits(
        sources=None if limits.sources is None else pb.SystemNames(names=sorted(limits.sources)),
        targets=None if limits.targets is None else pb.SystemNames(names=sorted(limits.targets)),
        rate_per_minute=limits.rate_per_minute,
    )


def _keeps_the_rules(body: CreateBody) -> bool:
    return (
        NAME.fullmatch(body.external_id) is not None
        and NAME.fullmatch(body.source_system) is not None
        and NAME.fullmatch(body.target_system) is not None
        and _is_object(body.payload)
    )


def _fault(name: str, value: msgspec.Raw) -> str | None:
    if name not in _NAME_FIELDS:
        return None if _is_object(value) else "must be a JSON object"
    text = msgspec.json.decode(value)
    if not isinstance(text, str):
        return "must be a string"
    return None if NAME.fullmatch(text) else NAME_RULE


def _is_object(value: msgspec.Raw) -> bool:
    return bytes(value).lstrip().startswith(b"{")


def _pointer(name: str) -> str:
    """Write a member's name as a JSON pointer (RFC 6901); a long one is cut."""
    return f"/{name.replace('~', '~0').replace('/', '~1')}"[:_LONGEST_POINTER]


def _entry(entry: HistoryEntry) -> HistoryEntryBody:
    return HistoryEntryBody(
        kind=entry.kind,
        at=_instant(entry.at),
        from_status=STATUS_NAMES.get(entry.from_status, UNSET),
        to_status=STATUS_NAMES.get(entry.to_status, UNSET),
        attempt=entry.attempt or UNSET,
        outcome=entry.outcome or UNSET,
        detail=entry.detail or UNSET,
        duration_ms=entry.duration_ms or UNSET,
        response=_json_or_text(entry.response),
        actor=entry.actor or UNSET,
    )


def _instant(timestamp: Timestamp) -> str:
    return to_rfc3339(from_timestamp(timestamp))


def _json_or_text(text: str) -> msgspec.Raw | UnsetType:
    """Pass JSON on verbatim; what is none (a page of HTML, a capped answer) becomes a JSON string."""
    if not text:
        return UNSET
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return msgspec.Raw(msgspec.json.encode(text))
    return msgspec.Raw(text.encode())
