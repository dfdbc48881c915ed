"""Errors survive the wire: every class goes to a status with details and comes back as itself."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2

from chassis import errors
from chassis.errors import HubError, Violation
from chassis.status import DOMAIN, from_status, to_status

SAMPLES: list[HubError] = [
    errors.ConfigurationError("HUB_TARGETS is wrong.", name="HUB_TARGETS"),
    errors.InvalidRequest("Not valid.", [Violation(pointer="/externalId", detail="is missing")], field="externalId"),
    errors.PayloadTooLarge("Too large.", maximum="1048576"),
    errors.Unauthenticated("Send a token."),
    errors.PermissionDenied("No.", scope="operations"),
    errors.SystemNotAllowed("Not for this system."),
    errors.NotFound("n-1"),
    errors.IntegrationRequestNotFound("r-1"),
    errors.DeadLetterNotFound("d-1"),
    errors.TargetNotFound("SAP"),
    errors.DuplicateExternalId("E-1", "r-1", "Completed"),
    errors.NotCancellable("Too late.", status="Completed"),
    errors.Overloaded("Later.", retry_after_seconds=1.5),
    errors.BacklogFull("Later.", retry_after_seconds=5),
    errors.RateLimited("Later.", retry_after_seconds=0.25, limit="600"),
    errors.Unavailable("Away."),
    errors.StorageUnavailable("Away.", retry_after_seconds=3, cause="OperationalError"),
    errors.ServiceUnavailable("Away."),
    errors.KeySetUnavailable("Away."),
    errors.PayloadNotReadable("Sealed.", retry_after_seconds=60, key="one"),
    errors.OutcomeNotKnown("Too late."),
    errors.InternalError(),
]
CODES = {
    "CONFIGURATION": "FAILED_PRECONDITION",
    "INVALID_REQUEST": "INVALID_ARGUMENT",
    "PAYLOAD_TOO_LARGE": "INVALID_ARGUMENT",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "PERMISSION_DENIED": "PERMISSION_DENIED",
    "SYSTEM_NOT_ALLOWED": "PERMISSION_DENIED",
    "NOT_FOUND": "NOT_FOUND",
    "INTEGRATION_REQUEST_NOT_FOUND": "NOT_FOUND",
    "DEAD_LETTER_NOT_FOUND": "NOT_FOUND",
    "TARGET_NOT_FOUND": "NOT_FOUND",
    "DUPLICATE_EXTERNAL_ID": "ALREADY_EXISTS",
    "NOT_CANCELLABLE": "FAILED_PRECONDITION",
    "OVERLOADED": "RESOURCE_EXHAUSTED",
    "BACKLOG_FULL": "RESOURCE_EXHAUSTED",
    "RATE_LIMITED": "RESOURCE_EXHAUSTED",
    "UNAVAILABLE": "UNAVAILABLE",
    "STORAGE_UNAVAILABLE": "UNAVAILABLE",
    "PAYLOAD_NOT_READABLE": "UNAVAILABLE",
    "SERVICE_UNAVAILABLE": "UNAVAILABLE",
    "KEY_SET_UNAVAILABLE": "UNAVAILABLE",
    "OUTCOME_NOT_KNOWN": "DEADLINE_EXCEEDED",
    "INTERNAL": "INTERNAL",
}


def all_classes() -> set[type[HubError]]:
    """Every error of the tree in chassis.errors."""
    found = {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, HubError)}
    return found - {HubError}


def test_the_samples_cover_every_class_of_the_tree() -> None:
    assert {type(sample) for sample in SAMPLES} == all_classes()


def test_every_class_has_a_reason_of_its_own() -> None:
    assert len({cls.reason for cls in all_classes()}) == len(all_classes())


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_from_its_status_as_itself(error: HubError) -> None:
    status = to_status(error)

    again = from_status(status.code, status.message, list(status.details))

    assert type(again) is type(error)
    assert again.message == error.message
    assert again.metadata == error.metadata
    assert again.retry_after_seconds == error.retry_after_seconds
    assert vars(again) == vars(error)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_a_status_has_its_code_and_its_reason_first(error: HubError) -> None:
    status = to_status(error)
    info = error_details_pb2.ErrorInfo()

    assert status.code == grpc.StatusCode[CODES[error.reason]].value[0]
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (error.reason, DOMAIN, error.metadata)


def test_no_error_is_unknown() -> None:
    assert {sample.code for sample in SAMPLES}.isdisjoint({grpc.StatusCode.UNKNOWN, grpc.StatusCode.OK})


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (SAMPLES[1], ["BadRequest"]),
        (errors.IntegrationRequestNotFound("r-1"), ["ResourceInfo"]),
        (errors.DuplicateExternalId("E-1", "r-1", "Failed"), ["ResourceInfo"]),
        (errors.BacklogFull("Later.", retry_after_seconds=5), ["RetryInfo"]),
        (errors.StorageUnavailable("Away."), ["RetryInfo"]),
        (errors.Unauthenticated("Send a token."), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_details_follow_where_they_apply(error: HubError, kinds: list[str]) -> None:
    names = [detail.TypeName() for detail in to_status(error).details]

    assert names == [f"google.rpc.{kind}" for kind in ["ErrorInfo", *kinds]]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (code_pb2.UNAVAILABLE, errors.ServiceUnavailable),
        (code_pb2.DEADLINE_EXCEEDED, errors.OutcomeNotKnown),
        (code_pb2.CANCELLED, errors.OutcomeNotKnown),
        (code_pb2.UNAUTHENTICATED, errors.Unauthenticated),
        (code_pb2.PERMISSION_DENIED, errors.PermissionDenied),
        (code_pb2.RESOURCE_EXHAUSTED, errors.PayloadTooLarge),
        (code_pb2.UNKNOWN, errors.InternalError),
        (code_pb2.UNIMPLEMENTED, errors.InternalError),
    ],
)
def test_a_status_without_details_becomes_the_nearest_error(code: int, expected: type[HubError]) -> None:
    assert type(from_status(code, "what grpc says", [])) is expected


def test_an_unknown_reason_of_a_newer_service_becomes_the_nearest_error() -> None:
    packed = AnyMessage()
    packed.Pack(error_details_pb2.ErrorInfo(reason="INVENTED_LATER", domain=DOMAIN))

    assert type(from_status(code_pb2.UNAVAILABLE, "away", [packed])) is errors.ServiceUnavailable
