"""How a worker leaves: it reads no more, finishes what was sent, hands back the rest and says goodbye."""

import asyncio
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from chassis.errors import StorageUnavailable
from chassis.streams import GROUP, work_stream
from chassis.testing import eventually
from orchestrator_service.capacity import TargetCapacity
from orchestrator_service.heartbeat import Heartbeat
from tests.orchestrator_fakes import WORKER, Gate, Surroundings, consuming_from, target
from tests.servers import ValkeyServer

ERP = work_stream("Erp")


async def consumers(db: Any) -> list[str]:
    return [consumer["name"] for consumer in await db.xinfo_consumers(ERP, GROUP)]


async def test_what_was_sent_is_finished(parts: Surroundings, db: Any, valkey: ValkeyServer) -> None:
    parts.adapter.answer = gate = Gate()
    request_id = parts.intake.add()
    async with consuming_from(parts, valkey.url) as consumer:
        await db.xadd(ERP, {"id": request_id})
        await eventually(lambda: parts.adapter.deliveries)
        stopping = asyncio.create_task(consumer.stop())
        await eventually(lambda: consumer.readers[0].capacity.wait() is not None)
        gate.is_open.set()
        await stopping

    assert parts.intake.requests[request_id].steps == ["sending", "completed"]


async def test_all_16_that_are_in_flight_are_finished_and_none_is_posted_twice(
    parts: Surroundings, db: Any, valkey: ValkeyServer
) -> None:
    parts.adapter.answer = gate = Gate()
    ids = [parts.intake.add() for _ in range(16)]
    async with consuming_from(parts, valkey.url, target(concurrency=16)) as consumer:
        for request_id in ids:
            await db.xadd(ERP, {"id": request_id})
        await eventually(lambda: len(parts.adapter.deliveries) == 16)
        stopping = asyncio.create_task(consumer.stop())
        await eventually(lambda: consumer.readers[0].capacity.wait() is not None)
        gate.is_open.set()
        await stopping

    assert {tuple(parts.intake.requests[request_id].steps) for request_id in ids} == {("sending", "completed")}
    assert len(parts.adapter.deliveries) == 16


async def test_what_was_claimed_and_not_sent_is_handed_back(parts: Surroundings, db: Any, valkey: ValkeyServer) -> None:
    parts.intake.open.clear()
    request_id = parts.intake.add()
    async with consuming_from(parts, valkey.url) as consumer:
        capacity = consumer.readers[0].capacity
        await db.xadd(ERP, {"id": request_id})
        await eventually(lambda: capacity.free() < capacity.limit)
        stopping = asyncio.create_task(consumer.stop())
        await eventually(lambda: consumer.readers[0].capacity.refusal(is_probe=False) is not None)
        parts.intake.open.set()
        await stopping

    request = parts.intake.requests[request_id]
    assert (request.steps, request.reports[1].release.not_sent) == (["sending", "release"], True)
    assert (request.lease.in_doubt, request.lease.integration_request.attempts) == (False, 0)
    assert parts.adapter.deliveries == []


async def test_nothing_is_read_after_the_end(parts: Surroundings, db: Any, valkey: ValkeyServer) -> None:
    async with consuming_from(parts, valkey.url):
        await eventually(lambda: db.exists(ERP))
    await db.xadd(ERP, {"id": parts.intake.add()})

    assert (await db.xlen(ERP), parts.intake.claims) == (1, [])


async def test_what_does_not_end_within_the_grace_is_left_in_doubt(
    parts: Surroundings, db: Any, valkey: ValkeyServer
) -> None:
    parts.adapter.answer = gate = Gate()
    request_id = parts.intake.add()
    async with consuming_from(parts, valkey.url, grace_seconds=0.2) as consumer:
        await db.xadd(ERP, {"id": request_id})
        await eventually(lambda: parts.adapter.deliveries)
        started = time.monotonic()
        await consumer.stop()
        elapsed = time.monotonic() - started
        gate.is_open.set()

    assert parts.intake.requests[request_id].steps == ["sending"]
    assert 0.2 <= elapsed < 3


async def test_the_workers_name_leaves_the_group(parts: Surroundings, db: Any, valkey: ValkeyServer) -> None:
    async with consuming_from(parts, valkey.url):
        await eventually(lambda: db.exists(ERP))
        await eventually(lambda: consumers(db))

    assert await consumers(db) == []


