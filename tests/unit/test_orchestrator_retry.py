"""The decision table of orchestrator_service/retry.py, row by row, with its arithmetic."""

import itertools
from typing import Any

import pytest

from chassis.targets import RETRY_PROFILES
from orchestrator_service.retry import (
    SECOND,
    Attempt,
    Completed,
    Decision,
    Failed,
    FailureReason,
    InDoubt,
    Lookup,
    LookupOutcome,
    Outcome,
    Policy,
    Progress,
    Release,
    Retry,
    after_attempt,
    after_lookup,
    expired,
    may_post_again,
)

FAST = RETRY_PROFILES["fast"]
SENT_AT = 1_700_000_000 * SECOND


def policy(**changes: Any) -> Policy:
    usual: dict[str, Any] = {
        "retry_delays": FAST,
        "idempotent": False,
        "retries_timeouts": False,
        "timeout_seconds": 60.0,
    }
    return Policy(**(usual | changes))


def progress(*, now_after_send: float = 1.0, **changes: Any) -> Progress:
    """A request that was sent at SENT_AT, claimed that many seconds later, and lives for another day."""
    usual = {
        "retries": 0,
        "lookups": 0,
        "in_doubt": False,
        "timed_out": False,
        "sent_at": SENT_AT,
        "claimed_at": SENT_AT + round(now_after_send * SECOND),
        "expires_at": SENT_AT + 86_400 * SECOND,
    }
    return Progress(**(usual | changes))


def post(outcome: Outcome, so_far: Progress, by: Policy, *, chance: float = 0.0, **said: Any) -> Decision:
    return after_attempt(Attempt(outcome=outcome, **said), so_far, by, chance=chance)


def look_up(outcome: LookupOutcome, so_far: Progress, by: Policy, **said: Any) -> Decision:
    return after_lookup(Lookup(outcome=outcome, **said), so_far, by)


def failed(decision: Decision) -> tuple[FailureReason, bool]:
    """Reason and dead letter of a decision that must be a failure."""
    assert isinstance(decision, Failed), decision
    return decision.reason, decision.dead_letter


def test_delivered_completes_with_the_systems_answer() -> None:
    decision = post(Outcome.DELIVERED, progress(), policy(), response_json='{"protheusOrderId":"PRO-1"}')

    assert decision == Completed(external_response_json='{"protheusOrderId":"PRO-1"}')


def test_rejected_fails_at_once_with_the_systems_code_and_words() -> None:
    decision = post(Outcome.REJECTED, progress(), policy(), code="A1", detail="customer unknown")

    assert decision == Failed(reason=FailureReason.EXTERNAL_REJECTED, detail="A1: customer unknown", dead_letter=True)


@pytest.mark.parametrize("outcome", [Outcome.UNAVAILABLE, Outcome.THROTTLED])
@pytest.mark.parametrize(("retries", "seconds"), [(0, 2.0), (1, 4.0), (2, 8.0)])
def test_fast_waits_2_4_and_8_seconds(outcome: Outcome, retries: int, seconds: float) -> None:
    assert post(outcome, progress(retries=retries), policy()) == Retry(delay_seconds=seconds)


@pytest.mark.parametrize("outcome", [Outcome.UNAVAILABLE, Outcome.THROTTLED])
def test_the_fourth_post_of_fast_is_the_last(outcome: Outcome) -> None:
    # 3 delays allow 3 retries: 4 posts in all
    assert failed(post(outcome, progress(retries=3), policy())) == (FailureReason.EXTERNAL_UNAVAILABLE, True)


@pytest.mark.parametrize(
    ("retries", "seconds"), [(0, 30.0), (1, 120.0), (2, 600.0), (3, 3600.0), (4, 14_400.0), (5, 43_200.0)]
)
def test_patient_waits_up_to_12_hours(retries: int, seconds: float) -> None:
    patient = policy(retry_delays=RETRY_PROFILES["patient"])

    assert post(Outcome.UNAVAILABLE, progress(retries=retries), patient) == Retry(delay_seconds=seconds)


@pytest.mark.parametrize(
    ("chance", "seconds"),
    [
        (0.0, 4.0),  # 4 * (1 + 0.2 * 0)
        (0.5, 4.4),  # 4 * (1 + 0.2 * 0.5)
        (1.0, 4.8),  # 4 * (1 + 0.2 * 1)
    ],
)
def test_jitter_adds_up_to_a_fifth(chance: float, seconds: float) -> None:
    decision = post(Outcome.UNAVAILABLE, progress(retries=1), policy(), chance=chance)

    assert isinstance(decision, Retry)
    assert decision.delay_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(("asked_for", "seconds"), [(0.0, 2.0), (60.0, 60.0), (86_400.0, 3600.0)])
