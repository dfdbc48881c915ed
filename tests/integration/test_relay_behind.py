"""A relay that is behind: the table holds more than one sweep reads, and what is rung must not wait for all of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio as redis

from chassis.errors import Unavailable
from chassis.testing import TestKeys, eventually
from intake_service import outbox
from tests.intake import IntakeUnderTest, running_intake
from tests.left_behind import left_behind

WORK = "hub:work:TotvsProtheus"
#: Of as many commits.
ROWS = 500


@pytest.fixture
async def hub(database_url: str, keys: TestKeys, redis_url: str) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys, redis_url=redis_url) as intake:
        await intake.store.write_many(left_behind, [[f"old-{number}"] for number in range(ROWS)])
        yield intake
        await intake.relay.stop()


async def test_a_ring_is_not_lost_while_the_relay_catches_up(hub: IntakeUnderTest, watcher: redis.Redis) -> None:
    await hub.relay.start()
    await eventually(lambda: _has_begun(watcher))

    hub.relay.ring([("TotvsProtheus", "rung")])

    await eventually(lambda: _holds(watcher, "rung"))


async def test_a_ring_survives_a_publication_that_fails(
    hub: IntakeUnderTest, watcher: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, refused = hub.streams.publish, asyncio.Event()

    async def refuse_once(entries: Any) -> None:
        if not refused.is_set() and any(fields["id"] == "rung" for _, fields in entries if "id" in fields):
            refused.set()
            raise Unavailable("not now")
        await publish(entries)

    monkeypatch.setattr(hub.streams, "publish", refuse_once)
    await hub.relay.start()

    hub.relay.ring([("TotvsProtheus", "rung")])

    await eventually(lambda: _holds(watcher, "rung"))
    assert refused.is_set()


async def test_nothing_is_waited_for_between_two_full_sweeps(
    hub: IntakeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "BEHIND_SECONDS", 3600)

    await hub.relay.start()

    await eventually(lambda: _is_swept(hub))


async def _has_begun(watcher: redis.Redis) -> bool:
    return int(await watcher.xlen(WORK)) > 0


async def _holds(watcher: redis.Redis, request_id: str) -> bool:
    entries: Any = await watcher.xrange(WORK)
    return any(fields["id"] == request_id for _, fields in entries)


async def _is_swept(hub: IntakeUnderTest) -> bool:
    return await hub.unpublished() == []
