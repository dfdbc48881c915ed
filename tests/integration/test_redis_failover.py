"""A Redis that takes no writes any more: demoted by a failover that leaves its connections open, full, or gone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis.asyncio as redis
from structlog.testing import capture_logs

from chassis.rate_limit import Allowance, RateLimit
from chassis.streams import Streams, StreamsUnavailable, work_stream
from chassis.telemetry import Telemetry
from chassis.testing import TestKeys, eventually, free_port
from intake_service.store import tables
from tests.intake import running_intake
from tests.servers import ValkeyServer
from tests.tls_front import copy

TARGET = "TotvsProtheus"
WORK = work_stream(TARGET)

Act = Callable[[ValkeyServer], Awaitable[None]]


class Failover:
    """Two Valkeys behind one address, which leads to the primary; connections that stand stay where they are."""

    def __init__(self, first: ValkeyServer, second: ValkeyServer) -> None:
        self._first, self._second = (_client(server) for server in (first, second))
        self._ports = [urlsplit(server.url).port for server in (first, second)]
        self._port = self._ports[0]
        self._copies = set[asyncio.Task[None]]()
        self.url = ""

    @property
    def primary(self) -> redis.Redis:
        """The one that takes writes after the failover."""
        return self._second

    async def happen(self) -> None:
        """Promote the second, demote the first, move the address; what was written is there."""
        await self._first.wait(1, 10_000)
        await self._second.replicaof("NO", "ONE")
        await self._first.replicaof("127.0.0.1", self._ports[1])
        self._port = self._ports[1]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Failover"]:
        await self._first.config_set("repl-diskless-sync-delay", "0")
        await self._second.replicaof("127.0.0.1", self._ports[0])
        await eventually(self._is_in_step)
        server = await asyncio.start_server(self._serve, "127.0.0.1", front := free_port())
        self.url = f"redis://127.0.0.1:{front}/0"
        try:
            yield self
        finally:
            server.close()
            for task in self._copies:
                task.cancel()
            await self._first.aclose()
            await self._second.aclose()

    async def _is_in_step(self) -> bool:
        return bool((await self._second.info("replication"))["master_link_status"] == "up")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside, outside = await asyncio.open_connection("127.0.0.1", self._port)
        for source, sink in ((reader, outside), (inside, writer)):
            task = asyncio.create_task(copy(source, sink))
            self._copies.add(task)
            task.add_done_callback(self._copies.discard)


def _client(server: ValkeyServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


@pytest.fixture
async def failover(tmp_path: Path, own_valkey: ValkeyServer) -> AsyncIterator[Failover]:
    second = ValkeyServer(tmp_path / "second").start()
    async with Failover(own_valkey, second).running() as failover:
        yield failover
    second.stop()


@pytest.fixture
async def streams(failover: Failover) -> AsyncIterator[Streams]:
    """All its connections stand."""
    connected = Streams(failover.url, block_seconds=0.1)
    await connected.ensure_group(WORK)
    await connected.publish([(WORK, {"id": "before"})])
    await connected.read(WORK, "worker", 1)
    await connected.set_marker()
    yield connected
    await connected.stop()


CALLS: Mapping[str, Callable[[Streams], Awaitable[Any]]] = {
    "publish": lambda streams: streams.publish([(WORK, {"id": "1"}), (WORK, {"id": "2"})]),
    "read": lambda streams: streams.read(WORK, "worker", 1),
    "read work": lambda streams: streams.read_work(TARGET, "worker", 1),
    "acknowledge": lambda streams: streams.acknowledge(WORK, ["1-0"]),
    "look for the marker": lambda streams: streams.memory_lost(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_demoted_redis_is_left_for_the_one_its_name_leads_to(
    failover: Failover, streams: Streams, call: Callable[[Streams], Awaitable[Any]]
) -> None:
    await failover.happen()

    with pytest.raises(StreamsUnavailable):
        await call(streams)

    for each in CALLS.values():
        await each(streams)
    assert await failover.primary.xlen(WORK) == 3


async def test_what_is_accepted_after_a_failover_is_rung_and_published(
    sqlite_url: str, keys: TestKeys, failover: Failover
) -> None:
    async with running_intake(sqlite_url, keys, real_time=True, redis_url=failover.url) as hub:
        await hub.relay.start()
        await hub.scheduler.start()
        before = await hub.create("E-1")
        await eventually(lambda: _is_rung(failover.primary, before.id))
        await eventually(lambda: failover.primary.exists("hub:marker"))

        await failover.happen()
        after = await hub.create("E-2")

        await eventually(lambda: _is_rung(failover.primary, after.id))
        await hub.scheduler.stop()
        await hub.relay.stop()


async def test_partners_are_limited_again_after_a_failover(failover: Failover) -> None:
    limit = RateLimit(failover.url, Telemetry("intake").counter("rate_limit_open_total"))

    async def is_limited() -> bool:
        return bool(await limit.take({Allowance("acme", 1000): 1}))

    await eventually(is_limited)
    await failover.happen()

    await eventually(is_limited)
    await limit.stop()


async def _demote(server: ValkeyServer) -> None:
    async with _client(server) as valkey:
        await valkey.replicaof("127.0.0.1", free_port())


async def _promote(server: ValkeyServer) -> None:
    async with _client(server) as valkey:
        await valkey.replicaof("NO", "ONE")


async def _fill(server: ValkeyServer) -> None:
    async with _client(server) as valkey:
        await valkey.config_set("maxmemory", "1")


async def _make_room(server: ValkeyServer) -> None:
    async with _client(server) as valkey:
        await valkey.config_set("maxmemory", "0")


async def _kill(server: ValkeyServer) -> None:
    server.kill()


async def _start(server: ValkeyServer) -> None:
    await asyncio.to_thread(server.start)


REFUSALS = {"a replica": (_demote, _promote), "full": (_fill, _make_room), "dead": (_kill, _start)}


@pytest.mark.parametrize(("refuse", "take"), REFUSALS.values(), ids=REFUSALS)
async def test_what_is_due_is_not_rung_while_redis_takes_no_writes(
    sqlite_url: str, keys: TestKeys, own_valkey: ValkeyServer, refuse: Act, take: Act
) -> None:
    async with running_intake(sqlite_url, keys, redis_url=own_valkey.url) as hub:
        await hub.scheduler.start()
        async with _client(own_valkey) as valkey:
            await eventually(lambda: valkey.exists("hub:marker"))
        created = await hub.create()
        (before,) = await hub.rows(tables.integration_requests)

        with capture_logs() as lines:
            await refuse(own_valkey)
            await eventually(lambda: _refusals(lines) >= 1)
            hub.clock.advance(15)
            await eventually(lambda: _refusals(lines) >= 3)
        (row,) = await hub.rows(tables.integration_requests)
        assert (row["due_at"], row["rings"]) == (before["due_at"], before["rings"])
        await take(own_valkey)

        await hub.relay.start()
        async with _client(own_valkey) as valkey:
            await eventually(lambda: _is_rung(valkey, created.id))
        await hub.scheduler.stop()
        await hub.relay.stop()


def _refusals(lines: Sequence[Mapping[str, Any]]) -> int:
    """How often the scheduler was refused."""
    return sum(line["event"] == "Loop step failed" and line["loop"] == "scheduler" for line in lines)


async def _is_rung(valkey: redis.Redis, request_id: str) -> bool:
    entries: Any = await valkey.xrange(WORK)
    return request_id in {fields["id"] for _, fields in entries}
