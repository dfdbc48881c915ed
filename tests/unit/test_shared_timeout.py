"""The gateway's shared time limit keeps asyncio.timeout's rules."""

import asyncio

import pytest

from gateway.shared_timeout import SharedTimeout


async def test_what_takes_too_long_times_out() -> None:
    timeout = SharedTimeout(0.01)

    for _ in range(2):  # the timer is set again for whoever comes after
        with pytest.raises(TimeoutError), timeout.begin():
            await asyncio.Event().wait()


async def test_every_wait_that_is_late_times_out_and_no_other() -> None:
    timeout = SharedTimeout(0.01)
    quick = asyncio.Event()

    async def wait_for(event: asyncio.Event) -> str:
        with timeout.begin():
            await event.wait()
        return "in time"

    waits = [asyncio.create_task(wait_for(event)) for event in (asyncio.Event(), quick, asyncio.Event())]
    asyncio.get_running_loop().call_soon(quick.set)
    late, in_time, also_late = await asyncio.gather(*waits, return_exceptions=True)

    assert in_time == "in time"
    assert [type(late), type(also_late)] == [TimeoutError, TimeoutError]


async def test_a_later_wait_has_all_of_its_time() -> None:
    timeout = SharedTimeout(0.05)
    loop = asyncio.get_running_loop()

    async def wait_from_now() -> float:
        began_at = loop.time()
        with pytest.raises(TimeoutError), timeout.begin():
            await asyncio.Event().wait()
        return loop.time() - began_at

    first = asyncio.create_task(wait_from_now())
    half = loop.create_future()
    loop.call_later(0.025, half.set_result, None)
    await half

    assert min(await asyncio.gather(first, wait_from_now())) >= 0.049  # the loop counts in milliseconds


async def test_a_wait_that_is_over_cancels_nobody() -> None:
    timeout = SharedTimeout(0.01)
    with timeout.begin():
        pass
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.03, passed.set_result, "not cancelled")

    assert await passed == "not cancelled"


async def test_an_error_passes_as_it_is() -> None:
    with pytest.raises(LookupError), SharedTimeout(1).begin():
        raise LookupError


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def wait() -> None:
        with SharedTimeout(0.01).begin():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.Event().wait()  # late too: it is cancelled for both reasons

    task = asyncio.create_task(wait())
    asyncio.get_running_loop().call_soon(task.cancel)

    with pytest.raises(asyncio.CancelledError):
        await task
