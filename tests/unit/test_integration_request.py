"""The status machine, all of it: every pair of statuses, every step in every status, and the arithmetic of time."""

from itertools import pairwise, product

import pytest

from intake_service.integration_request import (
    MAX_CLAIMS,
    SECOND,
    TRANSITIONS,
    Claimable,
    Failed,
    FailureReason,
    IllegalTransition,
    InDoubt,
    Release,
    Retry,
    Sending,
    Standing,
    Status,
    Step,
    apply_step,
    check_transition,
    claim,
    claimable,
    is_stale,
    path,
    poison,
)
from tests.standings import COMPLETED, FAILED, NOW, PROCESSING, RECEIVED, STEPS, WAITING, standing

# --- moves ----------------------------------------------------------------------------------------------------------

LEGAL = {
    (RECEIVED, PROCESSING),
    (RECEIVED, FAILED),
    (PROCESSING, WAITING),
    (PROCESSING, FAILED),
    (WAITING, COMPLETED),
    (WAITING, FAILED),
    (FAILED, RECEIVED),
}


@pytest.mark.parametrize(("before", "after"), list(product(Status, Status)))
def test_a_move_is_legal_or_it_is_refused(before: Status, after: Status) -> None:
    if before is after or (before, after) in LEGAL:
        check_transition(before, after)
    else:
        with pytest.raises(IllegalTransition):
            check_transition(before, after)


def test_the_table_of_moves_says_the_cause_of_each() -> None:
    assert set(TRANSITIONS) == LEGAL
    assert all(TRANSITIONS.values())


@pytest.mark.parametrize(
    ("before", "after", "moves"),
    [
        (RECEIVED, RECEIVED, 0),
        (RECEIVED, PROCESSING, 1),
        (FAILED, RECEIVED, 1),
        (WAITING, COMPLETED, 1),
        (RECEIVED, WAITING, 2),  # a claim that announces its post: Received → Processing → WaitingExternal
        (PROCESSING, COMPLETED, 2),  # Processing → WaitingExternal → Completed
        (RECEIVED, COMPLETED, 3),  # a late success after a redrive: Received → Processing → WaitingExternal → Completed
    ],
)
def test_a_path_has_no_gap(before: Status, after: Status, moves: int) -> None:
    steps = path(before, after)

    assert len(steps) == moves
    assert all(move in LEGAL for move in steps)
    assert all(first[1] is second[0] for first, second in pairwise(steps))
    if steps:
        assert (steps[0][0], steps[-1][1]) == (before, after)


def test_there_is_no_path_that_the_table_does_not_have() -> None:
    for before, after in product(Status, Status):
        is_several = after is COMPLETED or (before, after) == (RECEIVED, WAITING)
        if not is_several and before is not after and (before, after) not in LEGAL:
            with pytest.raises(IllegalTransition):
                path(before, after)


# --- claims ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "worker", "verdict"),
    [
        (standing(RECEIVED), "w1", Claimable.GRANTED),
        (standing(PROCESSING), "w2", Claimable.NOT_AVAILABLE),  # held by w1
        (standing(PROCESSING), "w1", Claimable.GRANTED),  # its own answer was lost
        (standing(PROCESSING, due_at=NOW), "w2", Claimable.NOT_AVAILABLE),  # it is over, and not taken yet
        (standing(PROCESSING, due_at=NOW), "w1", Claimable.GRANTED),
        (standing(PROCESSING, leased_by=None), "w2", Claimable.GRANTED),  # given back
        (standing(WAITING), "w2", Claimable.NOT_AVAILABLE),
        (standing(WAITING, leased_by=None, next_attempt_at=NOW + 1), "w2", Claimable.NOT_AVAILABLE),  # not due yet
        (standing(WAITING, leased_by=None, next_attempt_at=NOW), "w2", Claimable.GRANTED),
        (standing(COMPLETED), "w1", Claimable.NOT_AVAILABLE),
        (standing(FAILED), "w1", Claimable.NOT_AVAILABLE),
        (standing(RECEIVED, claims=MAX_CLAIMS - 1), "w1", Claimable.GRANTED),
        (standing(RECEIVED, claims=MAX_CLAIMS), "w1", Claimable.POISONED),
        (standing(PROCESSING, claims=MAX_CLAIMS), "w2", Claimable.NOT_AVAILABLE),  # the fifth worker still has it
    ],
)
def test_who_may_have_the_lease(request_: Standing, worker: str, verdict: Claimable) -> None:
    assert claimable(request_, worker, NOW) is verdict


@pytest.mark.parametrize(("before", "after"), [(RECEIVED, PROCESSING), (PROCESSING, PROCESSING), (WAITING, WAITING)])
def test_a_claim_moves_a_received_request_only(before: Status, after: Status) -> None:
    assert claim(standing(before), "w2", NOW).status is after


def test_a_claim_gives_a_new_token_and_75_seconds() -> None:
    claimed = claim(standing(RECEIVED, lease_token=41, rings=3, next_attempt_at=NOW), "w2", NOW)

    assert (claimed.lease_token, claimed.leased_by, claimed.claims, claimed.rings) == (42, "w2", 1, 0)
    assert (claimed.due_at, claimed.next_attempt_at) == (NOW + 75 * SECOND, None)


