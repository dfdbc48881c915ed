"""The relay under a clock that is set back: what was committed before is published all the same."""

from typing import Any

import redis.asyncio as redis

from chassis.testing import TestKeys, eventually
from tests.intake import running_intake

WORK = "hub:work:TotvsProtheus"


async def test_a_clock_that_was_set_back_hides_no_event(database_url: str, keys: TestKeys, redis_url: str) -> None:
    async with running_intake(database_url, keys) as killed:
        created = await killed.create()
        at = killed.clock

    at.advance(-3600)
    async with running_intake(database_url, keys, clock=at, redis_url=redis_url) as another:
        await another.relay.start()
        await eventually(lambda: _is_empty(another))
        await another.relay.stop()

    async with redis.Redis.from_url(redis_url, decode_responses=True) as watcher:
        rung: Any = await watcher.xrange(WORK)
    assert [fields["id"] for _, fields in rung] == [created.id]


async def _is_empty(hub: Any) -> bool:
    return not await hub.unpublished()
