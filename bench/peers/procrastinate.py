"""Procrastinate: jobs in PostgreSQL, so that an accepted order is durable.

Plain: the row and its job in one transaction each, one worker with its defaults and 64 jobs at once. Tuned: the job is
the record, jobs are deferred in batches of what has arrived meanwhile, two workers with 100 jobs at once that poll
every 50 ms. Jobs of dead workers are retried as its documentation says, every few seconds.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import uvloop
from procrastinate import App, PsycopgConnector

from bench.peers.edge import Accept, serve
from bench.peers.work import External, Order, PeerSettings, Table, read_settings
from chassis.batcher import Batcher

DEAD_SECONDS = 15.0
BEAT_SECONDS = 5.0
PLAIN_WORKER: dict[str, Any] = {"concurrency": 64}
TUNED_WORKER: dict[str, Any] = {"concurrency": 100, "fetch_job_polling_interval": 0.05}


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


def make(settings: PeerSettings, table: Table, external: External) -> tuple[Any, Any]:
    """The app and its one task."""
    faster: dict[str, Any] = {"json_dumps": _dumps, "json_loads": orjson.loads} if settings.is_tuned else {}
    app = App(connector=PsycopgConnector(conninfo=settings.database_url, min_size=4, max_size=20, **faster))

    async def deliver(request_id: str, payload: str) -> None:
        await external.post(request_id, payload)
        await table.complete([request_id])

    async def deliver_job(context: Any, payload: str, **_: str) -> None:
        await external.post(str(context.job.id), payload)

    if settings.is_tuned:
        return app, app.task(deliver_job, name="deliver", pass_context=True)
    return app, app.task(deliver, name="deliver")


def web(settings: PeerSettings) -> None:
    """Serve the edge."""
    table = Table(settings)
    app, task = make(settings, table, External(settings.endpoint_url))

    async def defer_batch(orders: Sequence[Order]) -> Sequence[str]:
        jobs = [
            {
                "payload": order.payload,
                "external_id": order.external_id,
                "source_system": order.source_system,
                "target_system": order.target_system,
            }
            for order in orders
        ]
        return [str(job_id) for job_id in await task.batch_defer_async(*jobs)]

    batcher: Batcher[Order, str] = Batcher(defer_batch)

    async def accept(order: Order) -> str:
        request_id = await table.insert(order)
        await task.defer_async(request_id=request_id, payload=order.payload)
        return request_id

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Accept]:
        async with app.open_async():
            if not settings.is_tuned:
                await table.open()
            yield batcher.submit if settings.is_tuned else accept

    serve(settings.port, opened)


async def work(settings: PeerSettings) -> None:
    """Run a worker until killed."""
    table = Table(settings)
    app, _ = make(settings, table, External(settings.endpoint_url))
    if not settings.is_tuned:
        await table.open()
    async with app.open_async():
        rescue = asyncio.create_task(_retry_jobs_of_the_dead(app))
        options = TUNED_WORKER if settings.is_tuned else PLAIN_WORKER
        await app.run_worker_async(
            **options, update_heartbeat_interval=BEAT_SECONDS, stalled_worker_timeout=DEAD_SECONDS
        )
        rescue.cancel()


async def _retry_jobs_of_the_dead(app: Any) -> None:
    while True:
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=DEAD_SECONDS):
            await app.job_manager.retry_job(job)
        await asyncio.sleep(BEAT_SECONDS)


async def prepare(settings: PeerSettings) -> None:
    """Make its tables and ours."""
    await Table(settings).prepare()
    app = App(connector=PsycopgConnector(conninfo=settings.database_url))
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


if __name__ == "__main__":
    match sys.argv[1]:
        case "prepare":
            asyncio.run(prepare(read_settings()))
        case "worker":
            uvloop.run(work(read_settings()))
        case _:
            web(read_settings())
