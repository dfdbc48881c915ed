"""DBOS on PostgreSQL: the workflow's row is its record, so that an accepted order is durable.

Plain: one process takes orders and runs their workflows. Tuned: one process only enqueues, those that have arrived
meanwhile in one transaction, and two workers take them from a queue, 128 at once each, polling every 0.1 s. A worker
keeps its executor id, so that after a crash it recovers what it was doing.
"""

import asyncio
import contextlib
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSClient

from bench.peers.edge import Accept, serve
from bench.peers.work import External, Order, PeerSettings, read_settings
from chassis.batcher import Batcher

QUEUE = "orders"
VERSION = "bench"
POLL_SECONDS = 0.1
AT_ONCE = 128
POOL = 20
TUNED: Any = {
    # the loop's threads, without bound by default, fight for the interpreter: 8 complete a sixth more
    "max_executor_threads": 8,
    # a connection that is tested before each use costs a round trip
    "db_engine_kwargs": {"pool_pre_ping": False},
}


def make(settings: PeerSettings, executor: str) -> Any:
    """Configure DBOS in this process; gives the workflow."""
    external = External(settings.endpoint_url)
    DBOS(
        config={
            "name": "bench",
            "system_database_url": settings.database_url,
            "sys_db_pool_size": POOL,
            "log_level": "ERROR",
            "application_version": VERSION,
            "executor_id": executor,
            **(TUNED if settings.is_tuned else {}),
        }
    )

    async def post(payload: str) -> None:
        await external.post(str(DBOS.workflow_id), payload)

    step = DBOS.step(name="post")(post)

    async def deliver(external_id: str, source_system: str, target_system: str, payload: str) -> None:  # noqa: ARG001 - stored with it
        await step(payload)

    return DBOS.workflow(name="deliver")(deliver)


def web(settings: PeerSettings) -> None:
    """Serve the edge."""
    serve(settings.port, lambda: _enqueueing(settings) if settings.is_tuned else _running(settings))


@contextlib.asynccontextmanager
async def _running(settings: PeerSettings) -> AsyncIterator[Accept]:
    workflow = make(settings, "web")
    await asyncio.to_thread(DBOS.launch)

    async def accept(order: Order) -> str:
        handle = await DBOS.start_workflow_async(workflow, *_arguments(order))
        return str(handle.workflow_id)

    yield accept


@contextlib.asynccontextmanager
async def _enqueueing(settings: PeerSettings) -> AsyncIterator[Accept]:
    engine = sa.create_engine(settings.database_url.replace("postgresql://", "postgresql+psycopg://"), pool_size=2)
    client = await asyncio.to_thread(DBOSClient, system_database_engine=engine)

    def enqueue(orders: Sequence[Order]) -> Sequence[str]:
        ids = [str(uuid.uuid4()) for _ in orders]
        with engine.begin() as connection:
            for workflow_id, order in zip(ids, orders, strict=True):
                options: Any = {"workflow_name": "deliver", "queue_name": QUEUE, "workflow_id": workflow_id}
                client.enqueue_in_transaction(connection, options, *_arguments(order))
        return ids

    async def enqueue_batch(orders: Sequence[Order]) -> Sequence[str]:
        return await asyncio.to_thread(enqueue, orders)

    batcher: Batcher[Order, str] = Batcher(enqueue_batch)
    yield batcher.submit


def _arguments(order: Order) -> tuple[str, ...]:
    return (order.external_id, order.source_system, order.target_system, order.payload)


def work(settings: PeerSettings, executor: str) -> None:
    """Run a queue worker until killed."""
    make(settings, executor)
    DBOS.launch()
    DBOS.register_queue(
        QUEUE, worker_concurrency=AT_ONCE, polling_interval_sec=POLL_SECONDS, on_conflict="always_update"
    )
    threading.Event().wait()


def prepare(settings: PeerSettings) -> None:
    """Make its tables."""
    make(settings, "prepare")
    DBOS.launch()
    DBOS.destroy()


if __name__ == "__main__":
    match sys.argv[1]:
        case "prepare":
            prepare(read_settings())
        case "worker":
            work(read_settings(), sys.argv[2])
        case _:
            web(read_settings())
