"""What the hub relies on in Redis Streams, on a real Valkey."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis

from chassis.streams import COMMAND_TIMEOUT_SECONDS, EVENTS_STREAM, GROUP, Streams, StreamsUnavailable
from chassis.testing import eventually
from tests.servers import ValkeyServer

STREAM = "hub:work:Anything"


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path / "valkey").start()
    yield server
    server.stop()


@pytest.fixture
async def streams(valkey: ValkeyServer) -> AsyncIterator[Streams]:
    connected = Streams(valkey.url, block_seconds=0.1)
    await connected.ensure_group(STREAM)
    yield connected
    await connected.stop()


@pytest.fixture
async def commands(valkey: ValkeyServer) -> AsyncIterator[redis.Redis]:
    client = redis.Redis.from_url(valkey.url, decode_responses=True, legacy_responses=False)
    yield client
    await client.aclose()


async def names(commands: redis.Redis) -> list[str]:
    return [consumer["name"] for consumer in await commands.xinfo_consumers(STREAM, GROUP)]


async def test_an_acknowledged_entry_leaves_the_stream(streams: Streams) -> None:
    await streams.publish([(STREAM, {"id": "1"}), (STREAM, {"id": "2"})])
    entries = await streams.read(STREAM, "worker", 10)

    await streams.acknowledge(STREAM, [entries[0].id])

    assert [entry.fields["id"] for entry in entries] == ["1", "2"]
    assert (await streams.waiting(STREAM))[0] == 1


async def test_a_lost_group_is_made_again_from_the_beginning(streams: Streams, commands: redis.Redis) -> None:
    await streams.publish([(STREAM, {"id": "before"})])
    await commands.xgroup_destroy(STREAM, GROUP)

    first = await streams.read(STREAM, "worker", 10)
    second = await streams.read(STREAM, "worker", 10)

    assert first == []
    assert [entry.fields["id"] for entry in second] == ["before"]


async def test_a_pause_is_heard_with_the_next_work(streams: Streams, commands: redis.Redis) -> None:
    await streams.publish([(STREAM, {"id": "1"})])
    await streams.leave_alone("Anything", 20)
    await streams.leave_alone("Anything", 5)  # a longer wait stands
    entries, seconds = await streams.read_work("Anything", "worker", 10)
    asked_for = await streams.pause_seconds("Anything")
    await commands.delete("hub:pause:Anything")
    nothing, over = await streams.read_work("Anything", "worker", 10)

    assert [entry.fields["id"] for entry in entries] == ["1"]
    assert 19 < asked_for <= seconds <= 20
    assert (nothing, over, await streams.pause_seconds("Anything")) == ([], 0, 0)


async def test_a_lost_group_is_made_again_while_a_pause_is_looked_for(streams: Streams, commands: redis.Redis) -> None:
    await streams.publish([(STREAM, {"id": "before"})])
    await commands.xgroup_destroy(STREAM, GROUP)

    first, _ = await streams.read_work("Anything", "worker", 10)
    second, _ = await streams.read_work("Anything", "worker", 10)

    assert first == []
    assert [entry.fields["id"] for entry in second] == ["before"]


async def test_an_entry_of_a_dead_worker_is_taken_over(streams: Streams) -> None:
    await streams.publish([(STREAM, {"id": "1"})])
    await streams.read(STREAM, "dead", 10)

    async def taken_over() -> list[str]:
        return [entry.fields["id"] for entry in await streams.reclaim(STREAM, "living", idle_seconds=0.05)]

    assert await eventually(taken_over) == ["1"]


async def test_an_entry_deleted_while_pending_is_not_handed_out(streams: Streams, commands: redis.Redis) -> None:
    await streams.publish([(STREAM, {"id": "1"})])
    (entry,) = await streams.read(STREAM, "dead", 10)
    await commands.xdel(STREAM, entry.id)

    assert await streams.reclaim(STREAM, "living", idle_seconds=0) == []


async def test_names_of_dead_workers_are_forgotten_but_never_with_entries(
    streams: Streams, commands: redis.Redis
) -> None:
    await streams.publish([(STREAM, {"id": "1"})])
    await streams.read(STREAM, "holds-one", 1)
    await streams.read(STREAM, "holds-none", 1)

    async def reaped() -> bool:
        await streams.reap_consumers(STREAM, idle_seconds=0.01)
        return await names(commands) == ["holds-one"]

    assert await eventually(reaped)


async def test_a_flush_is_noticed_by_the_missing_marker(streams: Streams, commands: redis.Redis) -> None:
    await streams.set_marker()
    before = await streams.memory_lost()
    await commands.flushall()

    assert (before, await streams.memory_lost()) == (False, True)


async def test_a_dead_redis_is_said_to_be_so_within_its_time_out(streams: Streams, valkey: ValkeyServer) -> None:
    valkey.kill()

    with pytest.raises(StreamsUnavailable):
        await streams.publish([(STREAM, {"id": "1"})])
    with pytest.raises(StreamsUnavailable):
        await streams.read(STREAM, "worker", 1)


async def test_a_publication_that_is_cancelled_leaves_no_answer_to_the_next(
    streams: Streams, commands: redis.Redis
) -> None:
    await commands.set("hub:work:Broken", "no stream")
    await streams.publish([(STREAM, {"id": "before"})])  # its connection is kept for what follows

    async def is_held_back() -> bool:
        return any(client["cmd"] == "xadd" and "b" in client["flags"] for client in await commands.client_list())

    await commands.client_pause(60_000, all=False)
    publication = asyncio.create_task(streams.publish([(STREAM, {"id": str(number)}) for number in range(3)]))
    await eventually(is_held_back)
    publication.cancel()
    await asyncio.wait([publication])
    await commands.client_unpause()

    with pytest.raises(StreamsUnavailable):
        await streams.publish([("hub:work:Broken", {"id": "1"})])
    await streams.publish([("hub:work:Broken", {"id": "2"})])
    assert (await streams.waiting("hub:work:Broken"))[0] == 1


async def test_publications_of_several_are_answered_each_for_itself(streams: Streams, commands: redis.Redis) -> None:
    await commands.set("hub:work:Broken", "no stream")
    names = [STREAM, "hub:work:Broken", STREAM, STREAM]

    answers = await asyncio.gather(*(streams.publish([(name, {"id": "1"})]) for name in names), return_exceptions=True)

    assert [type(answer) for answer in answers] == [type(None), StreamsUnavailable, type(None), type(None)]
    assert (await streams.waiting(STREAM))[0] == 3


async def test_what_the_server_tells_unasked_is_no_answer(streams: Streams, commands: redis.Redis) -> None:
    await commands.set("hub:work:Broken", "no stream")
    await streams.publish([(STREAM, {"id": "first"})])
    publisher = next(client for client in await commands.client_list() if client["cmd"] == "xadd")
    await commands.execute_command("CLIENT", "TRACKING", "ON", "REDIRECT", publisher["id"], "BCAST")  # type: ignore[no-untyped-call]

    await streams.publish([(STREAM, {"id": str(number)}) for number in range(5)])

    with pytest.raises(StreamsUnavailable):
        await streams.publish([(STREAM, {"id": "last"}), ("hub:work:Broken", {"id": "1"})])
    assert (await streams.waiting(STREAM))[0] == 7


async def test_a_redis_that_is_silent_is_said_to_be_so(streams: Streams, commands: redis.Redis) -> None:
    await commands.client_pause(60_000, all=False)
    begun = time.monotonic()

    with pytest.raises(StreamsUnavailable):
        await streams.publish([(STREAM, {"id": "1"}), (STREAM, {"id": "2"})])

    assert time.monotonic() - begun < COMMAND_TIMEOUT_SECONDS + 2


async def test_events_are_forgotten_by_their_age_and_work_never_is(valkey: ValkeyServer, commands: redis.Redis) -> None:
    seconds, micros = await commands.time()
    long_ago = seconds * 1000 + micros // 1000 - 3_600_000
    for number in range(1000):
        for stream in (EVENTS_STREAM, STREAM):
            await commands.xadd(stream, {"id": str(number)}, id=f"{long_ago}-{number + 1}")
    await commands.xadd(EVENTS_STREAM, {"id": "new"})
    forgetful = Streams(valkey.url, event_age_seconds=1800)
    await forgetful.trim_by_age()
    await forgetful.stop()
    newest: Any = await commands.xrevrange(EVENTS_STREAM, count=1)

    # whole nodes of a stream only, so that some old entries stay
    assert 1 <= await commands.xlen(EVENTS_STREAM) <= 101
    assert newest[0][1] == {"id": "new"}
    assert await commands.xlen(STREAM) == 1000
