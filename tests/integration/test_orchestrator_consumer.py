"""From the stream to the claim and the acknowledgement, on a real Valkey with a real gRPC intake and adapter."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
import redis.asyncio as redis
from structlog.testing import capture_logs

from chassis.errors import StorageUnavailable
from chassis.streams import GROUP, work_stream
from chassis.testing import eventually
from integrationhub.adapter.v1 import adapter_pb2
from integrationhub.adapter.v1.adapter_pb2 import DeliverRequest, DeliverResponse
from orchestrator_service.breaker import BreakerState
from orchestrator_service.capacity import WaitReason
from orchestrator_service.consumer import Consumer
from tests.orchestrator_fakes import (
    WORKER,
    Gate,
    Surroundings,
    always,
    consuming_from,
    delivered,
    target,
)
from tests.servers import ValkeyServer

ERP = work_stream("Erp")
UNAVAILABLE = DeliverResponse(outcome=adapter_pb2.OUTCOME_UNAVAILABLE, detail="503")


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path_factory.mktemp("valkey")).start()
    yield server
    server.stop()


Consuming = Callable[..., AbstractAsyncContextManager[Consumer]]


@pytest.fixture
def consuming(parts: Surroundings, valkey: ValkeyServer) -> Consuming:
    """A worker that reads the streams of some targets; by default of Erp alone."""
    return partial(consuming_from, parts, valkey.url)


async def ring(db: Any, request_id: str, name: str = "Erp") -> None:
    await db.xadd(work_stream(name), {"id": request_id})


async def pending(db: Any, stream: str = ERP) -> int:
    """Entries that were read and not acknowledged."""
    try:
        return int((await db.xpending(stream, GROUP))["pending"])
    except redis.ResponseError:
        return 0  # the reader has not made the group yet


async def is_empty(db: Any) -> bool:
    """Whether nothing waits and nothing is pending."""
    length: int = await db.xlen(ERP)
    return length == 0 and await pending(db) == 0


async def test_a_rung_request_is_delivered_and_its_entry_deleted(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    request_id = parts.intake.add()
    async with consuming():
        await ring(db, request_id)
        await eventually(lambda: parts.intake.requests[request_id].steps == ["sending", "completed"])
        await eventually(lambda: is_empty(db))


async def test_what_was_rung_before_the_worker_came_is_read(parts: Surroundings, db: Any, consuming: Consuming) -> None:
    request_id = parts.intake.add()
    await ring(db, request_id)
    async with consuming():
        await eventually(lambda: parts.intake.requests[request_id].is_terminal)


async def test_an_entry_is_acknowledged_only_after_its_claim(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    parts.intake.open.clear()
    async with consuming():
        await ring(db, parts.intake.add())
        await eventually(lambda: pending(db))
        before = await pending(db)
        parts.intake.open.set()
        await eventually(lambda: is_empty(db))

    assert before == 1


async def test_entries_stay_pending_while_intake_is_away_and_are_claimed_when_it_is_back(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    parts.intake.away = StorageUnavailable("The database is away.")
    request_id = parts.intake.add()
    with capture_logs() as lines:
        async with consuming():
            await ring(db, request_id)
            await eventually(lambda: any(line["event"] == "Stream is not read" for line in lines))
            left = await pending(db)
            parts.intake.away = None
            await eventually(lambda: parts.intake.requests[request_id].is_terminal)
            await eventually(lambda: is_empty(db))

    assert left == 1


async def test_a_claim_whose_answer_was_lost_is_made_again(parts: Surroundings, db: Any, consuming: Consuming) -> None:
    parts.intake.loses_next_answer = StorageUnavailable("The answer is lost.")
    request_id = parts.intake.add()
    async with consuming():
        await ring(db, request_id)
        await eventually(lambda: len(parts.intake.claims) == 2)
        await ring(db, request_id)  # as intake does for what was handed back
        await eventually(lambda: parts.intake.requests[request_id].is_terminal)

    assert len(parts.adapter.deliveries) == 1


async def test_entries_of_a_dead_worker_are_taken_over(parts: Surroundings, db: Any, consuming: Consuming) -> None:
    request_id = parts.intake.add()
    await ring(db, request_id)
    await db.xgroup_create(ERP, GROUP, id="0")
    await db.xreadgroup(GROUP, "dead-worker", {ERP: ">"})
    async with consuming(reclaim_seconds=0.1):
        await eventually(lambda: parts.intake.requests[request_id].is_terminal)
        await eventually(lambda: is_empty(db))


async def test_what_a_cancelled_read_left_behind_is_swept_up(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    request_id = parts.intake.add()
    async with consuming(sweep_seconds=0.1):
        await eventually(lambda: db.exists(ERP))
        await ring(db, request_id)
        await db.xreadgroup(GROUP, WORKER, {ERP: ">"})
        await eventually(lambda: parts.intake.requests[request_id].is_terminal)
        await eventually(lambda: is_empty(db))


async def test_a_pending_entry_that_was_deleted_is_acknowledged(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    await ring(db, parts.intake.add())
    await db.xgroup_create(ERP, GROUP, id="0")
    await db.xreadgroup(GROUP, WORKER, {ERP: ">"})
    await db.xtrim(ERP, maxlen=0, approximate=False)
    async with consuming():
        await eventually(lambda: is_empty(db))

    assert parts.adapter.deliveries == []


@pytest.mark.parametrize("damage", ["group", "everything"])
async def test_a_lost_group_is_made_again(parts: Surroundings, db: Any, consuming: Consuming, damage: str) -> None:
    request_id = parts.intake.add()
    async with consuming():
        await eventually(lambda: db.exists(ERP))
        await (db.xgroup_destroy(ERP, GROUP) if damage == "group" else db.flushall())
        await ring(db, request_id)
        await eventually(lambda: parts.intake.requests[request_id].is_terminal, seconds=2)


async def test_valkey_may_go_and_come_back(
    parts: Surroundings, db: Any, consuming: Consuming, valkey: ValkeyServer
) -> None:
    request_id = parts.intake.add()
    async with consuming():
        await eventually(lambda: db.exists(ERP))
        valkey.kill()
        valkey.start()
        await db.connection_pool.disconnect()
        await ring(db, request_id)
        await eventually(lambda: parts.intake.requests[request_id].is_terminal)


@pytest.mark.parametrize("fields", [{"id": "not-a-uuid"}, {"id": ""}, {"other": "field"}, {b"id": b"\xff\xfe"}])
async def test_junk_is_acknowledged_and_counted(
    parts: Surroundings, db: Any, consuming: Consuming, fields: dict[Any, Any]
) -> None:
    request_id = parts.intake.add()
    async with consuming():
        await db.xadd(ERP, fields)
        await ring(db, request_id)
        await eventually(lambda: parts.intake.requests[request_id].is_terminal)
        await eventually(lambda: is_empty(db))

    assert parts.count("orphan_event_total") == 1


async def test_an_entry_for_an_unknown_request_is_acknowledged_and_counted(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    async with consuming():
        await ring(db, str(uuid.uuid4()))
        await eventually(lambda: parts.count("orphan_event_total") == 1)
        await eventually(lambda: is_empty(db))


async def test_a_request_rung_a_hundred_times_is_delivered_once(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    request_id = parts.intake.add()
    async with consuming():
        for _ in range(100):
            await ring(db, request_id)
        await eventually(lambda: is_empty(db))

    assert (len(parts.adapter.deliveries), parts.intake.requests[request_id].steps) == (1, ["sending", "completed"])


async def test_a_request_is_not_claimed_again_while_it_is_worked_on(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    parts.adapter.answer = gate = Gate()
    request_id = parts.intake.add()
    async with consuming():
        await ring(db, request_id)
        await eventually(lambda: parts.adapter.deliveries)
        await ring(db, request_id)
        await eventually(lambda: is_empty(db))
        claimed = list(parts.intake.claims)
        gate.is_open.set()
        await eventually(lambda: parts.intake.requests[request_id].is_terminal)

    assert claimed == [[request_id]]


async def test_a_bell_that_rang_during_the_work_is_not_lost(parts: Surroundings, db: Any, consuming: Consuming) -> None:
    parts.adapter.answer = gate = Gate(UNAVAILABLE)
    request_id = parts.intake.add()
    async with consuming():
        await ring(db, request_id)
        await eventually(lambda: parts.adapter.deliveries)
        await ring(db, request_id)
        await eventually(lambda: is_empty(db))
        parts.adapter.answer = delivered
        gate.is_open.set()
        await eventually(lambda: parts.intake.requests[request_id].is_terminal)

    assert parts.intake.requests[request_id].steps == ["sending", "retry", "sending", "completed"]


class BrokenProcessor:
    """Fails where nothing is caught."""

    async def process(self, *_: Any) -> bool:
        raise ZeroDivisionError


async def test_a_fault_of_ours_is_logged_under_the_requests_ids(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    request_id = parts.intake.add()
    with capture_logs() as lines:
        async with consuming(processor=BrokenProcessor()):
            await ring(db, request_id)
            await eventually(lambda: lines)

    correlation_id = parts.intake.requests[request_id].lease.integration_request.correlation_id
    assert [(line["event"], line["request_id"], line["correlation_id"]) for line in lines] == [
        ("Error processing integration request", request_id, correlation_id)
    ]


async def test_a_full_target_is_not_read(parts: Surroundings, db: Any, consuming: Consuming) -> None:
    parts.adapter.answer = gate = Gate()
    ids = [parts.intake.add() for _ in range(5)]
    async with consuming(target(concurrency=2)):
        for request_id in ids:
            await ring(db, request_id)
        await eventually(lambda: len(parts.adapter.deliveries) == 2)
        claimed = sum(len(group) for group in parts.intake.claims)
        unread = await db.xlen(ERP)
        gate.is_open.set()
        await eventually(lambda: all(parts.intake.requests[request_id].is_terminal for request_id in ids))

    assert (claimed, unread) == (2, 3)


async def test_an_open_breaker_leaves_the_work_in_its_stream(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    parts.adapter.answer = always(UNAVAILABLE)
    ids = [parts.intake.add(retries=3) for _ in range(20)]
    async with consuming(target(concurrency=1)) as consumer:
        for request_id in ids:
            await ring(db, request_id)
        await eventually(lambda: consumer.readers[0].capacity.breaker is BreakerState.OPEN)
        await eventually(lambda: consumer.readers[0].capacity.in_flight == 0)

    assert len(parts.adapter.deliveries) == 10
    assert await db.xlen(ERP) == 10


async def test_a_pause_that_one_worker_was_asked_for_is_kept_by_the_others(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    throttled = DeliverResponse(outcome=adapter_pb2.OUTCOME_THROTTLED)
    throttled.retry_after.FromMilliseconds(1500)
    parts.adapter.answer = always(throttled)
    async with consuming() as first, consuming() as second:
        for index, consumer in enumerate((first, second)):
            consumer.readers[0].capacity.set_share(workers=2, index=index)
        await ring(db, parts.intake.add())
        await eventually(lambda: db.exists("hub:pause:Erp"))
        parts.adapter.answer = delivered
        waiting = [parts.intake.add() for _ in range(4)]
        for request_id in waiting:
            await ring(db, request_id)
        await eventually(lambda: all(_waits(consumer) for consumer in (first, second)))
        called_meanwhile = len(parts.adapter.deliveries)
        await eventually(lambda: all(parts.intake.requests[request_id].is_terminal for request_id in waiting))

    assert called_meanwhile == 1


async def test_a_pause_that_a_lone_worker_was_asked_for_is_kept_by_the_one_after_it(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    throttled = DeliverResponse(outcome=adapter_pb2.OUTCOME_THROTTLED)
    throttled.retry_after.FromMilliseconds(1500)
    parts.adapter.answer = always(throttled)
    async with consuming():
        await ring(db, parts.intake.add())
        await eventually(lambda: parts.adapter.deliveries)
    parts.adapter.answer = delivered
    left, new = parts.intake.add(), parts.intake.add()
    await ring(db, left)
    await db.xreadgroup(GROUP, "dead-worker", {ERP: ">"})
    await ring(db, new)
    async with consuming(reclaim_seconds=0) as consumer:
        await eventually(lambda: _waits(consumer))
        called_meanwhile = len(parts.adapter.deliveries)
        await eventually(lambda: all(parts.intake.requests[request_id].is_terminal for request_id in (left, new)))

    assert called_meanwhile == 1


def _waits(consumer: Consumer) -> bool:
    wait = consumer.readers[0].capacity.wait()
    return wait is not None and wait.reason is WaitReason.RETRY_AFTER


async def test_one_slow_target_does_not_hold_another(parts: Surroundings, db: Any, consuming: Consuming) -> None:
    gate = Gate()

    async def answer(delivery: DeliverRequest) -> DeliverResponse:
        return await (gate if delivery.target_system == "Slow" else delivered)(delivery)

    parts.adapter.answer = answer
    slow = [parts.intake.add("Slow") for _ in range(20)]
    quick = [parts.intake.add("Quick") for _ in range(20)]
    async with consuming(target("Slow"), target("Quick")):
        for request_id in slow:
            await ring(db, request_id, "Slow")
        await eventually(lambda: len(parts.adapter.delivered_to("Slow")) == 8)
        for request_id in quick:
            await ring(db, request_id, "Quick")
        await eventually(lambda: all(parts.intake.requests[request_id].is_terminal for request_id in quick))
        still_waiting = [request_id for request_id in slow if not parts.intake.requests[request_id].is_terminal]
        gate.is_open.set()

    assert len(still_waiting) == 20


async def test_work_waits_in_its_stream_while_the_adapter_is_away(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    await parts.adapter_server.stop()
    request_id = parts.intake.add()
    with capture_logs() as lines:
        async with consuming():
            await ring(db, request_id)
            await eventually(lambda: any(line["event"] == "Stream is not read" for line in lines))
            claims = len(parts.intake.claims)
            await parts.adapter_server.start()
            await eventually(lambda: parts.intake.requests[request_id].is_terminal)

    assert claims == 0
