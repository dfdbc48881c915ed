"""Errors as partners see them: RFC 9457 problem documents, one table from error class to HTTP status.

Errors of the business come from chassis.errors; those that only HTTP knows are defined here.
"""

import math
from typing import Annotated, ClassVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from chassis import errors
from chassis.errors import HubError
from gateway.bodies import Id, Status

MEDIA_TYPE = "application/problem+json"
COLLECTION = "/api/integration-requests"
_LONGEST_INSTANCE = 256


class HttpError(HubError):
    """A call that is wrong as HTTP, before it says anything about integration requests."""

    headers: ClassVar[dict[str, str]] = {}


class MalformedRequest(HttpError):
    """The call contradicts itself, or its body is not JSON as the hub takes it."""

    reason = "MALFORMED_REQUEST"


class UnsupportedMediaType(HttpError):
    """The body is not declared as plain JSON."""

    reason = "UNSUPPORTED_MEDIA_TYPE"
    # RFC 9110, 12.5.3: says which content codings would have been taken
    headers: ClassVar[dict[str, str]] = {"Accept-Encoding": "identity"}


class RouteNotFound(HttpError):
    """No such path."""

    reason = "ROUTE_NOT_FOUND"


class MethodNotAllowed(HttpError):
    """The path is served, though not with this method."""

    reason = "METHOD_NOT_ALLOWED"


class SlowRequest(HttpError):
    """The client did not finish its request in time."""

    reason = "SLOW_REQUEST"


class HeadersTooLarge(HttpError):
    """The request's head is over its limits."""

    reason = "HEADERS_TOO_LARGE"


class TokenMissing(errors.Unauthenticated):
    """No token was sent at all: RFC 6750 names no error code for it."""


#: Class → HTTP status and title; the nearest base class counts.
STATUSES: dict[type[HubError], tuple[int, str]] = {
    MalformedRequest: (400, "Malformed request"),
    errors.Unauthenticated: (401, "Not authenticated"),
    errors.PermissionDenied: (403, "Not permitted"),
    errors.NotFound: (404, "Not found"),
    RouteNotFound: (404, "Not found"),
    MethodNotAllowed: (405, "Method not allowed"),
    SlowRequest: (408, "Request took too long"),
    errors.DuplicateExternalId: (409, "External id is in use"),
    errors.PayloadTooLarge: (413, "Body too large"),
    UnsupportedMediaType: (415, "Unsupported media type"),
    errors.InvalidRequest: (422, "Invalid request"),
    errors.RateLimited: (429, "Too many requests"),
    HeadersTooLarge: (431, "Headers too large"),
    HubError: (500, "Fault of the hub"),
    errors.Overloaded: (503, "Overloaded"),
    errors.Unavailable: (503, "Not available"),
    errors.OutcomeNotKnown: (504, "Outcome not known"),
}


class FieldError(msgspec.Struct, frozen=True):
    """One field at fault."""

    pointer: Annotated[str, Meta(description="JSON pointer into the body, or /name of a parameter.")]
    detail: Annotated[str, Meta(description="What it must be.")]


class Existing(msgspec.Struct, frozen=True):
    """The integration request that has the external id."""

    id: Id
    status: Status
    href: Annotated[str, Meta(examples=[f"{COLLECTION}/3fa85f64-5717-4562-b3fc-2c963f66afa6"])]


class Problem(msgspec.Struct, frozen=True, rename="camel"):
    """What went wrong and what to do (RFC 9457)."""

    type: Annotated[str, Meta(examples=["urn:integration-hub:problem:invalid-request"])]
    title: Annotated[str, Meta(description="The same for every problem of this type.")]
    status: Annotated[int, Meta(description="The HTTP status again.")]
    detail: Annotated[str, Meta(description="What happened and what to do.")]
    instance: Annotated[str, Meta(description="The path that was called.")]
    correlation_id: Annotated[str, Meta(description="As in X-Correlation-ID; quote it when you ask about the problem.")]
    errors: Annotated[list[FieldError], Meta(description="Every field at fault (422).")] | UnsetType = UNSET
    existing: Existing | UnsetType = UNSET


def status_of(error: HubError) -> int:
    """The HTTP status that answers an error."""
    return _row(error)[0]


def to_problem(error: HubError, *, path: str, correlation_id: str) -> bytes:
    """Write the problem document of an error."""
    status, title = _row(error)
    # whatever has no row of its own is a fault of ours, and its text is none of the partner's business
    told = errors.InternalError() if status == 500 else error
    problem = Problem(
        type=f"urn:integration-hub:problem:{told.reason.lower().replace('_', '-')}",
        title=title,
        status=status,
        detail=told.message,
        instance=path[:_LONGEST_INSTANCE],
        correlation_id=correlation_id,
        errors=_field_errors(told),
        existing=_existing(told),
    )
    return msgspec.json.encode(problem)


def problem_headers(error: HubError) -> dict[str, str]:
    """The headers that go with an error: where to look, when to come back, how to authenticate."""
    # no-store: a 404 or 405 could otherwise be kept by a cache on the way (RFC 9110, 15.1)
    headers = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store"}
    if isinstance(error, HttpError):
        headers |= error.headers
    if isinstance(error, errors.DuplicateExternalId):
        headers["Location"] = f"{COLLECTION}/{error.existing_id}"
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.metadata["allow"]
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer" if isinstance(error, TokenMissing) else 'Bearer error="invalid_token"'
    if isinstance(error, errors.RateLimited) and "limit" in error.metadata:
        limit, remaining, reset = (int(error.metadata[name]) for name in ("limit", "remaining", "reset"))
        headers |= rate_headers(limit=limit, remaining=remaining, reset_seconds=reset)
    if isinstance(error, errors.PermissionDenied) and "scope" in error.metadata:
        headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{error.metadata["scope"]}"'
    return headers


def rate_headers(*, limit: int, remaining: int, reset_seconds: int) -> dict[str, str]:
    """Where a partner stands with its limit (draft-ietf-httpapi-ratelimit-headers: structured fields)."""
    return {
        "RateLimit-Policy": f'"partner";q={limit};w=60',
        "RateLimit": f'"partner";r={remaining};t={reset_seconds}',
    }


def _row(error: HubError) -> tuple[int, str]:
    return next(STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES)


def _field_errors(error: HubError) -> list[FieldError] | UnsetType:
    if not isinstance(error, errors.InvalidRequest) or isinstance(error, errors.PayloadTooLarge):
        return UNSET
    return [FieldError(pointer=violation.pointer, detail=violation.detail) for violation in error.violations]


def _existing(error: HubError) -> Existing | UnsetType:
    if not isinstance(error, errors.DuplicateExternalId):
        return UNSET
    return Existing(id=error.existing_id, status=error.existing_status, href=f"{COLLECTION}/{error.existing_id}")
