"""The hub's errors. The class is the code: `reason` and `code` belong to it, data are attributes.

HubError
├── ConfigurationError          start-up only; never leaves a process
├── InvalidRequest              INVALID_ARGUMENT      + BadRequest
│   └── PayloadTooLarge         INVALID_ARGUMENT
├── Unauthenticated             UNAUTHENTICATED
├── PermissionDenied            PERMISSION_DENIED
│   └── SystemNotAllowed        PERMISSION_DENIED
├── NotFound                    NOT_FOUND             + ResourceInfo
│   ├── IntegrationRequestNotFound · DeadLetterNotFound · TargetNotFound
├── DuplicateExternalId         ALREADY_EXISTS        + ResourceInfo
├── NotCancellable              FAILED_PRECONDITION
├── Overloaded                  RESOURCE_EXHAUSTED    + RetryInfo
│   ├── BacklogFull · RateLimited
├── Unavailable                 UNAVAILABLE           + RetryInfo
│   ├── StorageUnavailable · ServiceUnavailable · KeySetUnavailable · PayloadNotReadable
├── OutcomeNotKnown             DEADLINE_EXCEEDED
└── InternalError               INTERNAL              a bug of ours; says nothing but that

Mapping to google.rpc.Status and back lives in chassis.status.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One bad field. `pointer` is a JSON pointer (RFC 6901) into the REST body, such as /externalId."""

    pointer: str
    detail: str


class HubError(Exception):
    """An error with a stable reason; its message says what happened and what to do, never a payload or secret."""

    reason: ClassVar[str] = "INTERNAL"
    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        #: Every variable in the message, for machines (AIP-193).
        self.metadata: Mapping[str, str] = metadata
        #: Seconds after which a repetition makes sense; None where it does not.
        self.retry_after_seconds: float | None = None


class ConfigurationError(HubError):
    """A setting or file is wrong; the process must not start."""

    reason = "CONFIGURATION"
    code = grpc.StatusCode.FAILED_PRECONDITION


class InvalidRequest(HubError):
    """The caller's input breaks the contract; `violations` lists every field at fault."""

    reason = "INVALID_REQUEST"
    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, message: str, violations: Sequence[Violation] = (), **metadata: str) -> None:
        super().__init__(message, **metadata)
        self.violations = tuple(violations)


class PayloadTooLarge(InvalidRequest):
    """The payload is over its limit."""

    reason = "PAYLOAD_TOO_LARGE"


class Unauthenticated(HubError):
    """There is no token, or it is not valid."""

    reason = "UNAUTHENTICATED"
    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(HubError):
    """The token is valid and does not allow this."""

    reason = "PERMISSION_DENIED"
    code = grpc.StatusCode.PERMISSION_DENIED


class SystemNotAllowed(PermissionDenied):
    """The partner's token is for other sources or targets."""

    reason = "SYSTEM_NOT_ALLOWED"


class NotFound(HubError):
    """The thing is absent, or belongs to another partner: the caller cannot tell which."""

    reason = "NOT_FOUND"
    code = grpc.StatusCode.NOT_FOUND
    resource_type: ClassVar[str] = "resource"

    def __init__(self, resource_id: str) -> None:
        super().__init__(f"There is no {self.resource_type} {resource_id}; check the id.", id=resource_id)
        self.resource_id = resource_id


class IntegrationRequestNotFound(NotFound):
    """No such integration request for this partner."""

    reason = "INTEGRATION_REQUEST_NOT_FOUND"
    resource_type = "integration request"


class DeadLetterNotFound(NotFound):
    """No such dead letter."""

    reason = "DEAD_LETTER_NOT_FOUND"
    resource_type = "dead letter"


class TargetNotFound(NotFound):
    """No such target in the targets file."""

    reason = "TARGET_NOT_FOUND"
    resource_type = "target"


class DuplicateExternalId(HubError):
    """The partner has used this external id before; `existing_id` and `existing_status` name that request."""

    reason = "DUPLICATE_EXTERNAL_ID"
    code = grpc.StatusCode.ALREADY_EXISTS

    def __init__(self, external_id: str, existing_id: str, existing_status: str) -> None:
        super().__init__(
            f"An integration request with externalId {external_id} exists already as {existing_id}; "
            "read that one, or send a new externalId.",
            externalId=external_id,
            existingId=existing_id,
            existingStatus=existing_status,
        )
        self.existing_id = existing_id
        self.existing_status = existing_status


class NotCancellable(HubError):
    """The request is terminal, or is or may be with the external system."""

    reason = "NOT_CANCELLABLE"
    code = grpc.StatusCode.FAILED_PRECONDITION


class Overloaded(HubError):
    """The hub takes no more for now; nothing was stored."""

    reason = "OVERLOADED"
    code = grpc.StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, message: str, *, retry_after_seconds: float, **metadata: str) -> None:
        super().__init__(message, **metadata)
        self.retry_after_seconds = retry_after_seconds


class BacklogFull(Overloaded):
    """Too many requests wait already."""

    reason = "BACKLOG_FULL"


class RateLimited(Overloaded):
    """The partner sends faster than its limit."""

    reason = "RATE_LIMITED"


class Unavailable(HubError):
    """Something the call needs is away; nothing is known to have been stored."""

    reason = "UNAVAILABLE"
    code = grpc.StatusCode.UNAVAILABLE

    def __init__(self, message: str, *, retry_after_seconds: float = 2.0, **metadata: str) -> None:
        super().__init__(message, **metadata)
        self.retry_after_seconds = retry_after_seconds


class StorageUnavailable(Unavailable):
    """The database did not take it."""

    reason = "STORAGE_UNAVAILABLE"


class ServiceUnavailable(Unavailable):
    """Another service of the hub cannot be reached."""

    reason = "SERVICE_UNAVAILABLE"


class KeySetUnavailable(Unavailable):
    """The token's key may be in a set that could not be read yet: the call was refused before it began."""

    reason = "KEY_SET_UNAVAILABLE"


class PayloadNotReadable(Unavailable):
    """A payload is sealed with a key that is not in the ring, or was changed in the database."""

    reason = "PAYLOAD_NOT_READABLE"


class OutcomeNotKnown(HubError):
    """The answer did not come in time: it may or may not have been done."""

    reason = "OUTCOME_NOT_KNOWN"
    code = grpc.StatusCode.DEADLINE_EXCEEDED


class InternalError(HubError):
    """A fault of the hub itself; the log has the details under the correlation id."""

    reason = "INTERNAL"
    code = grpc.StatusCode.INTERNAL

    def __init__(self) -> None:
        super().__init__("The hub failed to handle this; repeat it, and report the correlation id if it persists.")
