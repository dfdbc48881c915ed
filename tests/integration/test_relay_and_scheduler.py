"""From the commit to the streams on a real Valkey: nothing that was committed is forgotten, whatever Redis does."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import redis.asyncio as redis
from google.protobuf import json_format
from structlog.testing import capture_logs

from chassis.testing import TestKeys, eventually
from intake_service import outbox
from intake_service.store import due
from integrationhub.events.v1 import events_pb2
from integrationhub.intake.v1 import dead_letters_pb2 as letters
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from tests.intake import IntakeUnderTest, failed, new_request, retry, running_intake
from tests.servers import ValkeyServer

WORK = "hub:work:TotvsProtheus"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def hub(database_url: str, keys: TestKeys, redis_url: str) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys, redis_url=redis_url) as intake:
        yield intake
        await intake.scheduler.stop()
        await intake.relay.stop()


async def start_relay(hub: IntakeUnderTest, watcher: redis.Redis) -> None:
    """Start it and wait until it is past its first sweep, during which an event may be published twice."""
    await hub.relay.start()
    for name in ("first", "second"):
        await hub.cancel((await hub.create(name, target_system="SAP")).id)
        await eventually(lambda: outbox_is_empty(hub))
    await eventually(lambda: _holds(watcher, "hub:events", 4))
    last = (await entries(watcher, "hub:events"))[-1]
    assert last["type"] == "IntegrationRequestFailed"
    await watcher.delete("hub:events", "hub:work:SAP")


async def entries(watcher: redis.Redis, stream: str) -> list[dict[str, str]]:
    found: Any = await watcher.xrange(stream)
    return [fields for _, fields in found]


async def rings(watcher: redis.Redis, stream: str = WORK) -> list[str]:
    return [fields["id"] for fields in await entries(watcher, stream)]


async def published(watcher: redis.Redis, count: int) -> list[dict[str, str]]:
    """Wait until the event stream holds so many entries."""
    await eventually(lambda: _holds(watcher, "hub:events", count))
    return await entries(watcher, "hub:events")


async def _holds(watcher: redis.Redis, stream: str, count: int) -> bool:
    return bool(await watcher.xlen(stream) >= count)


async def create_batch(hub: IntakeUnderTest, numbers: range) -> None:
    wanted = pb.BatchCreateIntegrationRequestsRequest(requests=[new_request(f"E-{number}") for number in numbers])
    await hub.requests.BatchCreateIntegrationRequests(wanted, metadata=hub.partner())


async def outbox_is_empty(hub: IntakeUnderTest) -> bool:
    return await hub.unpublished() == []


async def test_a_created_request_reaches_the_work_stream_and_the_event_stream(
    hub: IntakeUnderTest, watcher: redis.Redis
) -> None:
    await start_relay(hub, watcher)
    created = await hub.create("E-1", correlation_id="c-1", traceparent=TRACE)

    (event,) = await published(watcher, 1)

    (work,) = await entries(watcher, WORK)
    assert work["id"] == created.id
    assert set(work) <= {"id", "traceparent"}  # no content: the database is the truth
    assert set(event) == {"type", "id", "correlation_id", "traceparent", "data"}
    assert (event["type"], event["id"]) == ("IntegrationRequestCreated", created.id)
    assert (event["correlation_id"], event["traceparent"]) == ("c-1", TRACE)
    await eventually(lambda: outbox_is_empty(hub))
    before = hub.metric("events_published_total", type="IntegrationRequestCreated")
    await hub.create("E-2")
    await published(watcher, 2)
    assert hub.metric("events_published_total", type="IntegrationRequestCreated") == before + 1


async def test_each_target_has_a_work_stream_of_its_own(hub: IntakeUnderTest, watcher: redis.Redis) -> None:
    await start_relay(hub, watcher)
    first, second = await hub.create("E-1"), await hub.create("E-2", target_system="SAP")
    await published(watcher, 2)

    assert (await rings(watcher), await rings(watcher, "hub:work:SAP")) == ([first.id], [second.id])


async def test_every_type_of_event_is_read_by_its_message(hub: IntakeUnderTest, watcher: redis.Redis) -> None:
    await start_relay(hub, watcher)
    done = await hub.sent("E-1")
    await hub.report(done, completed=life.Completed(external_response_json='{"id":1}'))
    dead = await hub.sent("E-2")
    await hub.report(dead, failed=failed("timeout"))

    events = await published(watcher, 9)

    messages: Counter[str] = Counter()
    for event in events:
        message: Any = getattr(events_pb2, event["type"])()
        json_format.Parse(event["data"], message)
        messages[event["type"]] += 1
        assert (message.event_type, message.request_id) == (event["type"], event["id"])
        assert message.correlation_id == event["correlation_id"]
        assert message.timestamp.ToMilliseconds() == hub.clock.now() // 1000
    assert messages == {
        "IntegrationRequestCreated": 2,
        "IntegrationRequestStatusChanged": 4,
        "IntegrationRequestCompleted": 1,
        "IntegrationRequestFailed": 1,
        "IntegrationRequestDeadLettered": 1,
    }
    assert {message.name for message in events_pb2.DESCRIPTOR.message_types_by_name.values()} == set(messages)


async def test_a_dead_letter_is_announced_on_its_own_stream_too(hub: IntakeUnderTest, watcher: redis.Redis) -> None:
    await start_relay(hub, watcher)
    lease = await hub.sent()
    await hub.report(lease, failed=failed("timeout"))
    await published(watcher, 5)

    (entry,) = await entries(watcher, "hub:dlq")

    message = json_format.Parse(entry["data"], events_pb2.IntegrationRequestDeadLettered())
    assert (message.request_id, message.failure_reason) == (lease.integration_request.id, "timeout")
    assert message.attempts == 1


async def test_the_events_of_one_request_keep_their_order(hub: IntakeUnderTest, watcher: redis.Redis) -> None:
    await start_relay(hub, watcher)
    for number in range(10):
        lease = await hub.sent(f"E-{number}")
        await hub.report(lease, completed=life.Completed())

    events = await published(watcher, 40)

    stories: dict[str, list[str]] = {}
    for event in events:
        stories.setdefault(event["id"], []).append(event["type"].removeprefix("IntegrationRequest"))
    assert set(map(tuple, stories.values())) == {("Created", "StatusChanged", "StatusChanged", "Completed")}


async def test_a_redrive_rings_at_once(hub: IntakeUnderTest, watcher: redis.Redis) -> None:
    await start_relay(hub, watcher)
    lease = await hub.sent()
    request_id = lease.integration_request.id
    await hub.report(lease, failed=failed("timeout"))
    wanted = letters.RedriveDeadLettersRequest(selection=letters.DeadLetterSelection(ids=[request_id]), reason="again")
    await hub.dead_letters.RedriveDeadLetters(wanted, metadata=hub.operator)

    await published(watcher, 6)

    assert await rings(watcher) == [request_id, request_id]


async def test_what_is_handed_back_without_a_wait_rings_at_once(hub: IntakeUnderTest, watcher: redis.Redis) -> None:
    await start_relay(hub, watcher)
    lease = await hub.sent()
    await published(watcher, 3)

    await hub.report(lease, retry=retry(0))

    await eventually(lambda: _holds(watcher, WORK, 2))


async def test_the_outbox_of_a_killed_process_is_swept(
    database_url: str, keys: TestKeys, redis_url: str, watcher: redis.Redis
) -> None:
    async with running_intake(database_url, keys) as killed:
        lease = await killed.sent("E-1")
        await killed.report(lease, completed=life.Completed())
        assert len(await killed.unpublished()) == 4
        at = killed.clock

    at.advance(3)
    async with running_intake(database_url, keys, clock=at, redis_url=redis_url) as another:
        await another.relay.start()
        events = await published(watcher, 4)
        await eventually(lambda: outbox_is_empty(another))
        await another.relay.stop()

    types = [event["type"].removeprefix("IntegrationRequest") for event in events]
    assert types == ["Created", "StatusChanged", "StatusChanged", "Completed"]
    assert await rings(watcher) == [lease.integration_request.id]


async def test_more_than_a_batch_left_behind_is_swept_whole(
    database_url: str, keys: TestKeys, redis_url: str, watcher: redis.Redis
) -> None:
    async with running_intake(database_url, keys, maximum=5000, maximum_per_partner=5000) as killed:
        for start in (0, 600):
            await create_batch(killed, range(start, start + 600))
        killed.clock.advance(3)
        async with running_intake(database_url, keys, clock=killed.clock, redis_url=redis_url) as another:
            await another.relay.start()
            await eventually(lambda: outbox_is_empty(another))
            await another.relay.stop()

    assert len(set(await rings(watcher))) == 1200


async def test_creates_are_accepted_while_redis_is_down_and_published_when_it_is_back(
    database_url: str, keys: TestKeys, own_valkey: ValkeyServer
) -> None:
    async with running_intake(database_url, keys, real_time=True, redis_url=own_valkey.url) as hub:
        await hub.relay.start()
        await eventually(lambda: outbox_is_empty(hub))
        own_valkey.kill()
        created = [await hub.create(f"E-{number}") for number in range(20)]

        own_valkey.start()
        last = await hub.create("E-20")  # a moment old when the relay finds Redis again

        async with redis.Redis.from_url(own_valkey.url, decode_responses=True) as watcher:
            await eventually(lambda: _holds(watcher, "hub:events", 21), 3)
            assert set(await rings(watcher)) == {each.id for each in (*created, last)}
        await eventually(lambda: outbox_is_empty(hub))
        await hub.relay.stop()


@asynccontextmanager
async def full(watcher: redis.Redis) -> AsyncIterator[None]:
    """Redis without room for another entry, for as long as the `with` lasts."""
    await watcher.config_set("maxmemory", "1")
    try:
        yield
    finally:
        await watcher.config_set("maxmemory", "0")


def _failed_steps(lines: Sequence[Mapping[str, Any]], loop: str) -> int:
    return sum(line["event"] == "Loop step failed" and line["loop"] == loop for line in lines)


async def test_a_full_redis_loses_no_event(hub: IntakeUnderTest, watcher: redis.Redis) -> None:
    await start_relay(hub, watcher)
    with capture_logs() as lines:
        async with full(watcher):
            created = await hub.create()
            hub.clock.advance(3)
            await eventually(lambda: _failed_steps(lines, "outbox-relay") >= 2)
            assert (await watcher.xlen(WORK), len(await hub.unpublished())) == (0, 1)

    await eventually(lambda: _holds(watcher, WORK, 1))
    assert await rings(watcher) == [created.id]


async def test_a_key_that_is_no_stream_stops_nothing(hub: IntakeUnderTest, watcher: redis.Redis) -> None:
    await start_relay(hub, watcher)
    await watcher.set(WORK, "not a stream")
    poisoned, other = await hub.create("E-1"), await hub.create("E-2", target_system="SAP")

    await eventually(lambda: outbox_is_empty(hub))

    assert (set(await rings(watcher)), set(await rings(watcher, "hub:work:SAP"))) == ({poisoned.id}, {other.id})
    assert await watcher.xlen("hub:events") <= 4  # each once, or twice where the first try had half succeeded


async def test_keys_that_are_no_streams_at_the_start_stop_nothing(hub: IntakeUnderTest, watcher: redis.Redis) -> None:
    await watcher.mset({"hub:events": "not a stream", "hub:dlq": "not a stream"})
    created = await hub.create()

    await hub.relay.start()

    await eventually(lambda: outbox_is_empty(hub))
    assert set(await rings(watcher)) == {created.id}


async def test_what_is_in_memory_is_published_before_the_relay_stops(
    hub: IntakeUnderTest, watcher: redis.Redis
) -> None:
    await start_relay(hub, watcher)
    await hub.create("E-0")
    await published(watcher, 1)
    await asyncio.gather(*(hub.create(f"E-{number}") for number in range(1, 51)))

    await hub.relay.stop()

    # what was on its way when the relay was told to stop is published twice
    assert len(set(await rings(watcher, "hub:events"))) == 51
    assert await outbox_is_empty(hub)


async def test_due_rows_are_rung_and_pushed_15_30_60_seconds(hub: IntakeUnderTest, watcher: redis.Redis) -> None:
    await start_relay(hub, watcher)
    created = await hub.create()
    await published(watcher, 1)
    hub.clock.advance(15)

    for number, pause in enumerate((15, 30, 60), start=2):
        await hub.scheduler.ring_due()
        await eventually(partial(_holds, watcher, WORK, number))
        hub.clock.advance(pause - 0.001)
        assert (await hub.scheduler.ring_due()).rings == []
        hub.clock.advance(0.001)

    assert await rings(watcher) == [created.id] * 4
    assert hub.metric("due_rings_total", target="TotvsProtheus") == 3


async def test_everything_that_waits_is_rung_at_once_when_redis_has_forgotten_it(
    hub: IntakeUnderTest, watcher: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "MOST_MADE_DUE", 8)
    await start_relay(hub, watcher)
    await hub.scheduler.start()
    await eventually(lambda: watcher.exists("hub:marker"))
    created = {(await hub.create(f"E-{number}")).id for number in range(30)}
    held = await hub.lease((await hub.create("held")).id)
    await eventually(lambda: _holds(watcher, WORK, 31))

    await watcher.flushall()

    await eventually(lambda: _holds(watcher, WORK, 30), 5)
    assert set(await rings(watcher)) == created
    assert held.integration_request.id not in created
    assert await watcher.exists("hub:marker")


async def test_old_events_are_dropped_at_the_start_also_on_a_machine_that_has_just_booted(
    hub: IntakeUnderTest, watcher: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted_at = time.monotonic() - 5
    just_booted = SimpleNamespace(monotonic=lambda: time.monotonic() - booted_at, time_ns=time.time_ns)
    monkeypatch.setattr(outbox, "time", just_booted)
    await watcher.xadd("hub:events", {"type": "old"}, id="1-0")

    await hub.relay.start()

    await eventually(lambda: _is_gone(watcher, "hub:events"))


async def _is_gone(watcher: redis.Redis, stream: str) -> bool:
    return not await watcher.xlen(stream)
