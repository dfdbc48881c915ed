"""The circuit breaker, second by second."""

import pytest

from orchestrator_service.breaker import Breaker, BreakerState

T0 = 1000.0


def opened(breaker: Breaker, at: float = T0) -> Breaker:
    for _ in range(10):
        breaker.record(at, failed=True)
    return breaker


def test_starts_closed() -> None:
    assert Breaker().state(T0) is BreakerState.CLOSED


@pytest.mark.parametrize(("failures", "state"), [(9, BreakerState.CLOSED), (10, BreakerState.OPEN)])
def test_opens_at_10_failures_in_a_row(failures: int, state: BreakerState) -> None:
    breaker = Breaker()
    for second in range(failures):
        breaker.record(T0 + second * 100, failed=True)  # in a row counts over any time

    assert breaker.state(T0 + failures * 100 - 100) is state


def test_a_success_breaks_the_row() -> None:
    breaker = Breaker()
    for _ in range(9):
        breaker.record(T0, failed=True)
    breaker.record(T0 + 100, failed=False)
    breaker.record(T0 + 200, failed=True)

    assert breaker.state(T0 + 200) is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("successes", "failures", "state"),
    [
        (5, 5, BreakerState.OPEN),  # 5 of 10 = 50 %
        (6, 5, BreakerState.CLOSED),  # 5 of 11 = 45 %
        (4, 5, BreakerState.CLOSED),  # only 9 calls
        (9, 9, BreakerState.OPEN),
        (90, 10, BreakerState.OPEN),  # 10 %, but 10 in a row
    ],
)
def test_opens_when_half_of_at_least_10_calls_fail(successes: int, failures: int, state: BreakerState) -> None:
    breaker = Breaker()
    for _ in range(successes):
        breaker.record(T0, failed=False)
    for _ in range(failures):
        breaker.record(T0 + 59, failed=True)

    assert breaker.state(T0 + 59) is state


def test_calls_older_than_60_seconds_are_forgotten() -> None:
    breaker = Breaker()
    for _ in range(9):
        breaker.record(T0, failed=False)
    for _ in range(5):
        breaker.record(T0 + 60, failed=True)

    # without the 9 that are gone there are too few calls
    assert breaker.state(T0 + 60) is BreakerState.CLOSED


def test_does_not_open_on_a_success() -> None:
    breaker = Breaker()
    for _ in range(5):
        breaker.record(T0, failed=True)
    for _ in range(5):
        breaker.record(T0, failed=False)

    assert breaker.state(T0) is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, BreakerState.OPEN), (29.9, BreakerState.OPEN), (30, BreakerState.HALF_OPEN)]
)
def test_lets_one_through_after_30_seconds(seconds: float, state: BreakerState) -> None:
    assert opened(Breaker()).state(T0 + seconds) is state


def test_closes_when_the_one_succeeds() -> None:
    breaker = opened(Breaker())
    breaker.record_probe(T0 + 30, failed=False)

    assert breaker.state(T0 + 30) is BreakerState.CLOSED


def test_what_failed_before_it_opened_is_forgotten_when_it_closes() -> None:
    breaker = opened(Breaker())
    breaker.record_probe(T0 + 30, failed=False)
    breaker.record(T0 + 31, failed=True)

    assert breaker.state(T0 + 31) is BreakerState.CLOSED


def test_stays_open_twice_as_long_each_time_up_to_5_minutes() -> None:
    breaker, now, spans = opened(Breaker()), T0, []
    for _ in range(6):
        assert breaker.open_until is not None
        spans.append(breaker.open_until - now)
        now = breaker.open_until
        breaker.record_probe(now, failed=True)

    assert spans == [30, 60, 120, 240, 300, 300]


def test_begins_with_30_seconds_again_after_it_closed() -> None:
    breaker = opened(Breaker())
    breaker.record_probe(T0 + 30, failed=True)
    breaker.record_probe(T0 + 90, failed=False)
    opened(breaker, T0 + 100)

    assert breaker.open_until == T0 + 130


def test_calls_that_began_before_it_opened_change_nothing() -> None:
    breaker = opened(Breaker())
    breaker.record(T0 + 5, failed=True)
    breaker.record(T0 + 31, failed=False)

    assert breaker.open_until == T0 + 30
