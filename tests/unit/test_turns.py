"""Long computations leave the event loop to others between two of them."""

import asyncio
import time
from itertools import pairwise

import pytest

from chassis.turns import PAUSE_FACTOR, Turns

BUSY_SECONDS = 0.02


def busy() -> float:
    end = time.perf_counter() + BUSY_SECONDS
    while time.perf_counter() < end:
        pass
    return end


async def test_many_computations_at_once_leave_gaps_longer_than_themselves() -> None:
    turns = Turns()

    ended = sorted(await asyncio.gather(*(turns.take(busy) for _ in range(5))))

    assert min(later - earlier for earlier, later in pairwise(ended)) >= (1 + PAUSE_FACTOR) * BUSY_SECONDS


async def test_a_computation_that_fails_gives_its_turn_back() -> None:
    turns = Turns()

    with pytest.raises(ZeroDivisionError):
        await turns.take(lambda: 1 // 0)

    assert await turns.take(lambda: 1) == 1


async def test_a_turn_that_does_not_come_in_time_is_not_waited_for() -> None:
    turns = Turns()
    first = asyncio.create_task(turns.take(busy))
    await asyncio.sleep(0)

    with pytest.raises(TimeoutError):
        await turns.take(lambda: pytest.fail("its turn had not come"), within_seconds=BUSY_SECONDS / 2)

    await first
    assert await turns.take(lambda: 1) == 1


async def test_a_turn_that_has_come_is_not_given_up() -> None:
    assert await Turns().take(busy, within_seconds=BUSY_SECONDS / 2)