@pytest.mark.parametrize("in_doubt", [False, True])
def test_credentials_of_ours_that_are_refused_spend_nothing(asked_for: float, seconds: float, in_doubt: bool) -> None:
    for retries in range(len(FAST) + 1):
        decision = post(
            Outcome.UNAVAILABLE,
            progress(retries=retries, in_doubt=in_doubt),
            policy(),
            retry_after_seconds=asked_for,
            credentials_refused=True,
        )

        assert decision == Release(delay_seconds=seconds, not_sent=True, still_in_doubt=in_doubt)


@pytest.mark.parametrize(("asked_for", "seconds"), [(0.0, 2.0), (60.0, 60.0), (86_400.0, 3600.0)])
def test_a_lookup_to_which_our_credentials_are_refused_is_none(asked_for: float, seconds: float) -> None:
    said = {"retry_after_seconds": asked_for, "credentials_refused": True}
    for lookups in (0, 3, 9):
        decision = look_up(LookupOutcome.NOT_KNOWN, progress(now_after_send=3600, lookups=lookups), policy(), **said)

        assert decision == InDoubt(delay_seconds=seconds, lookup_made=False, timed_out=False)


@pytest.mark.parametrize(
    ("asked_for", "seconds"),
    [
        (1.0, 2.0),  # the profile's 2 s are longer
        (20.0, 20.0),
        (3600.0, 3600.0),
        (86_400.0, 3600.0),  # the ceiling is an hour
    ],
)
@pytest.mark.parametrize("outcome", [Outcome.UNAVAILABLE, Outcome.THROTTLED])
def test_waits_at_least_as_long_as_the_system_asks(outcome: Outcome, asked_for: float, seconds: float) -> None:
    assert post(outcome, progress(), policy(), retry_after_seconds=asked_for) == Retry(delay_seconds=seconds)


@pytest.mark.parametrize(
    ("retries", "seconds"),
    [
        (0, 0.0),  # at once
        (1, 4.0),
        (2, 8.0),
    ],
)
def test_unknown_is_posted_again_with_the_same_key_where_it_is_honoured(retries: int, seconds: float) -> None:
    decision = post(Outcome.UNKNOWN, progress(retries=retries), policy(idempotent=True))

    assert decision == Retry(delay_seconds=seconds, still_in_doubt=True)


@pytest.mark.parametrize("outcome", [Outcome.UNAVAILABLE, Outcome.THROTTLED, Outcome.REJECTED])
@pytest.mark.parametrize(
    ("retries", "decision"),
    [
        (0, Retry(delay_seconds=2.0, still_in_doubt=True)),
        (2, Retry(delay_seconds=8.0, still_in_doubt=True)),
        (3, InDoubt(delay_seconds=2.0, lookup_made=False, timed_out=False)),  # retries spent: the last resort
    ],
)
def test_a_refused_repetition_does_not_settle_the_post_before_it(
    outcome: Outcome, retries: int, decision: Decision
) -> None:
    assert post(outcome, progress(retries=retries, in_doubt=True), policy(idempotent=True)) == decision


@pytest.mark.parametrize(
    ("by", "retries", "timed_out"),
    [
        (policy(), 0, False),
        (policy(), 0, True),
        (policy(idempotent=True), 0, True),  # seed 4.2 decides about time-outs, not the key
        (policy(idempotent=True), 3, False),  # retries spent: asking is the last resort
    ],
)
def test_unknown_is_looked_up_after_2_seconds(by: Policy, retries: int, timed_out: bool) -> None:
    decision = post(Outcome.UNKNOWN, progress(retries=retries), by, timed_out=timed_out, seconds=0.5)

    assert decision == InDoubt(delay_seconds=2.0, lookup_made=False, timed_out=timed_out, since_sent_seconds=0.5)


@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("timed_out", [True, False])
def test_unknown_is_never_an_end_and_never_a_blind_post(retries: int, idempotent: bool, timed_out: bool) -> None:
    decision = post(Outcome.UNKNOWN, progress(retries=retries), policy(idempotent=idempotent), timed_out=timed_out)

    assert isinstance(decision, InDoubt) or (idempotent and isinstance(decision, Retry))