async def test_the_name_stays_while_entries_are_pending_under_it(
    parts: Surroundings, db: Any, valkey: ValkeyServer
) -> None:
    parts.intake.away = StorageUnavailable("The database is away.")
    async with consuming_from(parts, valkey.url):
        await eventually(lambda: db.exists(ERP))
        await db.xadd(ERP, {"id": parts.intake.add()})
        await eventually(lambda: _pending(db))

    assert await consumers(db) == [WORKER]


async def _pending(db: Any) -> int:
    return int((await db.xpending(ERP, GROUP))["pending"])


async def test_stopping_twice_or_before_the_start_is_harmless(parts: Surroundings, valkey: ValkeyServer) -> None:
    async with consuming_from(parts, valkey.url) as consumer:
        await consumer.stop()
        await consumer.stop()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("moment", range(12))
async def test_it_stops_at_once_at_any_moment(
    parts: Surroundings, db: Any, valkey: ValkeyServer, moment: int, workers: int
) -> None:
    # the first moments fall into connecting and the first commands, where a cancellation may be swallowed
    async with consuming_from(parts, valkey.url, block_seconds=5.0) as consumer:
        consumer.readers[0].capacity.set_share(workers=workers, index=0)
        await db.ping()
        await asyncio.sleep(moment * 0.002)
        started = time.monotonic()
        await consumer.stop()

    assert time.monotonic() - started < 2


async def test_a_beat_deals_the_shares(parts: Surroundings) -> None:
    capacities = [TargetCapacity(target("A", concurrency=5)), TargetCapacity(target("B", concurrency=1))]
    parts.intake.live_workers, parts.intake.worker_index = 2, 1
    heartbeat = Heartbeat(parts.intake_client, capacities)
    await heartbeat.beat()

    # worker 1 of 2: 5 // 2 = 2, and the rest of 1 belongs to worker 0
    assert [capacity.limit for capacity in capacities] == [2, 0]
    assert heartbeat.live_workers == 2


async def test_a_share_that_grows_is_taken_at_the_next_beat(parts: Surroundings) -> None:
    capacity = TargetCapacity(target(concurrency=8))
    heartbeat = Heartbeat(parts.intake_client, [capacity])
    parts.intake.live_workers = 4
    await heartbeat.beat()
    parts.intake.live_workers = 1
    await heartbeat.beat()

    assert capacity.limit == 8


async def test_shares_stay_while_intake_is_away(parts: Surroundings) -> None:
    capacity = TargetCapacity(target())
    heartbeat = Heartbeat(parts.intake_client, [capacity])
    await heartbeat.beat()
    parts.intake.away = StorageUnavailable("The database is away.")
    with pytest.raises(StorageUnavailable):
        await heartbeat.beat()

    assert capacity.limit == 8


async def test_a_worker_that_leaves_says_goodbye(parts: Surroundings) -> None:
    heartbeat = Heartbeat(parts.intake_client, [])
    await heartbeat.start()
    await eventually(lambda: heartbeat.live_workers)
    await heartbeat.stop()

    assert [beat.leaving for beat in parts.intake.beats] == [False, True]
    assert {beat.worker_id for beat in parts.intake.beats} == {WORKER}


async def test_a_goodbye_that_is_not_heard_keeps_nobody(parts: Surroundings) -> None:
    heartbeat = Heartbeat(parts.intake_client, [])
    await heartbeat.start()
    await eventually(lambda: heartbeat.live_workers)
    parts.intake.away = StorageUnavailable("The database is away.")
    with capture_logs() as lines:
        await heartbeat.stop()

    assert [line["event"] for line in lines] == ["Goodbye was not heard; leases end by silence"]


async def test_a_worker_that_was_given_up_says_so_but_not_at_its_first_beat(parts: Surroundings) -> None:
    parts.intake.was_given_up = True
    heartbeat = Heartbeat(parts.intake_client, [])
    with capture_logs() as lines:
        await heartbeat.beat()
        first = len(lines)
        await heartbeat.beat()

    assert (first, [line["log_level"] for line in lines]) == (0, ["warning"])
