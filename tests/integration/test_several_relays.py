"""Relays that share one database: whoever commits late or stands still, each row is published and none stays."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import redis.asyncio as redis
import sqlalchemy as sa

from chassis.testing import TestKeys, eventually
from intake_service import outbox
from tests.intake import IntakeUnderTest, running_intake
from tests.left_behind import left_behind

WORK = "hub:work:TotvsProtheus"


@pytest.fixture
async def first(postgres_url: str, keys: TestKeys, redis_url: str) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(postgres_url, keys, real_time=True, redis_url=redis_url) as intake:
        yield intake
        await intake.relay.stop()


@pytest.fixture
async def second(postgres_url: str, keys: TestKeys, redis_url: str) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(postgres_url, keys, real_time=True, redis_url=redis_url) as intake:
        yield intake
        await intake.relay.stop()


async def rings(watcher: redis.Redis) -> Counter[str]:
    """How often each request was rung."""
    entries: Any = await watcher.xrange(WORK)
    return Counter(fields["id"] for _, fields in entries)


async def is_rung(watcher: redis.Redis, request_id: str, times: int = 1) -> bool:
    return (await rings(watcher))[request_id] >= times


async def outbox_is_empty(hub: IntakeUnderTest) -> bool:
    return await hub.unpublished() == []


async def test_two_relays_publish_everything_and_leave_no_row(
    first: IntakeUnderTest, second: IntakeUnderTest, watcher: redis.Redis
) -> None:
    await first.store.write(left_behind, [f"old-{number}" for number in range(300)])
    await first.relay.start()
    await second.relay.start()
    await asyncio.gather(
        *(hub.create(f"{name}-{number}") for name, hub in (("a", first), ("b", second)) for number in range(100))
    )

    await eventually(lambda: outbox_is_empty(first), 15)

    assert len(await rings(watcher)) == 500


async def test_what_is_committed_after_younger_rows_were_published_is_published_too(
    first: IntakeUnderTest, watcher: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "SWEEP_SECONDS", 0.1)
    has_written, may_commit = threading.Event(), threading.Event()

    def slowly(connection: sa.Connection, now: int, items: Sequence[Sequence[str]]) -> list[None]:
        results = left_behind(connection, now, items)
        has_written.set()
        may_commit.wait(20)
        return results

    slow = asyncio.create_task(first.store.write(slowly, ["slow"]))
    await asyncio.to_thread(has_written.wait, 10)
    await first.relay.start()
    fast = await first.create("fast")
    await eventually(lambda: is_rung(watcher, fast.id))
    await eventually(lambda: outbox_is_empty(first))
    assert not slow.done()

    may_commit.set()
    await slow

    await eventually(lambda: is_rung(watcher, "slow"))
    await eventually(lambda: outbox_is_empty(first))


async def test_a_relay_that_paused_amid_its_rows_publishes_them_twice_and_takes_no_others_away(
    first: IntakeUnderTest, second: IntakeUnderTest, watcher: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = first.streams.publish
    has_paused, may_go_on = asyncio.Event(), asyncio.Event()

    async def pause_and_publish(entries: Any) -> None:
        has_paused.set()
        await may_go_on.wait()
        await publish(entries)

    monkeypatch.setattr(first.streams, "publish", pause_and_publish)
    await first.store.write(left_behind, ["old"])
    await first.relay.start()
    await asyncio.wait_for(has_paused.wait(), 10)
    await second.relay.start()
    await eventually(lambda: outbox_is_empty(second))
    meanwhile = await second.create("meanwhile")
    await eventually(lambda: is_rung(watcher, meanwhile.id))

    may_go_on.set()
    await eventually(lambda: is_rung(watcher, "old", times=2))
    afterwards = await first.create("afterwards")

    await eventually(lambda: is_rung(watcher, afterwards.id))
    await eventually(lambda: outbox_is_empty(first))
    assert await rings(watcher) == {"old": 2, meanwhile.id: 1, afterwards.id: 1}
