"""More is claimed of a fast target than it is called at once, and it is never called more at once than it may be."""

import asyncio

import pytest

from orchestrator_service.capacity import TargetCapacity, Wait, WaitReason
from orchestrator_service.retry import Outcome
from tests.capacities import Time, capacity_of, end, take, take_all


@pytest.fixture
def time() -> Time:
    return Time()


async def call(capacity: TargetCapacity, time: Time, *, seconds: float) -> None:
    """One post that was delivered after so long."""
    place = take(capacity)
    assert await place.turn()
    place.call()
    time.at += seconds
    place.record(Outcome.DELIVERED)
    place.answered()
    place.leave()


async def test_of_a_fast_target_that_honours_the_key_more_is_taken_than_it_is_called(time: Time) -> None:
    capacity = capacity_of(time, concurrency=2, idempotent=True)
    await call(capacity, time, seconds=0.1)  # it takes 6 in 0.3 s

    assert len(take_all(capacity)) > capacity.limit == 2


async def test_places_beyond_the_limit_are_taken_by_halves(time: Time) -> None:
    capacity = capacity_of(time, concurrency=2, idempotent=True)
    await call(capacity, time, seconds=0.125)  # it takes 4 in 0.3 s
    first, second, third, *rest = capacity.take(100)
    assert len(rest) == 3
    first.leave()
    second.leave()
    assert (capacity.free(), capacity.wait()) == (0, Wait(reason=WaitReason.CONCURRENCY))
    third.leave()

    assert capacity.free() == 3


@pytest.mark.parametrize(("idempotent", "rate"), [(False, 0), (True, 1000)])
async def test_of_others_no_more_is_taken_than_they_are_called(time: Time, idempotent: bool, rate: float) -> None:
    capacity = capacity_of(time, concurrency=2, idempotent=idempotent, rate=rate)
    await call(capacity, time, seconds=0.1)

    assert len(capacity.take(100)) == 2


async def test_of_a_saturated_target_no_more_is_taken_than_it_is_called(time: Time) -> None:
    capacity = capacity_of(time, concurrency=8, idempotent=True)
    await call(capacity, time, seconds=0.1)
    end(Outcome.THROTTLED, take(capacity))

    assert len(capacity.take(100)) == capacity.limit == 4


async def test_an_answer_lets_the_next_one_call_before_it_is_recorded(time: Time) -> None:
    capacity = capacity_of(time, concurrency=1, idempotent=True)
    await call(capacity, time, seconds=0.1)
    first, second = capacity.take(2)
    assert await first.turn()
    waiting = asyncio.create_task(second.turn())
    await asyncio.sleep(0)
    assert not waiting.done()
    first.answered()

    assert await waiting
    assert capacity.in_flight == 1


async def test_a_place_that_is_left_without_an_answer_gives_its_turn_back(time: Time) -> None:
    capacity = capacity_of(time, concurrency=1)
    place = take(capacity)
    assert await place.turn()
    place.leave()

    assert (capacity.in_flight, await take(capacity).turn()) == (0, True)


async def test_who_has_a_turn_may_ask_for_it_again(time: Time) -> None:
    capacity = capacity_of(time, concurrency=1)
    place = take(capacity)

    assert [await place.turn(), await place.turn(), capacity.in_flight] == [True, True, 1]
