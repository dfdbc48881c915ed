"""What the peers have in common beside the edge: their settings, the external call, and a table of requests.

`Table` is for those whose queue is elsewhere (Redis); a peer that keeps its jobs in the database uses its own tables.
"""

import asyncio
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg

from bench.peers.limits import IN_FLIGHT

POOL = 16
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS requests (
        id uuid PRIMARY KEY, external_id text NOT NULL, source_system text NOT NULL, target_system text NOT NULL,
        payload text NOT NULL, status text NOT NULL DEFAULT 'Received',
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(), completed_at timestamptz
    )
"""
_INSERT = """
    INSERT INTO requests (id, external_id, source_system, target_system, payload) VALUES ($1, $2, $3, $4, $5)
"""
_INSERT_MANY = """
    INSERT INTO requests (id, external_id, source_system, target_system, payload)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[])
"""
_COMPLETE = "UPDATE requests SET status = 'Completed', completed_at = clock_timestamp() WHERE id = ANY($1::uuid[])"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """Where everything is, and which layout this is."""

    database_url: str
    redis_url: str
    endpoint_url: str
    port: int
    is_tuned: bool
    #: Tuned, and with what the library does not offer: natural batching where orders are accepted.
    is_batched: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A document as it was accepted; the payload is JSON text."""

    external_id: str
    source_system: str
    target_system: str
    payload: str


def read_settings() -> PeerSettings:
    """Read what the benchmark set for this process."""
    return PeerSettings(
        database_url=os.environ["BENCH_DATABASE_URL"],
        redis_url=os.environ["BENCH_REDIS_URL"],
        endpoint_url=os.environ["BENCH_ENDPOINT_URL"],
        port=int(os.environ["BENCH_PORT"]),
        is_tuned=os.environ["BENCH_LAYOUT"] != "plain",
        is_batched=os.environ["BENCH_LAYOUT"] == "batched",
    )


class External:
    """The external system's client: one POST for each request, by aiohttp."""

    def __init__(self, endpoint_url: str) -> None:
        self._url = f"{endpoint_url}/orders"
        # one for each loop: DBOS recovers on a loop of its own what it began on the edge's
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}

    async def post(self, request_id: str, payload: str) -> None:
        """Deliver once. Raises: aiohttp.ClientError unless the answer is a success."""
        loop = asyncio.get_running_loop()
        if (session := self._sessions.get(loop)) is None:
            connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
            session = self._sessions[loop] = aiohttp.ClientSession(connector=connector, raise_for_status=True)
        headers = {"Idempotency-Key": request_id, "Content-Type": "application/json"}
        async with session.post(self._url, data=payload, headers=headers) as answer:
            await answer.read()


class Table:
    """The requests of a peer whose queue is not the database."""

    def __init__(self, settings: PeerSettings) -> None:
        self._url = settings.database_url
        self._pool: Any = None

    async def open(self) -> None:
        """Connect."""
        self._pool = await asyncpg.create_pool(self._url, min_size=POOL, max_size=POOL)

    async def prepare(self) -> None:
        """Make the table."""
        connection = await asyncpg.connect(self._url)
        await connection.execute(_SCHEMA)
        await connection.close()

    async def insert(self, order: Order) -> str:
        """Store one order in a transaction of its own; gives its id."""
        request_id = str(uuid.uuid4())
        await self._pool.execute(
            _INSERT, request_id, order.external_id, order.source_system, order.target_system, order.payload
        )
        return request_id

    async def insert_many(self, rows: Sequence[tuple[str, Order]]) -> None:
        """Store orders under the ids given, in one transaction."""
        await self._pool.execute(
            _INSERT_MANY,
            [request_id for request_id, _ in rows],
            [order.external_id for _, order in rows],
            [order.source_system for _, order in rows],
            [order.target_system for _, order in rows],
            [order.payload for _, order in rows],
        )

    async def complete(self, request_ids: Sequence[str]) -> None:
        """Record the end of requests in one transaction."""
        await self._pool.execute(_COMPLETE, request_ids)
