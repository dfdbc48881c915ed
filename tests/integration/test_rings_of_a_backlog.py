"""What the scheduler does about the stream of a target that is down for long, on a real Valkey."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio as redis

from chassis.testing import TestKeys, eventually
from intake_service.scheduler import MANY_RINGS
from tests.intake import IntakeUnderTest, running_intake

WORK = "hub:work:TotvsProtheus"


@pytest.fixture
async def hub(database_url: str, keys: TestKeys, redis_url: str) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys, redis_url=redis_url) as intake:
        await intake.relay.start()
        yield intake
        await intake.relay.stop()


@pytest.fixture
async def watcher(redis_url: str) -> AsyncIterator[redis.Redis]:
    async with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


async def ring_after(hub: IntakeUnderTest, seconds: float) -> None:
    """One round of the scheduler after that time, in which everything is due; what it rings is published."""
    hub.clock.advance(seconds)
    assert len((await hub.scheduler.ring_due()).rings) == MANY_RINGS
    await hub.relay.stop()


async def test_a_stream_that_nobody_reads_is_not_rung_without_end(hub: IntakeUnderTest, watcher: redis.Redis) -> None:
    ids = [(await hub.create(f"E-{number}")).id for number in range(MANY_RINGS)]
    await eventually(lambda: at_least(watcher, MANY_RINGS))
    await hub.relay.stop()
    await watcher.xtrim(WORK, maxlen=MANY_RINGS, approximate=False)  # an event may be published twice at the start

    lengths = []
    for _ in range(4):
        await ring_after(hub, 600)
        lengths.append(await watcher.xlen(WORK))
    await watcher.delete(WORK)
    await ring_after(hub, 600)
    entries: Any = await watcher.xrange(WORK)

    # once by its creation and once more, then no further; all of it again when the stream is empty
    assert lengths == [2 * MANY_RINGS] * 4
    assert sorted(fields["id"] for _, fields in entries) == sorted(ids)


async def at_least(watcher: redis.Redis, count: int) -> bool:
    length: int = await watcher.xlen(WORK)
    return length >= count
