"""Taskiq on Redis Streams: the order is committed, then enqueued (two writes: not durable across them).

Plain: the worker's defaults, two processes. Tuned: one process, orjson, no parsing by pydantic, 256 tasks at once with
prefetch, pools to match. The worker is `python -m taskiq worker` with the options in bench/rivals.py; `prepare` makes
the table and the consumer group.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio as redis
from taskiq import TaskiqEvents
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisStreamBroker

from bench.peers.edge import Accept, serve
from bench.peers.work import External, Order, PeerSettings, Table, read_settings

STREAM = GROUP = "taskiq"
#: Unacknowledged for this long belongs to a dead worker; the default is ten minutes.
IDLE_MS = 15_000
LOCK_SECONDS = 5.0


def make_broker() -> Any:
    """The broker with its one task, as the worker's command line names it."""
    return make(read_settings())[0]


def make(settings: PeerSettings) -> tuple[Any, Any, Table]:
    """The broker, its task and the table."""
    table, external = Table(settings), External(settings.endpoint_url)
    pool = {"max_connection_pool_size": 64} if settings.is_tuned else {}
    broker = RedisStreamBroker(
        settings.redis_url, idle_timeout=IDLE_MS, unacknowledged_lock_timeout=LOCK_SECONDS, **pool
    )
    if settings.is_tuned:
        broker = broker.with_serializer(ORJSONSerializer())

    async def deliver(request_id: str, payload: str) -> None:
        await external.post(request_id, payload)
        await table.complete([request_id])

    async def open_table(_: Any) -> None:
        await table.open()

    broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, open_table)
    task = broker.register_task(deliver, task_name="deliver")
    return broker, task, table


def web(settings: PeerSettings) -> None:
    """Serve the edge."""
    broker, task, table = make(settings)

    async def accept(order: Order) -> str:
        request_id = await table.insert(order)
        await task.kiq(request_id, order.payload)
        return request_id

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Accept]:
        await table.open()
        await broker.startup()
        yield accept

    serve(settings.port, opened)


async def prepare(settings: PeerSettings) -> None:
    """Make the table and the group, so that nothing depends on who starts first."""
    await Table(settings).prepare()
    async with redis.from_url(settings.redis_url) as client:
        await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        asyncio.run(prepare(read_settings()))
    else:
        web(read_settings())
