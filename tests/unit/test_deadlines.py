"""Deadlines keeps asyncio.timeout_at's rules, each wait by its own instant."""

import asyncio

import pytest

from chassis.deadlines import Deadlines


def from_now(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_what_takes_too_long_times_out() -> None:
    deadlines = Deadlines()

    for _ in range(2):  # the timer is set again for whoever comes after
        with pytest.raises(TimeoutError), deadlines.until(from_now(0.01)):
            await asyncio.Event().wait()


async def test_what_was_late_when_it_began_times_out() -> None:
    with pytest.raises(TimeoutError), Deadlines().until(from_now(-1)):
        await asyncio.Event().wait()


@pytest.mark.parametrize("order", [(0.01, 0.03), (0.03, 0.01)])
async def test_each_wait_ends_at_its_own_instant(order: tuple[float, float]) -> None:
    deadlines = Deadlines()

    async def wait(seconds: float) -> float:
        loop, deadline = asyncio.get_running_loop(), from_now(seconds)
        with pytest.raises(TimeoutError), deadlines.until(deadline):
            await asyncio.Event().wait()
        return loop.time() - deadline

    overdue = await asyncio.gather(*map(wait, order))

    assert min(overdue) >= -0.001  # the loop counts in milliseconds


async def test_every_wait_that_is_late_times_out_and_no_other() -> None:
    deadlines = Deadlines()
    quick = asyncio.Event()

    async def wait_for(event: asyncio.Event) -> str:
        with deadlines.until(from_now(0.01)):
            await event.wait()
        return "in time"

    waits = [asyncio.create_task(wait_for(event)) for event in (asyncio.Event(), quick, asyncio.Event())]
    asyncio.get_running_loop().call_soon(quick.set)
    late, in_time, also_late = await asyncio.gather(*waits, return_exceptions=True)

    assert in_time == "in time"
    assert [type(late), type(also_late)] == [TimeoutError, TimeoutError]


async def test_a_wait_that_is_over_cancels_nobody() -> None:
    with Deadlines().until(from_now(0.01)):
        pass
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.03, passed.set_result, "not cancelled")

    assert await passed == "not cancelled"


async def test_an_error_passes_as_it_is() -> None:
    with pytest.raises(LookupError), Deadlines().until(from_now(1)):
        raise LookupError


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def wait() -> None:
        with Deadlines().until(from_now(0.01)):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.Event().wait()  # late too: it is cancelled for both reasons

    task = asyncio.create_task(wait())
    asyncio.get_running_loop().call_soon(task.cancel)

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_wait_within_so_many_seconds_times_out_after_them() -> None:
    begun = asyncio.get_running_loop().time()

    with pytest.raises(TimeoutError), Deadlines().within(0.02):
        await asyncio.Event().wait()

    assert asyncio.get_running_loop().time() - begun >= 0.019  # the loop counts in milliseconds
