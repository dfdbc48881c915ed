"""An intake of the version before may run, and end, beside this one: what it leaves in its own table is published."""

from typing import Any

import redis.asyncio as redis
import sqlalchemy as sa

from chassis.testing import TestKeys, eventually
from intake_service.store.tables import outbox_before_0005
from tests.intake import IntakeUnderTest, running_intake


async def test_what_the_version_before_has_left_is_published_and_deleted(
    database_url: str, keys: TestKeys, redis_url: str
) -> None:
    async with (
        running_intake(database_url, keys, redis_url=redis_url) as hub,
        redis.Redis.from_url(redis_url, decode_responses=True) as watcher,
    ):
        await hub.store.write(_leave, hub.clock.now() - 3_000_000)
        await hub.relay.start()
        await eventually(lambda: _is_published(hub, watcher))
        await hub.relay.stop()
        events: Any = await watcher.xrange("hub:events")
        work: Any = await watcher.xrange("hub:work:TotvsProtheus")

    [(_, event)], [(_, ring)] = events, work
    assert (event["type"], event["id"], event["data"]) == ("IntegrationRequestCreated", "R-1", "{}")
    assert ring["id"] == "R-1"


def _leave(connection: Any, _: int, items: Any) -> list[None]:
    left: dict[str, Any] = {"type": "IntegrationRequestCreated", "request_id": "R-1", "correlation_id": "c-1"}
    left |= {"traceparent": "", "target_system": "TotvsProtheus", "rings": True, "data": "{}"}
    rows = [{"id": f"id-{number}", "created_at": at, **left} for number, at in enumerate(items)]
    connection.execute(sa.insert(outbox_before_0005), rows)
    return [None] * len(items)


async def _is_published(hub: IntakeUnderTest, watcher: redis.Redis) -> bool:
    left = await hub.rows(outbox_before_0005) or await hub.unpublished()
    return not left and bool(await watcher.xlen("hub:events"))
