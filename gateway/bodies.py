"""The JSON bodies of the REST contract, as partners see them: names, order, examples.

The same structs are encoded on the wire and described in the OpenAPI document. How they come from the gRPC messages
is in gateway.mapping, problems are in gateway.problems.
"""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

#: What the hub takes as an external id or the name of a system.
NAME_PATTERN = "[A-Za-z0-9._:/-]{1,128}"

_NAME = {"pattern": f"^{NAME_PATTERN}$"}
_DATE_TIME = {"format": "date-time"}
_UUID = {"format": "uuid"}
_STATUS = {"enum": ["Received", "Processing", "WaitingExternal", "Completed", "Failed"]}
_REASONS = {
    "enum": [
        "validation_failed",
        "external_rejected",
        "external_unavailable",
        "timeout",
        "outcome_unknown",
        "expired",
        "cancelled",
        "poisoned",
    ]
}

ExternalId = Annotated[
    str,
    Meta(
        description="Your key, unique for the life of the record.", examples=["PARTNER-12345"], extra_json_schema=_NAME
    ),
]
SourceSystem = Annotated[
    str, Meta(description="The system the document comes from.", examples=["SAP"], extra_json_schema=_NAME)
]
TargetSystem = Annotated[
    str,
    Meta(description="The external system it goes to.", examples=["TotvsProtheus"], extra_json_schema=_NAME),
]
Payload = Annotated[
    msgspec.Raw,
    Meta(
        description="The document. It reaches the external system digit for digit.",
        extra_json_schema={
            "type": "object",
            "examples": [{"orderId": "ORD-2024-001", "customer": "Empresa ABC", "amount": 15000.00}],
        },
    ),
]
Id = Annotated[
    str,
    Meta(description="Given by the hub.", examples=["3fa85f64-5717-4562-b3fc-2c963f66afa6"], extra_json_schema=_UUID),
]
Status = Annotated[str, Meta(description="Where it stands.", examples=["Received"], extra_json_schema=_STATUS)]
CorrelationId = Annotated[
    str,
    Meta(
        description="Follows the request through every hop, log and event.",
        examples=["550e8400-e29b-41d4-a716-446655440000"],
    ),
]
Instant = Annotated[
    str, Meta(description="RFC 3339, UTC.", examples=["2024-01-15T10:30:00.000Z"], extra_json_schema=_DATE_TIME)
]
Attempts = Annotated[int, Meta(description="Posts to the external system so far.", ge=0)]
Answer = Annotated[
    msgspec.Raw,
    Meta(
        description="The external system's answer, capped and redacted; a text where it was no JSON.",
        extra_json_schema={"examples": [{"protheusOrderId": "PRO-XYZ-789"}]},
    ),
]


class CreateBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True, rename="camel"):
    """One business document for one external system."""

    external_id: ExternalId
    source_system: SourceSystem
    target_system: TargetSystem
    payload: Payload


class AcceptedBody(msgspec.Struct, frozen=True, rename="camel"):
    """The request is durable; the hub works on it."""

    id: Id
    external_id: ExternalId
    status: Status
    correlation_id: CorrelationId
    created_at: Instant


class IntegrationRequestBody(msgspec.Struct, frozen=True, rename="camel"):
    """One integration request. Fields without a value are left out."""

    id: Id
    external_id: ExternalId
    source_system: SourceSystem
    target_system: TargetSystem
    status: Status
    correlation_id: CorrelationId
    created_at: Instant
    updated_at: Instant
    external_response: Answer | UnsetType = UNSET
    attempts: Attempts | UnsetType = UNSET
    failure_reason: Annotated[str, Meta(description="Why it failed.", extra_json_schema=_REASONS)] | UnsetType = UNSET
    failure_detail: Annotated[str, Meta(description="A sentence about the failure.")] | UnsetType = UNSET
    next_attempt_at: Instant | UnsetType = UNSET


class ListBody(msgspec.Struct, frozen=True, rename="camel"):
    """One page, newest first."""

    items: list[IntegrationRequestBody]
    next_cursor: Annotated[str | None, Meta(description="`cursor` of the next page; null on the last one.")]


class HistoryEntryBody(msgspec.Struct, frozen=True, rename="camel"):
    """One thing that happened to a request. Fields without a value are left out."""

    kind: Annotated[str, Meta(extra_json_schema={"enum": ["transition", "attempt", "lookup", "operation"]})]
    at: Instant
    from_status: Status | UnsetType = UNSET
    to_status: Status | UnsetType = UNSET
    attempt: Annotated[int, Meta(description="Number of the attempt it belongs to.")] | UnsetType = UNSET
    outcome: Annotated[str, Meta(examples=["DELIVERED"])] | UnsetType = UNSET
    detail: Annotated[str, Meta(description="A sentence for people.")] | UnsetType = UNSET
    duration_ms: Annotated[float, Meta(description="How long the call took.")] | UnsetType = UNSET
    response: Answer | UnsetType = UNSET
    actor: Annotated[str, Meta(description="Who did it.")] | UnsetType = UNSET


class HistoryBody(msgspec.Struct, frozen=True):
    """The story of one request, in order."""

    items: list[HistoryEntryBody]


class HealthBody(msgspec.Struct, frozen=True):
    """What a probe is told."""

    status: Annotated[str, Meta(examples=["ok"])]
