"""Acceptance goes first: claims wait while a crowd of creates does, and no longer than they must."""

import asyncio

import pytest

from intake_service.door import CROWD, SECONDS_PER_CLAIM, WAVE_SECONDS, Door


async def test_claims_pass_at_once_when_nobody_waits() -> None:
    passing = asyncio.create_task(Door().let_pass(500))
    await asyncio.sleep(0)

    assert passing.done()
    assert passing.result() < WAVE_SECONDS


async def test_claims_pass_at_once_beside_a_steady_stream() -> None:
    door = Door()
    door.arrive(CROWD - 1)
    passing = asyncio.create_task(door.let_pass(500))
    await asyncio.sleep(0)

    assert passing.done()


async def test_claims_wait_for_a_crowd_and_pass_when_it_has_gone() -> None:
    door = Door()
    door.arrive(CROWD)
    passing = asyncio.create_task(door.let_pass(60_000))
    await asyncio.sleep(2 * WAVE_SECONDS)
    assert not passing.done()
    door.depart(CROWD)

    async with asyncio.timeout(5):
        await passing


async def test_a_crowd_that_stays_keeps_each_claim_no_longer_than_it_may() -> None:
    door = Door()
    is_over = asyncio.Event()

    async def crowd() -> None:
        while not is_over.is_set():
            door.arrive(CROWD)
            await asyncio.sleep(WAVE_SECONDS / 10)
            door.depart(CROWD)

    coming = asyncio.create_task(crowd())
    await asyncio.sleep(0)
    waited = await door.let_pass(100)
    is_over.set()
    await coming

    assert waited >= 100 * SECONDS_PER_CLAIM


async def test_a_claim_of_one_hardly_waits_for_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    door = Door()
    door.arrive(CROWD)
    await door.let_pass(1)

    assert 0 < sum(slept) <= 2 * SECONDS_PER_CLAIM
