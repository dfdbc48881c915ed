"""Turns to call a target: no more at once than the limit, in the order of asking, and what is held ahead of them."""

import asyncio

import pytest

from chassis.testing import eventually
from orchestrator_service import calls as calls_module
from orchestrator_service.calls import MOST_AHEAD, Calls


def calls_of(limit: int) -> Calls:
    calls = Calls()
    calls.set_limit(limit)
    return calls


async def end_call(calls: Calls, seconds: float) -> None:
    assert await calls.turn()
    calls.leave(seconds)


async def test_no_more_turns_at_once_than_the_limit() -> None:
    calls = calls_of(2)
    assert await calls.turn()
    assert await calls.turn()
    third = asyncio.create_task(calls.turn())
    await asyncio.sleep(0)

    assert (calls.in_flight, third.done()) == (2, False)
    calls.leave()
    assert await third
    assert calls.in_flight == 2


async def test_turns_come_in_the_order_of_asking() -> None:
    calls, order = calls_of(1), []

    async def ask(name: str) -> None:
        assert await calls.turn()
        order.append(name)

    assert await calls.turn()
    waiting = [asyncio.create_task(ask(name)) for name in "abc"]
    await asyncio.sleep(0)
    for _ in waiting:
        calls.leave()
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)

    assert order == ["a", "b", "c"]


async def test_who_comes_later_does_not_pass_by_those_who_wait() -> None:
    calls = calls_of(8)
    for _ in range(8):
        await calls.turn()
    first = asyncio.create_task(calls.turn())
    await asyncio.sleep(0)
    second = asyncio.create_task(calls.turn())
    calls.leave()
    await asyncio.sleep(0)

    assert (first.done(), second.done()) == (True, False)
    calls.leave()
    assert await second


async def test_turns_of_a_wide_target_are_given_by_eighths() -> None:
    calls = calls_of(16)
    for _ in range(16):
        await calls.turn()
    waiting = [asyncio.create_task(calls.turn()) for _ in range(2)]
    await asyncio.sleep(0)
    calls.leave()
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    calls.leave()

    assert await asyncio.gather(*waiting) == [True, True]


async def test_who_waits_too_long_is_sent_away_and_holds_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "TURN_SECONDS", 0.01)
    calls = calls_of(1)
    await calls.turn()

    assert not await calls.turn()
    assert calls.in_flight == 1
    calls.leave()
    assert (calls.in_flight, await calls.turn()) == (0, True)


async def test_a_cancelled_wait_leaves_its_turn_to_the_next() -> None:
    calls = calls_of(1)
    await calls.turn()
    gone, stays = asyncio.create_task(calls.turn()), asyncio.create_task(calls.turn())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    calls.leave()

    assert await stays
    assert gone.cancelled()


async def test_a_turn_that_meets_a_cancellation_is_not_lost() -> None:
    calls = calls_of(1)
    await calls.turn()
    gone, stays = asyncio.create_task(calls.turn()), asyncio.create_task(calls.turn())
    await asyncio.sleep(0)
    calls.leave()  # its turn has come, and it does not know yet
    gone.cancel()

    assert await stays
    assert calls.in_flight == 1


async def test_who_waits_goes_on_when_the_limit_rises() -> None:
    calls = calls_of(0)
    waiting = asyncio.create_task(calls.turn())
    await asyncio.sleep(0)
    calls.set_limit(1)

    await eventually(waiting.done)
    assert waiting.result()


def test_nothing_is_held_ahead_before_a_call_has_ended() -> None:
    assert calls_of(256).ahead() == 0


@pytest.mark.parametrize(
    ("limit", "seconds", "ahead"),
    [
        (256, 0.3, 256),
        (256, 0.1, MOST_AHEAD),
        (1, 0.0, MOST_AHEAD),
        (1, 0.01, 30),
        (8, 0.6, 4),
        (4, 5.0, 0),
    ],
)
async def test_as_much_is_held_ahead_as_the_target_takes_in_a_moment(limit: int, seconds: float, ahead: int) -> None:
    calls = calls_of(limit)
    await end_call(calls, seconds)

    assert calls.ahead() == pytest.approx(ahead, abs=1)


async def test_a_target_that_becomes_slow_is_held_less_ahead_of() -> None:
    calls = calls_of(8)
    await end_call(calls, 0.01)
    before = calls.ahead()
    for _ in range(20):
        await end_call(calls, 5.0)

    assert (before, calls.ahead()) == (240, 0)


async def test_a_target_that_hangs_is_held_less_ahead_of_before_a_call_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = calls_of(8)
    await end_call(calls, 0.003)
    before = calls.ahead()
    for _ in range(8):
        assert await calls.turn()
    monkeypatch.setattr(calls_module, "TURN_SECONDS", 0.064)

    assert not await calls.turn()
    assert (before, calls.ahead()) == (768, 37)


async def test_of_large_documents_less_is_held_ahead() -> None:
    calls = calls_of(256)
    for _ in range(100):
        assert await calls.turn()
        calls.leave(0.01, 1024 * 1024)

    assert 16 <= calls.ahead() <= 17
