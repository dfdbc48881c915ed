"""Between messages and values: every decision becomes its own step, and nothing unknown becomes a success."""

import pytest
from google.protobuf.duration_pb2 import Duration

from chassis.targets import Target
from integrationhub.adapter.v1 import adapter_pb2
from integrationhub.adapter.v1.adapter_pb2 import DeliverResponse, LookupResponse
from integrationhub.intake.v1.intake_pb2 import IntegrationRequest
from integrationhub.intake.v1.lifecycle_pb2 import Lease
from orchestrator_service.mapping import (
    attempt_of,
    attempt_record,
    decision_report,
    deliver_request,
    lookup_of,
    policy_of,
    sending_report,
)
from orchestrator_service.retry import (
    Attempt,
    Completed,
    Decision,
    Failed,
    FailureReason,
    InDoubt,
    LookupOutcome,
    Outcome,
    Release,
    Retry,
)

LEASE = Lease(
    integration_request=IntegrationRequest(id="id-1", payload_json='{"amount":15000.00}', attempts=2), token=7
)


@pytest.mark.parametrize(
    ("decision", "step"),
    [
        (Completed(external_response_json=""), "completed"),
        (Failed(reason=FailureReason.TIMEOUT, detail=""), "failed"),
        (Retry(delay_seconds=0), "retry"),
        (InDoubt(delay_seconds=0, lookup_made=False, timed_out=False), "in_doubt"),
        (Release(delay_seconds=0), "release"),
    ],
)
def test_every_decision_is_a_step_even_when_all_its_fields_are_empty(decision: Decision, step: str) -> None:
    report = decision_report(LEASE, decision, None)

    assert (report.WhichOneof("step"), report.integration_request_id, report.token) == (step, "id-1", 7)


def test_sending_is_a_step_with_the_attempts_time() -> None:
    report = sending_report(LEASE, 60)

    assert (report.WhichOneof("step"), report.sending.timeout.seconds) == ("sending", 60)


def test_a_retry_says_when_and_spends_itself() -> None:
    report = decision_report(LEASE, Retry(delay_seconds=2.25), None)

    assert (report.retry.delay.ToMilliseconds(), report.retry.spends_retry) == (2250, True)


def test_the_call_goes_with_the_decision() -> None:
    attempt = Attempt(outcome=Outcome.REJECTED, code="A1", detail="no such customer", response_json="{}")
    call = attempt_record(attempt, Duration(seconds=3))
    report = decision_report(LEASE, Failed(reason=FailureReason.EXTERNAL_REJECTED, detail="x"), call)

    assert (report.call.kind, report.call.outcome, report.call.detail) == (
        "attempt",
        "REJECTED",
        "A1: no such customer",
    )


@pytest.mark.parametrize("outcome", [adapter_pb2.OUTCOME_UNSPECIFIED, 99])
def test_an_outcome_that_is_not_known_here_is_unknown(outcome: int) -> None:
    assert attempt_of(DeliverResponse(outcome=outcome)).outcome is Outcome.UNKNOWN  # type: ignore[arg-type]  # 99


@pytest.mark.parametrize("outcome", [adapter_pb2.LOOKUP_OUTCOME_UNSPECIFIED, 99])
def test_a_lookup_outcome_that_is_not_known_here_is_not_known(outcome: int) -> None:
    lookup = lookup_of(LookupResponse(outcome=outcome))  # type: ignore[arg-type]  # 99

    assert lookup.outcome is LookupOutcome.NOT_KNOWN


@pytest.mark.parametrize("outcome", list(adapter_pb2.Outcome.DESCRIPTOR.values_by_name)[1:])
def test_every_outcome_of_the_contract_has_its_own_word(outcome: str) -> None:
    response = DeliverResponse(outcome=adapter_pb2.Outcome.Value(outcome))

    assert attempt_of(response).outcome == outcome.removeprefix("OUTCOME_")


@pytest.mark.parametrize("outcome", list(adapter_pb2.LookupOutcome.DESCRIPTOR.values_by_name)[1:])
def test_every_lookup_outcome_of_the_contract_has_its_own_word(outcome: str) -> None:
    response = LookupResponse(outcome=adapter_pb2.LookupOutcome.Value(outcome))

    assert lookup_of(response).outcome == outcome.removeprefix("LOOKUP_OUTCOME_")


def test_the_payload_travels_digit_for_digit() -> None:
    assert deliver_request(LEASE, "").payload_json == '{"amount":15000.00}'


def test_the_attempt_is_counted_from_one() -> None:
    assert deliver_request(LEASE, "").attempt == 3  # two posts before this one


@pytest.mark.parametrize(("on_timeout", "retries"), [("dead_letter", False), ("retry", True)])
def test_the_policy_is_the_targets(on_timeout: str, retries: bool) -> None:
    target = Target(
        adapter="http_json",
        base_url="http://127.0.0.1:1",
        on_timeout=on_timeout,  # type: ignore[arg-type]  # one of the two literals
        retry=[1, 5],
        idempotent=True,
        timeout_seconds=7,
    )
    policy = policy_of(target)

    assert (policy.retries_timeouts, policy.retry_delays, policy.idempotent, policy.timeout_seconds) == (
        retries,
        (1, 5),
        True,
        7,
    )
