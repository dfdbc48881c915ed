"""The status machine's waits and ends: how long anything waits, what expires, is cancelled or redriven."""

import pytest

from intake_service.integration_request import (
    SECOND,
    IllegalTransition,
    InDoubt,
    Release,
    Retry,
    Standing,
    Status,
    Step,
    apply_step,
    cancel,
    expire,
    is_cancellable,
    is_stale,
    next_ring,
    path,
    redrive,
)
from tests.standings import COMPLETED, EXPIRES, FAILED, NOW, PROCESSING, RECEIVED, STEPS, WAITING, standing

# --- waits and expiry -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left_seconds", "delay_seconds", "due_seconds"),
    [
        (86_400, 8, 8),
        (86_400, 0, 0),
        (86_400, -5, 0),  # never into the past
        (100, 8, 8),
        (5, 8, 5),  # not beyond the expiry
        (0, 8, 8),  # expired already: whoever claims it next ends it
        (-60, 8, 8),
    ],
)
@pytest.mark.parametrize("kind", ["retry", "in_doubt", "release"])
def test_a_wait_ends_with_the_requests_time_to_live(
    kind: str, left_seconds: int, delay_seconds: float, due_seconds: int
) -> None:
    steps: dict[str, Step] = {
        "retry": Retry(delay_seconds=delay_seconds, spends_retry=True),
        "in_doubt": InDoubt(delay_seconds=delay_seconds, lookup_made=False, timed_out=False),
        "release": Release(delay_seconds=delay_seconds, not_sent=False),
    }

    after = apply_step(standing(WAITING, expires_at=NOW + left_seconds * SECOND), steps[kind], NOW)

    assert after.due_at == after.next_attempt_at == NOW + due_seconds * SECOND


@pytest.mark.parametrize(
    ("rings", "seconds"),
    [
        (0, 15),
        (1, 30),
        (2, 60),
        (3, 120),
        (4, 240),
        (5, 480),
        (6, 600),  # 15·2⁶ = 960, more than 10 min
        (7, 600),
        (1000, 600),
    ],
)
def test_a_ring_is_repeated_ever_more_rarely(rings: int, seconds: int) -> None:
    assert next_ring(rings, NOW, EXPIRES) == NOW + seconds * SECOND


@pytest.mark.parametrize(("left_seconds", "seconds"), [(20, 15), (10, 10), (0, 15), (-5, 15)])
def test_a_ring_is_not_put_off_beyond_the_expiry(left_seconds: int, seconds: int) -> None:
    assert next_ring(0, NOW, NOW + left_seconds * SECOND) == NOW + seconds * SECOND


@pytest.mark.parametrize("status", [RECEIVED, PROCESSING, WAITING])
def test_an_expired_request_ends_and_keeps_its_doubt(status: Status) -> None:
    before = standing(status)
    ended = expire(before)

    assert (ended.status, ended.failure_reason, ended.in_doubt) == (FAILED, "expired", before.in_doubt)
    assert (ended.due_at, ended.leased_by, ended.next_attempt_at) == (None, None, None)
    assert path(before.status, ended.status) == ((status, FAILED),)


# --- cancelling and redriving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "may"),
    [
        (standing(RECEIVED), True),
        (standing(PROCESSING), True),  # a worker checks it: its token becomes stale
        (standing(WAITING), False),  # it may be with the external system
        (standing(WAITING, in_doubt=False, leased_by=None), True),  # waits for a retry, certainly not applied
        (standing(RECEIVED, in_doubt=True), False),  # redriven with its doubt
        (standing(COMPLETED), False),
        (standing(FAILED), False),
    ],
)
def test_what_can_be_cancelled(request_: Standing, may: bool) -> None:
    assert is_cancellable(request_) is may


def test_a_cancelled_request_is_fenced_off_from_its_worker() -> None:
    before = standing(PROCESSING)
    ended = cancel(before, "Not wanted.")

    assert (ended.status, ended.failure_reason, ended.failure_detail) == (FAILED, "cancelled", "Not wanted.")
    assert ended.lease_token == before.lease_token + 1
    assert is_stale(ended, before.lease_token, STEPS["sending"])
    assert is_stale(ended, before.lease_token, STEPS["completed"])


def test_a_redrive_begins_a_new_cycle_and_forgets_no_attempt() -> None:
    failed = standing(
        FAILED, attempts=4, retries=3, lookups=2, claims=1, rings=5, timed_out=True, failure_reason="timeout", cycle=1
    )
    again = redrive(failed, NOW, 3600)

    assert (again.status, again.cycle, again.attempts) == (RECEIVED, 2, 4)
    assert (again.retries, again.lookups, again.claims, again.rings, again.timed_out) == (0, 0, 0, 0, False)
    assert (again.failure_reason, again.failure_detail, again.leased_by) == (None, None, None)
    assert again.expires_at == NOW + 3600 * SECOND  # a time to live of its own
    assert (again.due_at, again.next_attempt_at) == (NOW + 15 * SECOND, None)  # rung by its event; again in 15 s
    assert again.lease_token == failed.lease_token + 1


@pytest.mark.parametrize("doubt", [True, False])
def test_a_redrive_keeps_the_doubt(doubt: bool) -> None:
    assert redrive(standing(FAILED, in_doubt=doubt, sent_at=NOW), NOW, 3600).in_doubt is doubt


def test_a_redrive_of_what_an_operator_has_looked_for_is_in_no_doubt() -> None:
    failed = standing(FAILED, in_doubt=True, sent_at=NOW)

    assert not redrive(failed, NOW, 3600, certainly_absent=True).in_doubt


@pytest.mark.parametrize("status", [RECEIVED, PROCESSING, WAITING, COMPLETED])
def test_only_a_failed_request_is_redriven(status: Status) -> None:
    with pytest.raises(IllegalTransition):
        redrive(standing(status), NOW, 3600)


def test_a_late_success_is_taken_after_a_redrive() -> None:
    redriven = redrive(standing(FAILED, in_doubt=True), NOW, 3600)

    assert not is_stale(redriven, 7, STEPS["completed"])
    done = apply_step(redriven, STEPS["completed"], NOW)
    assert (done.status, done.in_doubt, done.due_at) == (COMPLETED, False, None)
    assert len(path(redriven.status, done.status)) == 3