@pytest.mark.parametrize(
    ("idempotent", "timed_out", "retries", "may"),
    [
        (True, False, 0, True),
        (True, False, 2, True),
        (True, False, 3, False),
        (True, True, 0, False),
        (False, False, 0, False),
        (False, True, 0, False),
    ],
)
def test_a_lost_attempt_is_posted_again_only_where_the_key_is_honoured(
    idempotent: bool, timed_out: bool, retries: int, may: bool
) -> None:
    so_far = progress(timed_out=timed_out, retries=retries)

    assert may_post_again(so_far, policy(idempotent=idempotent)) is may


@pytest.mark.parametrize("now_after_send", [2.0, 64.0, 65.0, 90_000.0])
def test_found_completes_at_any_time(now_after_send: float) -> None:
    decision = look_up(
        LookupOutcome.FOUND, progress(now_after_send=now_after_send, timed_out=True), policy(), response_json="{}"
    )

    assert decision == Completed(external_response_json="{}")


# The attempt broke 1 s after the send; its time-out is 60 s, so the conclusive moment is 60 + 5 = 65 s after it.
LADDER = [
    (3.0, 0, 3.0),  # +2 s: next at +5, 5 - 2 = 3
    (6.0, 1, 10.0),  # +5 s: next at +15, 15 - 5 = 10
    (16.0, 2, 15.0),  # +15 s: next at +30, 30 - 15 = 15
    (31.0, 3, 34.0),  # +30 s: the ladder ends; 65 - 31 = 34 to the conclusive moment
    (55.0, 2, 15.0),  # a late rung: 30 - 15 = 15, though the conclusive moment comes first
]


@pytest.mark.parametrize("outcome", [LookupOutcome.ABSENT, LookupOutcome.NOT_KNOWN])
@pytest.mark.parametrize(("now_after_send", "lookups", "seconds"), LADDER)
def test_climbs_the_ladder_to_the_conclusive_moment(
    outcome: LookupOutcome, now_after_send: float, lookups: int, seconds: float
) -> None:
    decision = look_up(outcome, progress(now_after_send=now_after_send, lookups=lookups), policy())

    assert decision == InDoubt(delay_seconds=seconds, lookup_made=True, timed_out=False)


def test_the_time_out_is_remembered_on_the_ladder() -> None:
    decision = look_up(LookupOutcome.ABSENT, progress(now_after_send=62, timed_out=True), policy())

    assert decision == InDoubt(delay_seconds=3.0, lookup_made=True, timed_out=True)


@pytest.mark.parametrize(
    ("timeout_seconds", "now_after_send", "proven"),
    [
        (60.0, 64.999999, False),
        (60.0, 65.0, True),  # 60 + 5
        (10.0, 14.9, False),
        (10.0, 15.0, True),  # 10 + 5
    ],
)
def test_absent_is_a_proof_from_the_time_out_plus_5_seconds_on(
    timeout_seconds: float, now_after_send: float, proven: bool
) -> None:
    so_far = progress(now_after_send=now_after_send, lookups=3)
    decision = look_up(LookupOutcome.ABSENT, so_far, policy(timeout_seconds=timeout_seconds))

    assert isinstance(decision, Retry) is proven


@pytest.mark.parametrize("outcome", [LookupOutcome.ABSENT, LookupOutcome.NOT_KNOWN])
@pytest.mark.parametrize(("now_after_send", "lookups", "seconds"), [(7, 0, 3.0), (10, 1, 10.0), (20, 2, 15.0)])
def test_absent_is_no_proof_before_the_ladder_ends(
    outcome: LookupOutcome, now_after_send: float, lookups: int, seconds: float
) -> None:
    # time-out 5 s, met: conclusive from 5 + 5 = 10 s on, which is the rung +5; the ladder still has +15 and +30
    so_far = progress(now_after_send=now_after_send, lookups=lookups, timed_out=True)
    decision = look_up(outcome, so_far, policy(timeout_seconds=5, retries_timeouts=True))

    assert decision == InDoubt(delay_seconds=seconds, lookup_made=True, timed_out=True)


def test_proven_absent_is_posted_again_at_once_and_spends_a_retry() -> None:
    so_far = progress(now_after_send=65, lookups=4)

    assert look_up(LookupOutcome.ABSENT, so_far, policy()) == Retry(delay_seconds=0.0)


def test_proven_absent_with_the_retries_spent_fails() -> None:
    decision = look_up(LookupOutcome.ABSENT, progress(now_after_send=65, lookups=4, retries=3), policy())

    assert failed(decision) == (FailureReason.OUTCOME_UNKNOWN, True)


def test_proven_absent_after_a_time_out_fails_as_timeout() -> None:
    decision = look_up(LookupOutcome.ABSENT, progress(now_after_send=90, lookups=3, timed_out=True), policy())

    assert failed(decision) == (FailureReason.TIMEOUT, True)


