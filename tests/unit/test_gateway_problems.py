"""Errors as problem documents: status, type, headers, and what is never told."""

import inspect
import json
from typing import Any

import pytest

from chassis import errors
from chassis.errors import HubError, Violation
from gateway import problems
from gateway.problems import MethodNotAllowed, TokenMissing, problem_headers, status_of, to_problem

SAMPLES: list[tuple[HubError, int]] = [
    (problems.MalformedRequest("Not JSON."), 400),
    (TokenMissing("No token."), 401),
    (errors.Unauthenticated("Bad token."), 401),
    (errors.PermissionDenied("No scope.", scope="requests:read"), 403),
    (errors.IntegrationRequestNotFound("1"), 404),
    (errors.SystemNotAllowed("Not for it."), 403),
    (errors.NotFound("1"), 404),
    (errors.DeadLetterNotFound("1"), 404),
    (errors.TargetNotFound("x"), 404),
    (problems.RouteNotFound("No path."), 404),
    (MethodNotAllowed("No method.", allow="GET"), 405),
    (problems.SlowRequest("Slow."), 408),
    (errors.DuplicateExternalId("A", "1", "Received"), 409),
    (errors.PayloadTooLarge("Too large."), 413),
    (problems.UnsupportedMediaType("Not JSON."), 415),
    (errors.InvalidRequest("Bad.", [Violation(pointer="/a", detail="must be b")]), 422),
    (errors.RateLimited("Fast.", retry_after_seconds=1), 429),
    (problems.HeadersTooLarge("Long."), 431),
    (errors.BacklogFull("Full.", retry_after_seconds=1), 503),
    (errors.Overloaded("Full.", retry_after_seconds=1), 503),
    (errors.Unavailable("Away."), 503),
    (errors.StorageUnavailable("Away."), 503),
    (errors.PayloadNotReadable("Sealed."), 503),
    (errors.ServiceUnavailable("Away."), 503),
    (errors.KeySetUnavailable("Away."), 503),
    (errors.OutcomeNotKnown("Open."), 504),
    (errors.InternalError(), 500),
    (errors.NotCancellable("Not part of REST."), 500),
    (errors.ConfigurationError("A path of this machine."), 500),
    (problems.HttpError("Has no kind."), 500),
]


def told(error: HubError, path: str = "/x") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(to_problem(error, path=path, correlation_id="c"))
    return document


@pytest.mark.parametrize(("error", "status"), SAMPLES, ids=lambda value: type(value).__name__)
def test_an_error_has_its_status_and_type(error: HubError, status: int) -> None:
    document = told(error)

    reason = "INTERNAL" if status == 500 else error.reason
    assert (status_of(error), document["status"]) == (status, status)
    assert document["type"] == f"urn:integration-hub:problem:{reason.lower().replace('_', '-')}"
    assert (document["instance"], document["correlationId"]) == ("/x", "c")
    assert list(document)[:6] == ["type", "title", "status", "detail", "instance", "correlationId"]


def test_every_error_there_is_has_a_sample_here() -> None:
    classes = {
        cls
        for module in (errors, problems)
        for cls in vars(module).values()
        if inspect.isclass(cls) and issubclass(cls, HubError) and cls is not HubError
    }

    assert classes == {type(error) for error, _ in SAMPLES}


def test_a_fault_of_the_hub_tells_nothing() -> None:
    assert "machine" not in told(errors.ConfigurationError("A path of this machine."))["detail"]


def test_an_invalid_request_names_its_fields() -> None:
    error = errors.InvalidRequest("Bad.", [Violation(pointer="/a", detail="must be b")])

    assert told(error)["errors"] == [{"pointer": "/a", "detail": "must be b"}]


def test_a_duplicate_names_the_existing_request() -> None:
    error = errors.DuplicateExternalId("A", "1", "Completed")

    assert told(error)["existing"] == {"id": "1", "status": "Completed", "href": "/api/integration-requests/1"}
    assert problem_headers(error)["Location"] == "/api/integration-requests/1"


def test_a_long_path_is_cut() -> None:
    assert len(told(errors.NotFound("1"), "/" + "x" * 10_000)["instance"]) == 256


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.4, "1"), (1.0, "1"), (1.1, "2"), (30.0, "30")])
def test_retry_after_is_whole_seconds_and_at_least_one(seconds: float, header: str) -> None:
    assert problem_headers(errors.RateLimited("Fast.", retry_after_seconds=seconds))["Retry-After"] == header


@pytest.mark.parametrize(
    ("error", "challenge"),
    [
        (TokenMissing("No token."), "Bearer"),
        (errors.Unauthenticated("Bad token."), 'Bearer error="invalid_token"'),
        (
            errors.PermissionDenied("No scope.", scope="requests:read"),
            'Bearer error="insufficient_scope", scope="requests:read"',
        ),
    ],
    ids=["no token", "a bad one", "no scope"],
)
def test_the_challenge_says_what_the_token_lacks(error: HubError, challenge: str) -> None:
    assert problem_headers(error)["WWW-Authenticate"] == challenge


@pytest.mark.parametrize(("error", "_"), SAMPLES, ids=lambda value: type(value).__name__)
def test_no_problem_is_kept_by_a_cache(error: HubError, _: int) -> None:
    assert problem_headers(error)["Cache-Control"] == "no-store"