def test_a_claim_neither_counts_an_attempt_nor_clears_a_doubt() -> None:
    claimed = claim(standing(WAITING, leased_by=None), "w2", NOW)

    assert (claimed.attempts, claimed.in_doubt, claimed.sent_at) == (1, True, NOW)


def test_five_claims_without_an_outcome_poison_a_request() -> None:
    request = standing(RECEIVED)
    for number in range(MAX_CLAIMS):
        assert claimable(request, f"w{number}", NOW) is Claimable.GRANTED
        request = claim(request, f"w{number}", NOW)._replace(leased_by=None)  # and the worker dies

    ended = poison(request)

    assert claimable(request, "w9", NOW) is Claimable.POISONED
    assert (ended.status, ended.failure_reason) == (FAILED, "poisoned")
    assert ended.failure_detail is not None
    assert "5 times" in ended.failure_detail
    assert (ended.due_at, ended.leased_by) == (None, None)


def test_a_worker_that_claims_again_for_its_lost_answers_poisons_nothing() -> None:
    request = standing(RECEIVED)
    for _ in range(MAX_CLAIMS + 1):
        assert claimable(request, "w1", NOW) is Claimable.GRANTED
        request = claim(request, "w1", NOW)

    assert (request.claims, request.lease_token) == (1, MAX_CLAIMS + 1)


@pytest.mark.parametrize("step", [name for name in STEPS if name != "sending"])
def test_every_outcome_begins_the_count_of_claims_anew(step: str) -> None:
    assert apply_step(standing(WAITING, claims=4), STEPS[step], NOW).claims == 0


def test_an_announced_post_is_no_outcome_yet() -> None:
    assert apply_step(standing(PROCESSING, claims=4), STEPS["sending"], NOW).claims == 4


# --- reports --------------------------------------------------------------------------------------------------------

AFTER: dict[Status, dict[str, Status | None]] = {
    # None: refused as stale
    RECEIVED: dict.fromkeys(STEPS) | {"completed": COMPLETED},  # nobody holds it, but a success is true
    PROCESSING: {
        "sending": WAITING,
        "completed": COMPLETED,
        "failed": FAILED,
        "retry": PROCESSING,
        "in_doubt": PROCESSING,
        "release": PROCESSING,
    },
    WAITING: {
        "sending": WAITING,
        "completed": COMPLETED,
        "failed": FAILED,
        "retry": WAITING,
        "in_doubt": WAITING,
        "release": WAITING,
    },
    COMPLETED: dict.fromkeys(STEPS),
    FAILED: dict.fromkeys(STEPS),
}


@pytest.mark.parametrize(("status", "step"), list(product(Status, STEPS)))
def test_what_every_step_does_in_every_status(status: Status, step: str) -> None:
    request, expected = standing(status), AFTER[status][step]

    if expected is None:
        assert is_stale(request, request.lease_token, STEPS[step])
        return
    after = apply_step(request, STEPS[step], NOW)
    assert not is_stale(request, request.lease_token, STEPS[step])
    assert after.status is expected
    assert set(path(status, after.status)) <= LEGAL
    assert (after.due_at is None) == after.status.is_terminal
    assert after.lease_token == request.lease_token


@pytest.mark.parametrize(("status", "step", "token"), list(product([PROCESSING, WAITING], STEPS, [6, 8])))
def test_an_old_or_invented_token_is_stale_except_for_a_success(status: Status, step: str, token: int) -> None:
    assert is_stale(standing(status), token, STEPS[step]) is (step != "completed")


@pytest.mark.parametrize("step", STEPS)
def test_the_token_of_a_lost_lease_is_stale_except_for_a_success(step: str) -> None:
    assert is_stale(standing(WAITING, leased_by=None), 7, STEPS[step]) is (step != "completed")


def test_sending_counts_an_attempt_and_marks_the_doubt_before_the_first_byte() -> None:
    after = apply_step(standing(PROCESSING, timed_out=True, lookups=3), Sending(timeout_seconds=60), NOW)

    assert (after.attempts, after.in_doubt, after.sent_at, after.timed_out, after.lookups) == (1, True, NOW, False, 0)
    assert after.due_at == NOW + (60 + 15) * SECOND  # the attempt may take 60 s; 15 s more to tell of it
    assert after.leased_by == "w1"


def test_sending_told_twice_under_one_token_counts_once() -> None:
    once = apply_step(standing(PROCESSING), STEPS["sending"], NOW)

    assert apply_step(once, STEPS["sending"], NOW + SECOND) == once


def test_sending_again_after_another_claim_counts_again() -> None:
    once = apply_step(standing(PROCESSING), STEPS["sending"], NOW)
    again = claim(apply_step(once, STEPS["retry"], NOW), "w1", NOW + 2 * SECOND)

    assert apply_step(again, STEPS["sending"], NOW + 2 * SECOND).attempts == 2


