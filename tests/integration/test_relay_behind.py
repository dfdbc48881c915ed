"""A relay that is behind: the table holds more than one sweep reads, and what is rung must not wait for all of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio as redis

from chassis.errors import Unavailable
from chassis.testing import TestKeys, eventually
from intake_service import outbox
from intake_service.events import About, created
from intake_service.store.changes import add
from tests.intake import IntakeUnderTest, running_intake

WORK = "hub:work:TotvsProtheus"
ROWS = 500


@pytest.fixture
async def hub(database_url: str, keys: TestKeys, redis_url: str) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys, redis_url=redis_url) as intake:
        await intake.store.write(_left_behind, None)
        yield intake
        await intake.relay.stop()


@pytest.fixture
async def watcher(redis_url: str) -> AsyncIterator[redis.Redis]:
    async with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def _left_behind(connection: Any, now: int, items: Any) -> list[None]:
    """Write the events of ROWS commits, as a process does that dies before it publishes them."""
    for number in range(ROWS):
        about = About(f"old-{number}", f"old-{number}", "c", "", "TotvsProtheus")
        add(connection, now - 10_000_000, [], [created(about, now - 10_000_000)])
    return [None] * len(items)


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
