"""What the parts that the hub is made of can do by themselves here: the limits that its figures are held against.

Each is driven as the hub drives it, in batches, by this process on the same cores. No other stage runs beside it.
"""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import psycopg
import redis.asyncio as redis

from bench.servers import BenchValkey
from chassis.http_client import HttpClient
from chassis.testing import TestKeys
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1.intake_pb2_grpc import IntakeServiceStub
from tests.intake import new_request
from tests.intake_process import IntakeProcess

BATCH = 64
CALLS_AT_ONCE = 4
STREAM_BATCH = 100
HTTP_AT_ONCE = 64
_STREAM, _GROUP = "limit", "limit"
_FIELDS = {"type": "IntegrationRequestCreated", "id": "0" * 36, "data": "x" * 250}
_TABLES = (
    "CREATE TABLE requests (id TEXT PRIMARY KEY, payload TEXT NOT NULL)",
    "CREATE TABLE outbox (id TEXT PRIMARY KEY, data TEXT NOT NULL)",
)
_PAYLOAD = "x" * 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How many of something a part does per second."""

    stage: str
    per_second: float
    how: str
    #: The database that it is a limit of; empty = of neither.
    database: str = ""
    #: What the hub needs of it for each request, by its name in the hub's profile; empty = one.
    needed: str = ""


async def measure_limits(
    folder: Path, *, postgres_url: Callable[[str], str], endpoint_url: str, seconds: float
) -> list[Limit]:
    """Measure each part for that long; `postgres_url` makes an empty database of that name."""
    valkey = BenchValkey(folder / "valkey").start()
    try:
        keys = TestKeys(folder / "keys")
        limits = []
        for name, url in (("SQLite", ""), ("PostgreSQL", postgres_url("limit_intake"))):
            rate = await _intake(folder / f"intake-{name}", keys, url, valkey.url, seconds)
            how = f"BatchCreate of {BATCH} over gRPC, {CALLS_AT_ONCE} calls at once, committed with history and outbox"
            limits.append(Limit(stage=f"batched intake, {name}", per_second=rate, how=how, database=name))
        how = f"requests with their outbox rows, {BATCH} to a commit"
        for name, rate, detail in (
            ("SQLite", await asyncio.to_thread(_commit_sqlite, folder / "limit.sqlite3", seconds), "synchronous=FULL"),
            (
                "PostgreSQL",
                await asyncio.to_thread(_commit_postgres, postgres_url("limit_commit"), seconds),
                "one connection",
            ),
        ):
            limits.append(
                Limit(
                    stage=f"group commit, {name}",
                    per_second=rate,
                    how=f"{how}, {detail}",
                    database=name,
                    needed="intake: batches, commit",
                )
            )
        async with redis.Redis.from_url(valkey.url, legacy_responses=False) as client:
            rate, how = await _add(client, seconds), f"XADD, {STREAM_BATCH} to a pipeline"
            limits.append(Limit(stage="stream add", per_second=rate, how=how, needed="valkey: commands, xadd"))
            rate = await _read(client)
            how = f"XREADGROUP and XACK, {STREAM_BATCH} at once"
            limits.append(Limit(stage="stream read", per_second=rate, how=how))
        rate = await _post(endpoint_url, seconds)
        limits.append(Limit(stage="HTTP client", per_second=rate, how=f"the adapter's own, {HTTP_AT_ONCE} at once"))
        return limits
    finally:
        valkey.stop()


async def _intake(folder: Path, keys: TestKeys, database_url: str, redis_url: str, seconds: float) -> float:
    intake = await IntakeProcess(folder, keys, database_url=database_url, redis_url=redis_url).start()
    try:
        async with grpc.aio.insecure_channel(intake.address) as channel:
            stub, metadata, numbers = IntakeServiceStub(channel), intake.metadata(), count()

            async def create() -> int:
                items = [new_request(f"E-{next(numbers)}") for _ in range(BATCH)]
                batch = pb.BatchCreateIntegrationRequestsRequest(requests=items)
                answer = await stub.BatchCreateIntegrationRequests(batch, metadata=metadata, timeout=30)
                return sum(1 for result in answer.results if result.HasField("integration_request"))

            return await _rate(create, CALLS_AT_ONCE, seconds)
    finally:
        await intake.stop()


def _commit_sqlite(file: Path, seconds: float) -> float:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", *_TABLES):
            connection.execute(statement)

        def commit(rows: list[tuple[str, str]]) -> None:
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO requests VALUES (?, ?)", rows)
            connection.executemany("INSERT INTO outbox VALUES (?, ?)", rows)
            connection.execute("COMMIT")

        return _commit_rate(commit, seconds)


def _commit_postgres(url: str, seconds: float) -> float:
    with psycopg.connect(url) as connection:
        for statement in _TABLES:
            connection.execute(statement)

        def commit(rows: list[tuple[str, str]]) -> None:
            cursor = connection.cursor()
            cursor.executemany("INSERT INTO requests VALUES (%s, %s)", rows)
            cursor.executemany("INSERT INTO outbox VALUES (%s, %s)", rows)
            connection.commit()

        return _commit_rate(commit, seconds)


def _commit_rate(commit: Callable[[list[tuple[str, str]]], None], seconds: float) -> float:
    numbers = count()
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        commit([(f"{next(numbers):036}", _PAYLOAD) for _ in range(BATCH)])
    return next(numbers) / (time.perf_counter() - started)


async def _add(client: redis.Redis, seconds: float) -> float:
    await client.xgroup_create(_STREAM, _GROUP, id="0", mkstream=True)

    async def add() -> int:
        pipeline = client.pipeline(transaction=False)
        for _ in range(STREAM_BATCH):
            pipeline.xadd(_STREAM, _FIELDS)  # type: ignore[arg-type]  # its hint is invariant
        return len(await pipeline.execute())

    return await _rate(add, 1, seconds)


async def _read(client: redis.Redis) -> float:
    """Read everything that `_add` has left."""
    done, started = 0, time.perf_counter()
    while True:
        reply: Any = await client.xreadgroup(_GROUP, "reader", {_STREAM: ">"}, count=STREAM_BATCH)
        if not reply:
            return done / (time.perf_counter() - started)
        ids = [entry_id for entries in reply.values() for entry_id, _ in entries]
        await client.xack(_STREAM, _GROUP, *ids)
        done += len(ids)


async def _post(endpoint_url: str, seconds: float) -> float:
    client = HttpClient()
    await client.start()
    numbers, loop = count(), asyncio.get_running_loop()

    async def post() -> int:
        headers = {"Idempotency-Key": f"limit-{next(numbers)}", "Content-Type": "application/json"}
        answer = await client.send(
            "POST", f"{endpoint_url}/orders", headers=headers, deadline=loop.time() + 10, body=_PAYLOAD.encode()
        )
        return int(answer.status == 200)

    try:
        return await _rate(post, HTTP_AT_ONCE, seconds)
    finally:
        await client.stop()


async def _rate(step: Callable[[], Awaitable[int]], at_once: int, seconds: float) -> float:
    """Steps' results per second, that many at once."""
    end = time.perf_counter() + seconds

    async def run() -> int:
        done = 0
        while time.perf_counter() < end:
            done += await step()
        return done

    started = time.perf_counter()
    done = await asyncio.gather(*(run() for _ in range(at_once)))
    return sum(done) / (time.perf_counter() - started)
