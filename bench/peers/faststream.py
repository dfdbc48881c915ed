"""FastStream on Redis Streams: the order is committed, then enqueued (two writes: not durable across them).

Plain: a commit and an XADD for each order, one message at a time through 64 workers. Tuned: a batch subscriber without
a barrier: a batch is handed to a task of its own and the next one is read at once, so that a slow call holds nobody; a
batch is acknowledged when its ends are committed. Batched: the same, and the edge commits and enqueues together what
has arrived meanwhile, as the hub does; FastStream does not offer that, one has to write it. What a dead worker left is
claimed after 15 s by a second subscriber.
"""

import asyncio
import contextlib
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import redis.asyncio as redis
import uvloop
from faststream import AckPolicy
from faststream.redis import RedisBroker, StreamSub
from faststream.redis.annotations import RedisBatchStreamMessage, RedisStreamMessage

from bench.peers.edge import Accept, serve
from bench.peers.work import External, Order, PeerSettings, Table, read_settings
from chassis.batcher import Batcher

STREAM, GROUP, CONSUMER = "orders", "workers", "worker-1"
IDLE_MS = 15_000
BATCH = 128
#: Batches that are not finished; the calls at once are bounded by the client's connections.
BATCHES_AT_ONCE = 8
PLAIN_WORKERS = 64

Message = dict[str, str]


def web(settings: PeerSettings) -> None:
    """Serve the edge."""
    table, broker = Table(settings), RedisBroker(settings.redis_url, logger=None)

    async def store_batch(rows: Sequence[tuple[str, Order]]) -> Sequence[None]:
        await table.insert_many(rows)
        async with broker.config.connection.client.pipeline(transaction=False) as pipeline:
            for request_id, order in rows:
                await broker.publish({"id": request_id, "payload": order.payload}, stream=STREAM, pipeline=pipeline)
            await pipeline.execute()
        return [None] * len(rows)

    batcher: Batcher[tuple[str, Order], None] = Batcher(store_batch)

    async def accept(order: Order) -> str:
        request_id = await table.insert(order)
        await broker.publish({"id": request_id, "payload": order.payload}, stream=STREAM)
        return request_id

    async def accept_batched(order: Order) -> str:
        request_id = str(uuid.uuid4())
        await batcher.submit((request_id, order))
        return request_id

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Accept]:
        await table.open()
        await broker.connect()
        yield accept_batched if settings.is_batched else accept

    serve(settings.port, opened)


async def work(settings: PeerSettings) -> None:
    """Run the worker until killed."""
    table, external = Table(settings), External(settings.endpoint_url)
    await table.open()
    broker = RedisBroker(settings.redis_url, logger=None)
    if settings.is_tuned:
        _subscribe_batches(broker, table, external)
    else:
        _subscribe_singly(broker, table, external)
    await broker.start()
    await asyncio.Event().wait()


def _subscribe_singly(broker: Any, table: Table, external: External) -> None:
    async def deliver(message: Message) -> None:
        await external.post(message["id"], message["payload"])
        await table.complete([message["id"]])

    stream = StreamSub(STREAM, group=GROUP, consumer=CONSUMER)
    broker.subscriber(stream=stream, max_workers=PLAIN_WORKERS)(deliver)
    claimed = StreamSub(STREAM, group=GROUP, consumer=CONSUMER, min_idle_time=IDLE_MS)
    broker.subscriber(stream=claimed)(deliver)


def _subscribe_batches(broker: Any, table: Table, external: External) -> None:
    free = asyncio.Semaphore(BATCHES_AT_ONCE)
    running: set[asyncio.Task[None]] = set()

    async def finish(messages: list[Message], raw: Any) -> None:
        try:
            await asyncio.gather(*(external.post(message["id"], message["payload"]) for message in messages))
            await table.complete([message["id"] for message in messages])
            await raw.ack()
        finally:
            free.release()

    async def deliver(messages: list[Message], raw: RedisBatchStreamMessage) -> None:
        await free.acquire()
        task = asyncio.create_task(finish(messages, raw))
        running.add(task)
        task.add_done_callback(running.discard)

    async def deliver_claimed(message: Message, raw: RedisStreamMessage) -> None:
        await external.post(message["id"], message["payload"])
        await table.complete([message["id"]])
        await raw.ack()

    stream = StreamSub(STREAM, group=GROUP, consumer=CONSUMER, batch=True, max_records=BATCH)
    broker.subscriber(stream=stream, ack_policy=AckPolicy.MANUAL)(deliver)
    claimed = StreamSub(STREAM, group=GROUP, consumer=CONSUMER, min_idle_time=IDLE_MS)
    broker.subscriber(stream=claimed, ack_policy=AckPolicy.MANUAL)(deliver_claimed)


async def prepare(settings: PeerSettings) -> None:
    """Make the table and the group, so that nothing depends on who starts first."""
    await Table(settings).prepare()
    async with redis.from_url(settings.redis_url) as client:
        await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)


if __name__ == "__main__":
    match sys.argv[1]:
        case "prepare":
            asyncio.run(prepare(read_settings()))
        case "worker":
            uvloop.run(work(read_settings()))
        case _:
            web(read_settings())
