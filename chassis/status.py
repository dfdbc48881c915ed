"""The one map between HubError and google.rpc.Status, both ways (AIP-193: ErrorInfo always first)."""

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from chassis import errors
from chassis.errors import HubError, Violation

DOMAIN = "integration-hub"

_CLASSES: dict[str, type[HubError]] = {
    cls.reason: cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, HubError) and cls is not HubError
}


def to_status(error: HubError) -> status_pb2.Status:
    """Translate an error of ours to a status with details."""
    details = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=dict(error.metadata))]
    packed = [_pack(details[0])]
    if isinstance(error, errors.InvalidRequest) and error.violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=violation.pointer, description=violation.detail)
            for violation in error.violations
        ]
        packed.append(_pack(error_details_pb2.BadRequest(field_violations=fields)))
    if isinstance(error, errors.DuplicateExternalId):
        packed.append(_pack(_resource("integration request", error.existing_id)))
    if isinstance(error, errors.NotFound):
        packed.append(_pack(_resource(error.resource_type, error.resource_id)))
    if error.retry_after_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(error.retry_after_seconds * 1000))
        packed.append(_pack(retry))
    return status_pb2.Status(code=error.code.value[0], message=error.message, details=packed)


def from_status(code: int, message: str, details: list[Any]) -> HubError:
    """Rebuild the error that another service of the hub sent; an unknown one becomes its nearest class."""
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    resource = error_details_pb2.ResourceInfo()
    for detail in details:
        for target in (info, bad_request, retry, resource):
            if detail.Is(target.DESCRIPTOR):
                detail.Unpack(target)
    cls = _CLASSES.get(info.reason)
    metadata = dict(info.metadata)
    seconds = retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else 2.0
    if cls is errors.DuplicateExternalId:
        return errors.DuplicateExternalId(
            metadata.get("externalId", ""), resource.resource_name, metadata.get("existingStatus", "")
        )
    if cls is not None and issubclass(cls, errors.NotFound):
        return cls(resource.resource_name)
    if cls is not None and issubclass(cls, errors.InvalidRequest):
        violations = [Violation(pointer=v.field, detail=v.description) for v in bad_request.field_violations]
        return cls(message, violations, **metadata)
    if cls is not None and issubclass(cls, errors.Overloaded | errors.Unavailable):
        return cls(message, retry_after_seconds=seconds, **metadata)
    if cls is errors.InternalError:
        return errors.InternalError()
    if cls is not None:
        return cls(message, **metadata)
    return _nearest(code, message)


def from_rpc_error(error: grpc.aio.AioRpcError) -> HubError:
    """Translate what a gRPC client raised."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it reads code, details and metadata only
    if status is not None:
        return from_status(status.code, status.message, list(status.details))
    return _nearest(error.code().value[0], error.details() or "")


def _nearest(code: int, message: str) -> HubError:
    if code == code_pb2.UNAVAILABLE:
        return errors.ServiceUnavailable("A service of the hub cannot be reached; repeat the call in a moment.")
    if code in (code_pb2.DEADLINE_EXCEEDED, code_pb2.CANCELLED):
        return errors.OutcomeNotKnown("The answer did not come in time; repeat the call with the same externalId.")
    if code == code_pb2.UNAUTHENTICATED:
        return errors.Unauthenticated(message)
    if code == code_pb2.PERMISSION_DENIED:
        return errors.PermissionDenied(message)
    if code == code_pb2.RESOURCE_EXHAUSTED:
        return errors.PayloadTooLarge("The message is larger than the hub takes; send less at once.")
    return errors.InternalError()


def _resource(resource_type: str, name: str) -> error_details_pb2.ResourceInfo:
    return error_details_pb2.ResourceInfo(resource_type=resource_type, resource_name=name)


def _pack(message: object) -> Any:
    packed = Any()
    packed.Pack(message)  # type: ignore[arg-type]  # the stubs of googleapis-common-protos are untyped here
    return packed