def test_a_success_clears_what_went_before() -> None:
    after = apply_step(standing(WAITING, failure_reason="timeout", failure_detail="x"), STEPS["completed"], NOW)

    assert (after.external_response_json, after.in_doubt, after.leased_by) == ('{"id":1}', False, None)
    assert (after.failure_reason, after.failure_detail, after.next_attempt_at) == (None, None, None)


@pytest.mark.parametrize(
    ("reason", "doubt"),
    [
        (FailureReason.EXTERNAL_REJECTED, False),  # it said no
        (FailureReason.EXTERNAL_UNAVAILABLE, False),  # certainly not applied
        (FailureReason.CANCELLED, False),  # only what is not in doubt is cancelled
        (FailureReason.VALIDATION_FAILED, True),  # says nothing of what an earlier cycle has posted
        (FailureReason.TIMEOUT, True),
        (FailureReason.OUTCOME_UNKNOWN, True),
        (FailureReason.EXPIRED, True),
        (FailureReason.POISONED, True),
    ],
)
def test_which_failures_leave_a_doubt(reason: FailureReason, doubt: bool) -> None:
    step = Failed(reason=reason, detail="", dead_letter=True)

    assert apply_step(standing(WAITING), step, NOW).in_doubt is doubt
    assert apply_step(standing(PROCESSING), step, NOW).in_doubt is False  # nothing was sent


def test_a_failure_says_why() -> None:
    after = apply_step(standing(WAITING), STEPS["failed"], NOW)

    assert (after.failure_reason, after.failure_detail) == ("timeout", "It took too long.")
    assert (after.leased_by, after.next_attempt_at, after.attempts) == (None, None, 1)


@pytest.mark.parametrize(("spends", "retries"), [(True, 3), (False, 2)])
def test_a_retry_spends_from_the_profile_or_not(spends: bool, retries: int) -> None:
    step = Retry(delay_seconds=8, spends_retry=spends)
    after = apply_step(standing(WAITING, retries=2, timed_out=True), step, NOW)

    assert (after.retries, after.in_doubt, after.timed_out, after.attempts) == (retries, False, False, 1)
    assert after.due_at == after.next_attempt_at == NOW + 8 * SECOND
    assert after.leased_by is None


@pytest.mark.parametrize(
    "step",
    [
        Retry(delay_seconds=0, spends_retry=True, still_in_doubt=True),
        Release(delay_seconds=0, not_sent=True, still_in_doubt=True),
    ],
)
def test_a_doubt_outlives_a_later_post_that_came_to_nothing(step: Step) -> None:
    after = apply_step(standing(WAITING), step, NOW)

    assert (after.in_doubt, after.sent_at) == (True, NOW)


@pytest.mark.parametrize(
    ("lookups", "timed_out", "step", "expected"),
    [
        (0, False, InDoubt(delay_seconds=2, lookup_made=False, timed_out=False), (0, False)),
        (0, False, InDoubt(delay_seconds=2, lookup_made=False, timed_out=True), (0, True)),
        (1, True, InDoubt(delay_seconds=2, lookup_made=True, timed_out=False), (2, True)),  # a time-out is kept
    ],
)
def test_a_doubt_keeps_count_of_its_lookups(
    lookups: int,
    timed_out: bool,
    step: InDoubt,
    expected: tuple[int, bool],
) -> None:
    after = apply_step(standing(WAITING, lookups=lookups, timed_out=timed_out), step, NOW)

    assert (after.lookups, after.timed_out) == expected
    assert (after.in_doubt, after.sent_at, after.attempts) == (True, NOW, 1)


@pytest.mark.parametrize(
    ("since_sent", "sent_after"),
    [
        (None, 0),
        (3.0, 5),  # announced 8 s ago, sent 3 s ago: our own pause lay between
        (9.0, 0),  # never before it was announced
    ],
)
def test_a_doubt_counts_from_when_the_post_was_really_sent(since_sent: float | None, sent_after: int) -> None:
    step = InDoubt(delay_seconds=2, lookup_made=False, timed_out=True, since_sent_seconds=since_sent)
    after = apply_step(standing(WAITING), step, NOW + 8 * SECOND)

    assert after.sent_at == NOW + sent_after * SECOND


def test_a_release_keeps_attempt_and_doubt() -> None:
    after = apply_step(standing(WAITING, retries=1), Release(delay_seconds=2, not_sent=False), NOW)

    assert (after.attempts, after.in_doubt, after.retries, after.leased_by) == (1, True, 1, None)
    assert after.due_at == NOW + 2 * SECOND


def test_a_release_of_what_was_never_sent_takes_the_attempt_back() -> None:
    after = apply_step(standing(WAITING), Release(delay_seconds=2, not_sent=True), NOW)

    assert (after.attempts, after.in_doubt, after.sent_at) == (0, False, None)
    assert after.status is WAITING


def test_an_attempt_that_was_taken_back_is_counted_when_it_is_announced_again() -> None:
    released = apply_step(standing(WAITING), Release(delay_seconds=0, not_sent=True), NOW)
    again = apply_step(claim(released, "w1", NOW), STEPS["sending"], NOW)

    assert (again.attempts, again.in_doubt) == (1, True)
