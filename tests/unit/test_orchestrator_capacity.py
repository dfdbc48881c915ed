"""How much a target is given: shares, rate, breaker, pauses and saturation, on a clock that the test turns."""

import asyncio
from collections.abc import Sequence

import pytest

from chassis.targets import Target
from orchestrator_service.breaker import BreakerState
from orchestrator_service.capacity import TargetCapacity, Wait, WaitReason
from orchestrator_service.retry import Outcome
from tests.capacities import Time, capacity_of, end, take, take_all


@pytest.fixture
def time() -> Time:
    return Time()


def test_places_that_are_taken_together_are_as_many_as_one_by_one(time: Time) -> None:
    together, one_by_one = (capacity_of(time, rate=50) for _ in range(2))
    time.at += 1  # a tenth of a second's calls at once: 5

    assert len(together.take(100)) == len(take_all(one_by_one)) == 5
    assert together.take(100) == []


def test_of_a_half_open_target_one_place_is_given_however_many_are_wanted(time: Time) -> None:
    capacity = capacity_of(time)
    open_breaker(capacity)
    time.at += 30

    assert len(capacity.take(100)) == 1
    assert capacity.take(100) == []


def calls(capacity: TargetCapacity, outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        end(outcome, take(capacity))


def open_breaker(capacity: TargetCapacity) -> None:
    calls(capacity, [Outcome.UNAVAILABLE] * 10)


def test_gives_nothing_before_the_first_heartbeat(time: Time) -> None:
    target = Target(name="T", adapter="http_json", base_url="http://127.0.0.1:1")

    assert TargetCapacity(target, time).free() == 0


@pytest.mark.parametrize(
    ("concurrency", "workers", "shares"),
    [
        (8, 1, [8]),
        (8, 2, [4, 4]),
        (8, 3, [3, 3, 2]),  # 8 // 3 = 2, and the rest of 2 goes to the first two
        (2, 3, [1, 1, 0]),
        (1, 4, [1, 0, 0, 0]),
    ],
)
def test_shares_of_all_workers_make_the_limit(time: Time, concurrency: int, workers: int, shares: list[int]) -> None:
    given = [
        capacity_of(time, concurrency=concurrency, workers=workers, index=index).free() for index in range(workers)
    ]

    assert given == shares


def test_a_place_is_taken_and_given_back(time: Time) -> None:
    capacity = capacity_of(time, concurrency=2)
    place = take(capacity)
    in_use = capacity.free()
    place.leave()

    assert (in_use, capacity.free()) == (1, 2)


def test_no_more_places_than_the_limit(time: Time) -> None:
    capacity = capacity_of(time, concurrency=2)

    assert len(take_all(capacity)) == 2
    assert capacity.wait() == Wait(reason=WaitReason.CONCURRENCY)


def test_a_smaller_share_lets_what_is_in_flight_finish(time: Time) -> None:
    capacity = capacity_of(time, concurrency=4)
    places = take_all(capacity)
    capacity.set_share(workers=2, index=0)
    for place in places[:2]:
        place.leave()
    still_full = capacity.free()
    places[2].leave()

    assert (still_full, capacity.free()) == (0, 1)


def test_calls_keep_to_the_rate(time: Time) -> None:
    capacity = capacity_of(time, rate=4, concurrency=8)
    end(Outcome.DELIVERED, take(capacity))

    # one token every 1/4 s
    assert capacity.wait() == Wait(reason=WaitReason.RATE, until=1000.25)
    time.at += 0.25
    assert capacity.free() == 1


@pytest.mark.parametrize(
    ("rate", "burst"),
    [
        (4, 1),  # 4 * 0.1 = 0.4: one at least
        (100, 10),  # 100 * 0.1
    ],
)
def test_after_a_quiet_time_a_tenth_of_a_seconds_calls_may_go_at_once(time: Time, rate: float, burst: int) -> None:
    capacity = capacity_of(time, rate=rate, concurrency=50)
    time.at += 3600

    assert len(take_all(capacity)) == burst


def test_no_more_calls_in_a_second_than_the_rate_and_one_burst(time: Time) -> None:
    capacity = capacity_of(time, rate=100, concurrency=50)
    made = 0
    for _ in range(1000):
        places = take_all(capacity)
        made += len(places)
        end(Outcome.DELIVERED, *places)
        time.at += 0.001

    assert 100 <= made <= 110


def test_the_rate_is_shared_by_the_workers_that_have_a_place(time: Time) -> None:
    # 3 workers share 2 places, so 2 of them share 10 calls a second: one in 0.2 s
    capacity = capacity_of(time, rate=10, concurrency=2, workers=3, index=0)
    end(Outcome.DELIVERED, take(capacity))

    assert capacity.wait() == Wait(reason=WaitReason.RATE, until=1000.2)


def test_a_place_without_a_call_spends_no_token(time: Time) -> None:
    capacity = capacity_of(time, rate=1)
    take(capacity).leave()

    assert capacity.free() == 1


def test_an_open_breaker_gives_no_room(time: Time) -> None:
    capacity = capacity_of(time)
    open_breaker(capacity)

    assert capacity.wait() == Wait(reason=WaitReason.BREAKER_OPEN, until=1030.0)


@pytest.mark.parametrize("outcome", [Outcome.UNAVAILABLE, Outcome.UNKNOWN])
def test_unavailable_and_unknown_are_failures(time: Time, outcome: Outcome) -> None:
    capacity = capacity_of(time)
    calls(capacity, [outcome] * 10)

    assert capacity.breaker is BreakerState.OPEN


@pytest.mark.parametrize("outcome", [Outcome.DELIVERED, Outcome.REJECTED, Outcome.THROTTLED])
def test_an_answer_is_no_failure_even_when_it_refuses(time: Time, outcome: Outcome) -> None:
    capacity = capacity_of(time)
    calls(capacity, [outcome] * 50)

    assert capacity.breaker is BreakerState.CLOSED


def test_half_open_lets_one_through(time: Time) -> None:
    capacity = capacity_of(time)
    open_breaker(capacity)
    time.at += 30

    assert len(take_all(capacity)) == 1
    assert capacity.wait() == Wait(reason=WaitReason.BREAKER_OPEN)


def test_the_one_that_succeeds_closes_the_breaker(time: Time) -> None:
    capacity = capacity_of(time)
    open_breaker(capacity)
    time.at += 30
    end(Outcome.DELIVERED, take(capacity))

    assert capacity.free() == 8


def test_the_one_that_fails_opens_it_for_a_minute(time: Time) -> None:
    capacity = capacity_of(time)
    open_breaker(capacity)
    time.at += 30
    end(Outcome.UNAVAILABLE, take(capacity))

    assert capacity.wait() == Wait(reason=WaitReason.BREAKER_OPEN, until=1090.0)


def test_the_one_that_made_no_call_lets_another_try(time: Time) -> None:
    capacity = capacity_of(time)
    open_breaker(capacity)
    time.at += 30
    take(capacity).leave()

    assert capacity.free() == 1


def test_a_place_from_before_the_breaker_opened_gives_way(time: Time) -> None:
    capacity = capacity_of(time, concurrency=11)
    early = take(capacity)
    open_breaker(capacity)
    time.at += 10

    assert early.refusal() == 20.0  # 30 - 10


def test_a_place_from_before_the_breaker_opened_does_not_try_the_target(time: Time) -> None:
    capacity = capacity_of(time, concurrency=11)
    early = take(capacity)
    open_breaker(capacity)
    time.at += 31
    probe = take(capacity)

    assert (early.refusal(), probe.refusal()) == (2.0, None)


@pytest.mark.parametrize("outcome", [Outcome.THROTTLED, Outcome.UNAVAILABLE])
def test_retry_after_pauses_the_whole_target(time: Time, outcome: Outcome) -> None:
    capacity = capacity_of(time)
    other = take(capacity)
    end(outcome, take(capacity), retry_after=20)

    assert capacity.wait() == Wait(reason=WaitReason.RETRY_AFTER, until=1020.0)
    assert other.refusal() == 20.0


def test_a_pause_ends_by_itself(time: Time) -> None:
    capacity = capacity_of(time)
    end(Outcome.UNAVAILABLE, take(capacity), retry_after=20)
    time.at += 20

    assert capacity.wait() is None


def test_a_pause_is_an_hour_at_most(time: Time) -> None:
    capacity = capacity_of(time)
    end(Outcome.UNAVAILABLE, take(capacity), retry_after=86_400)

    assert capacity.wait() == Wait(reason=WaitReason.RETRY_AFTER, until=1000.0 + 3600)


def test_a_shorter_pause_does_not_cut_a_longer_one(time: Time) -> None:
    capacity = capacity_of(time)
    places = [take(capacity), take(capacity)]
    end(Outcome.UNAVAILABLE, places[0], retry_after=60)
    end(Outcome.UNAVAILABLE, places[1], retry_after=1)

    assert capacity.wait() == Wait(reason=WaitReason.RETRY_AFTER, until=1060.0)


def test_saturation_halves_the_limit_once_for_all_calls_in_flight(time: Time) -> None:
    capacity = capacity_of(time, concurrency=8)
    places = take_all(capacity)
    time.at += 1
    end(Outcome.THROTTLED, *places)

    assert capacity.limit == 4


def test_saturation_again_halves_again_down_to_one(time: Time) -> None:
    capacity = capacity_of(time, concurrency=8)
    limits = []
    for _ in range(5):
        place = take(capacity)
        time.at += 1
        end(Outcome.THROTTLED, place)
        limits.append(capacity.limit)

    assert limits == [4, 2, 1, 1, 1]


def test_the_limit_rises_by_one_for_each_full_round_of_successes(time: Time) -> None:
    capacity = capacity_of(time, concurrency=8)
    end(Outcome.THROTTLED, take(capacity))
    limits = []
    for _ in range(26):
        calls(capacity, [Outcome.DELIVERED])
        limits.append(capacity.limit)

    # 4 successes to 5, 5 more to 6, 6 more to 7, 7 more to 8: 4 + 5 + 6 + 7 = 22
    assert [limits.index(limit) + 1 for limit in (5, 6, 7, 8)] == [4, 9, 15, 22]
    assert limits[-1] == 8


def test_an_unsaturated_target_takes_a_larger_share_at_once(time: Time) -> None:
    capacity = capacity_of(time, concurrency=8, workers=2)
    capacity.set_share(workers=1, index=0)

    assert capacity.limit == 8


def test_draining_gives_nothing_and_takes_back_what_was_not_sent(time: Time) -> None:
    capacity = capacity_of(time)
    place = take(capacity)
    capacity.drain()

    assert capacity.wait() == Wait(reason=WaitReason.DRAINING)
    assert place.refusal() == 0.0


async def test_room_comes_at_once_when_there_is_some(time: Time) -> None:
    assert await capacity_of(time, concurrency=3).room() == 3


async def test_who_waits_for_room_wakes_when_a_place_is_left(time: Time) -> None:
    capacity = capacity_of(time, concurrency=1)
    place = take(capacity)
    waiting = asyncio.create_task(capacity.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    place.leave()

    async with asyncio.timeout(5):
        assert await waiting == 1


async def test_who_waits_for_room_wakes_when_the_share_comes(time: Time) -> None:
    target = Target(name="T", adapter="http_json", base_url="http://127.0.0.1:1")
    capacity = TargetCapacity(target, time)
    waiting = asyncio.create_task(capacity.room())
    await asyncio.sleep(0)
    capacity.set_share(workers=1, index=0)

    async with asyncio.timeout(5):
        assert await waiting == 8


async def test_who_waits_for_a_pause_wakes_when_it_is_over() -> None:
    loop = asyncio.get_running_loop()
    target = Target(name="T", adapter="http_json", base_url="http://127.0.0.1:1")
    capacity = TargetCapacity(target, loop.time)
    capacity.set_share(workers=1, index=0)
    end(Outcome.THROTTLED, take(capacity), retry_after=0.05)
    before = loop.time()

    assert await capacity.room() == 4
    assert loop.time() - before >= 0.045


class PassingTime(Time):
    """A clock that passes while it is looked at."""

    def __call__(self) -> float:
        self.at += 0.001
        return self.at


@pytest.mark.parametrize("kind", ["pause", "breaker", "rate"])
async def test_a_wait_that_ends_between_two_looks_at_it_is_over(kind: str) -> None:
    for start in range(40):  # milliseconds before its end
        time = PassingTime()
        capacity = capacity_of(time, rate=10 if kind == "rate" else 0)
        if kind == "pause":
            capacity.pause(start / 1000)
        elif kind == "breaker":
            open_breaker(capacity)
            time.at += 30 - start / 1000
        else:
            capacity.take(1)
            time.at += 0.1 - start / 1000

        async with asyncio.timeout(5):
            assert await capacity.room() >= 1