def test_proven_absent_after_a_time_out_is_posted_again_where_the_target_says_so() -> None:
    so_far = progress(now_after_send=90, lookups=3, timed_out=True)

    assert look_up(LookupOutcome.ABSENT, so_far, policy(retries_timeouts=True)) == Retry(delay_seconds=0.0)


def test_time_outs_are_not_retried_for_ever() -> None:
    so_far = progress(now_after_send=90, lookups=3, timed_out=True, retries=3)
    decision = look_up(LookupOutcome.ABSENT, so_far, policy(retries_timeouts=True))

    assert failed(decision) == (FailureReason.TIMEOUT, True)


def test_not_known_at_the_conclusive_moment_fails_as_unknown() -> None:
    decision = look_up(LookupOutcome.NOT_KNOWN, progress(now_after_send=65, lookups=4), policy())

    assert failed(decision) == (FailureReason.OUTCOME_UNKNOWN, True)


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("retries_timeouts", [True, False])
@pytest.mark.parametrize("timed_out", [True, False])
@pytest.mark.parametrize("lookups", range(8))
@pytest.mark.parametrize("retries", [0, 3])
def test_nothing_is_posted_again_while_it_is_not_known(
    idempotent: bool, retries_timeouts: bool, timed_out: bool, lookups: int, retries: int
) -> None:
    by = policy(idempotent=idempotent, retries_timeouts=retries_timeouts)
    for now_after_send in (1, 30, 64, 65, 300):
        so_far = progress(now_after_send=now_after_send, timed_out=timed_out, lookups=lookups, retries=retries)

        assert not isinstance(look_up(LookupOutcome.NOT_KNOWN, so_far, by), Retry | Completed)


@pytest.mark.parametrize(
    ("idempotent", "timed_out", "retries_timeouts", "expected"),
    [
        (False, False, False, FailureReason.OUTCOME_UNKNOWN),
        (False, True, False, FailureReason.OUTCOME_UNKNOWN),
        (False, True, True, FailureReason.OUTCOME_UNKNOWN),
        (True, False, True, FailureReason.OUTCOME_UNKNOWN),  # the retries with the same key are spent
        (True, True, False, FailureReason.TIMEOUT),
    ],
)
def test_a_target_that_cannot_be_asked_ends_the_doubt(
    idempotent: bool, timed_out: bool, retries_timeouts: bool, expected: FailureReason
) -> None:
    by = policy(idempotent=idempotent, retries_timeouts=retries_timeouts)

    assert failed(look_up(LookupOutcome.UNSUPPORTED, progress(timed_out=timed_out), by)) == (expected, True)


def test_a_time_out_of_a_target_that_cannot_be_asked_is_posted_again_with_the_same_key_where_it_says_so() -> None:
    by = policy(idempotent=True, retries_timeouts=True)

    decision = look_up(LookupOutcome.UNSUPPORTED, progress(timed_out=True), by)

    assert decision == Retry(delay_seconds=0.0, still_in_doubt=True)


@pytest.mark.parametrize("outcome", [LookupOutcome.ABSENT, LookupOutcome.NOT_KNOWN, LookupOutcome.UNSUPPORTED])
def test_an_expired_request_that_is_not_found_fails_as_expired(outcome: LookupOutcome) -> None:
    decision = look_up(outcome, progress(now_after_send=86_400), policy())

    assert failed(decision) == (FailureReason.EXPIRED, True)


def test_an_expired_request_that_is_found_completes() -> None:
    decision = look_up(LookupOutcome.FOUND, progress(now_after_send=86_400), policy())

    assert isinstance(decision, Completed)


@pytest.mark.parametrize(("now_after_send", "is_over"), [(86_399.9, False), (86_400.0, True), (90_000.0, True)])
def test_a_request_expires_at_its_time_to_live(now_after_send: float, is_over: bool) -> None:
    assert progress(now_after_send=now_after_send).has_expired is is_over


def test_an_expired_request_is_a_dead_letter() -> None:
    assert failed(expired()) == (FailureReason.EXPIRED, True)


def test_waits_are_never_negative() -> None:
    by = [policy(timeout_seconds=seconds) for seconds in (1, 10, 60, 300)]
    for target, now, lookups, outcome in itertools.product(by, range(0, 400, 7), range(8), LookupOutcome):
        decision = look_up(outcome, progress(now_after_send=now, lookups=lookups), target)

        assert not isinstance(decision, InDoubt | Retry | Release) or decision.delay_seconds >= 0
