"""Redis Streams as the hub uses them: publish, read by consumer group, acknowledge, reclaim, pass on a pause.

The stream is a doorbell, never the record: what is lost here is rung again from the database. Three clients, because
a blocking read must outlive the command time-out and a publication has one time-out for all of its answers, and no
automatic retry on any, because a lost reply would add an entry twice or skip what a read delivered (ECOSYSTEM,
finding 1; FAULTS, cases 23 and 24).
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import redis.asyncio as redis
from hiredis import pack_command
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from chassis.errors import Unavailable
from chassis.logs import get_logger

log = get_logger()

GROUP = "orchestrator"
EVENTS_STREAM = "hub:events"
DEAD_LETTER_STREAM = "hub:dlq"
_WORK_PREFIX = "hub:work:"
#: There while a target has asked to be left alone; its time to live is the wait.
_PAUSE_PREFIX = "hub:pause:"
#: Gone when Redis has lost its memory: then everything that waits must be rung again at once.
_MARKER_KEY = "hub:marker"
COMMAND_TIMEOUT_SECONDS = 3.0
EVENT_AGE_SECONDS = 72 * 3600
DEAD_LETTER_AGE_SECONDS = 30 * 24 * 3600


class StreamsUnavailable(Unavailable):
    """Redis does not answer; accepted requests wait in the database."""

    reason = "STREAMS_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Entry:
    """One stream entry; `fields` is empty when it was deleted before it was read."""

    id: str
    fields: Mapping[str, str]

    @property
    def added_at_ms(self) -> int:
        """When it was added, Unix time by Redis' own clock."""
        return int(self.id.partition("-")[0])


def work_stream(target: str) -> str:
    """The stream that holds the ids of work for one target."""
    return _WORK_PREFIX + target


class Streams:
    """The hub's connection to Redis or Valkey; a component."""

    def __init__(self, url: str, *, block_seconds: float = 5.0, event_age_seconds: float = EVENT_AGE_SECONDS) -> None:
        self._event_age_ms = round(event_age_seconds * 1000)
        self._block_ms = round(block_seconds * 1000)
        self._commands = _client(url, COMMAND_TIMEOUT_SECONDS)
        self._reader = _client(url, block_seconds + COMMAND_TIMEOUT_SECONDS)
        #: One, kept: to borrow it from the pool and give it back would cost a publication as much as three entries.
        self._publisher = _client(url, None).connection_pool.make_connection()  # type: ignore[no-untyped-call]
        self._is_publishing = asyncio.Lock()

    async def publish(self, entries: Sequence[tuple[str, Mapping[str, str]]]) -> None:
        """Add entries, in order, in one round trip.

        A key of a stream's name that holds something else is deleted: it is the hub's, and would stop it for ever.
        Raises: StreamsUnavailable; some may have been added.
        """
        packed = b"".join(pack_command(_xadd(stream, fields)) for stream, fields in entries)
        refused: dict[int, ResponseError] = await self._guard(self._send(packed, answers=len(entries)))
        if not refused:
            return
        for stream in {entries[index][0] for index, error in refused.items() if "WRONGTYPE" in str(error)}:
            log.warning("A key that should be a stream was deleted", stream=stream)
            await self._guard(self._commands.delete(stream))
        cause = str(next(iter(refused.values())))
        raise StreamsUnavailable("Redis refuses entries; see its log.", cause=cause[:80])

    async def _send(self, packed: bytes, *, answers: int) -> dict[int, ResponseError]:
        """Send commands that hiredis has packed: redis-py's pipeline packs in Python, at more than twice the cost.

        Gives the refusals by the command's place, but raises a replica's. One time-out for all: redis-py's own, for
        each answer, cost more than the answer. Whatever ends this early closes the connection, so that nobody else
        reads what is left.
        """
        async with asyncio.timeout(COMMAND_TIMEOUT_SECONDS), self._is_publishing:
            await self._publisher.send_packed_command(packed)  # connects where it is not connected
            try:
                refused = await self._refusals(answers)
            except BaseException:
                await self._publisher.disconnect(nowait=True)
                raise
        for refusal in refused.values():
            if isinstance(refusal, ReadOnlyError):
                raise refusal
        return refused

    async def _refusals(self, answers: int) -> dict[int, ResponseError]:
        """Read answers as they come, many at once: redis-py's own way awaits each, which takes longer than adding it.

        Raises: RedisError.
        """
        parser = self._publisher._parser  # noqa: SLF001 (it has no public way to read more than one)
        refused: dict[int, ResponseError] = {}
        read = 0
        while read < answers:
            answer = parser._reader.gets()  # noqa: SLF001
            if answer is NOT_ENOUGH_DATA:
                await parser.read_from_socket()
            elif isinstance(answer, ResponseError):  # the answers behind it must be read all the same
                refused[read] = answer
                read += 1
            elif isinstance(answer, RedisError):
                raise answer
            elif isinstance(answer, str):  # an entry's id; all else is what the server tells unasked
                read += 1
        return refused

    async def ensure_group(self, stream: str) -> None:
        """Create the consumer group from the beginning of the stream, unless it is there.

        From id 0, never `$`: what was added meanwhile must be read. Raises: StreamsUnavailable.
        """
        try:
            await self._guard(self._commands.xgroup_create(stream, GROUP, id="0", mkstream=True))
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read(self, stream: str, consumer: str, count: int) -> list[Entry]:
        """Read up to `count` new entries, waiting `block_seconds` for the first.

        A lost group is made again and nothing is returned. Raises: StreamsUnavailable.
        """
        return await self._read_group(stream, consumer, count, ">", self._block_ms)

    async def read_work(self, target: str, consumer: str, count: int) -> tuple[list[Entry], float]:
        """As `read` of the target's work stream, and for how many seconds the target wants to be left alone.

        Looked for in the round trip of the read, after its wait. Raises: StreamsUnavailable.
        """
        stream = work_stream(target)
        pipeline = self._reader.pipeline(transaction=False)
        pipeline.xreadgroup(GROUP, consumer, {stream: ">"}, count=count, block=self._block_ms)
        pipeline.pttl(_PAUSE_PREFIX + target)
        try:
            reply, left_ms = await self._guard(pipeline.execute())
        except ResponseError as error:
            await self._recover_group(stream, error)
            return [], 0.0
        entries = [Entry(entry_id, fields or {}) for entry_id, fields in _entries(reply, stream)]
        return entries, max(0, left_ms) / 1000

    async def pause_seconds(self, target: str) -> float:
        """For how long a target wants to be left alone; 0 when it may be called. Raises: StreamsUnavailable."""
        left_ms: int = await self._guard(self._commands.pttl(_PAUSE_PREFIX + target))
        return max(0, left_ms) / 1000

    async def leave_alone(self, target: str, seconds: float) -> None:
        """Tell all workers, those to come too, that a target wants no calls for so long; a longer wait stands.

        Raises: StreamsUnavailable.
        """
        key, milliseconds = _PAUSE_PREFIX + target, max(1, round(seconds * 1000))
        pipeline = self._commands.pipeline(transaction=False)
        pipeline.set(key, "1", px=milliseconds, nx=True)
        pipeline.pexpire(key, milliseconds, gt=True)
        await self._guard(pipeline.execute())

    async def own_pending(self, stream: str, consumer: str, count: int) -> list[Entry]:
        """Entries that were delivered to this consumer and are not acknowledged. Raises: StreamsUnavailable."""
        return await self._read_group(stream, consumer, count, "0", None)

    async def reclaim(self, stream: str, consumer: str, *, idle_seconds: float, count: int = 100) -> list[Entry]:
        """Take over entries that another consumer read and did not acknowledge for that long.

        Raises: StreamsUnavailable.
        """
        try:
            reply: Any = await self._guard(
                self._commands.xautoclaim(stream, GROUP, consumer, round(idle_seconds * 1000), "0-0", count=count)
            )
        except ResponseError as error:
            await self._recover_group(stream, error)
            return []
        return [Entry(entry_id, fields or {}) for entry_id, fields in reply[1]]

    async def acknowledge(self, stream: str, entry_ids: Sequence[str]) -> None:
        """Acknowledge and delete entries: one group reads a work stream, so it holds only what waits.

        Raises: StreamsUnavailable.
        """
        if not entry_ids:
            return
        pipeline = self._commands.pipeline(transaction=False)
        pipeline.xack(stream, GROUP, *entry_ids)
        pipeline.xdel(stream, *entry_ids)
        try:
            await self._guard(pipeline.execute())
        except ResponseError as error:
            await self._recover_group(stream, error)

    async def waiting(self, stream: str) -> tuple[int, float | None]:
        """How many entries the stream holds, and the Unix time of the oldest. Raises: StreamsUnavailable."""
        pipeline = self._commands.pipeline(transaction=False)
        pipeline.xlen(stream)
        pipeline.xrange(stream, count=1)
        length, oldest = await self._guard(pipeline.execute())
        return length, int(oldest[0][0].partition("-")[0]) / 1000 if oldest else None

    async def drop_consumer(self, stream: str, consumer: str) -> None:
        """Remove this consumer when it has nothing pending; a consumer with entries is left for the others to reclaim.

        Raises: StreamsUnavailable.
        """
        try:
            pending: Any = await self._guard(self._commands.xpending_range(stream, GROUP, "-", "+", 1, consumer))
            if not pending:
                await self._guard(self._commands.xgroup_delconsumer(stream, GROUP, consumer))
        except ResponseError as error:
            await self._recover_group(stream, error)

    async def reap_consumers(self, stream: str, *, idle_seconds: float) -> None:
        """Forget consumers that are long gone and have nothing pending: every start of a worker brings a new name.

        Raises: StreamsUnavailable.
        """
        try:
            consumers: Any = await self._guard(self._commands.xinfo_consumers(stream, GROUP))
        except ResponseError as error:
            await self._recover_group(stream, error)
            return
        for consumer in consumers:
            if not consumer["pending"] and consumer["idle"] > idle_seconds * 1000:
                await self._guard(self._commands.xgroup_delconsumer(stream, GROUP, consumer["name"]))

    async def memory_lost(self) -> bool:
        """Whether the marker is gone: Redis was flushed, replaced or lost its files.

        It is written where it is there, not asked for: a Redis that takes no writes (a replica, a full one) answers
        questions all the same. Raises: StreamsUnavailable.
        """
        return not await self._guard(self._commands.set(_MARKER_KEY, "1", xx=True))

    async def set_marker(self) -> None:
        """Remember that everything that waits has been rung. Raises: StreamsUnavailable."""
        await self._guard(self._commands.set(_MARKER_KEY, "1"))

    async def trim_by_age(self) -> None:
        """Forget old entries of the event and dead-letter streams, never work. Raises: StreamsUnavailable."""
        now_ms = round(time.time() * 1000)
        pipeline = self._commands.pipeline(transaction=False)
        pipeline.xtrim(EVENTS_STREAM, minid=str(now_ms - self._event_age_ms), approximate=True)
        pipeline.xtrim(DEAD_LETTER_STREAM, minid=str(now_ms - DEAD_LETTER_AGE_SECONDS * 1000), approximate=True)
        await self._guard(pipeline.execute())

    async def ping(self) -> None:
        """Raises: StreamsUnavailable when Redis does not answer."""
        await self._guard(self._commands.ping())

    async def start(self) -> None:
        """Do nothing: connections are made when they are used, since Redis may come later than the hub."""

    async def stop(self) -> None:
        """Close the connections."""
        await asyncio.gather(self._commands.aclose(), self._reader.aclose(), self._publisher.disconnect())

    async def _read_group(self, stream: str, consumer: str, count: int, start: str, block: int | None) -> list[Entry]:
        try:
            reply: Any = await self._guard(
                self._reader.xreadgroup(GROUP, consumer, {stream: start}, count=count, block=block)
            )
        except ResponseError as error:
            await self._recover_group(stream, error)
            return []
        return [Entry(entry_id, fields or {}) for entry_id, fields in _entries(reply, stream)]

    async def _recover_group(self, stream: str, error: ResponseError) -> None:
        if "NOGROUP" not in str(error) and "no such key" not in str(error).lower():
            raise StreamsUnavailable("Redis refuses a stream command; see its log.", cause=str(error)[:80]) from error
        await self.ensure_group(stream)

    async def _guard(self, command: Awaitable[Any]) -> Any:
        """Translate redis' errors once; what the server says of a command stays for the caller to judge."""
        try:
            return await command
        except ReadOnlyError as error:
            await self._leave()
            raise StreamsUnavailable("Redis takes no writes here; the next call connects anew.") from error
        except ResponseError as error:
            if "NOGROUP" in str(error) or "BUSYGROUP" in str(error) or "no such key" in str(error).lower():
                raise
            raise StreamsUnavailable("Redis refuses a command; see its log.", cause=str(error)[:80]) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise StreamsUnavailable(
                "Redis does not answer; work goes on when it is back.", cause=type(error).__name__
            ) from error

    async def _leave(self) -> None:
        async with self._is_publishing:
            await self._publisher.disconnect()
        await leave(self._commands, self._reader)


async def leave(*clients: redis.Redis) -> None:
    """Close connections to a Redis that takes no writes, a primary that was demoted: new ones go by the name.

    One that waits for an answer is left open, and gets the same one.
    """
    for client in clients:
        await client.connection_pool.disconnect(inuse_connections=False)


def _entries(reply: Any, stream: str) -> list[tuple[str, Mapping[str, str] | None]]:
    """The shape of an XREADGROUP reply depends on client options; ours is {stream: [(id, fields)]} (finding 2)."""
    entries: list[tuple[str, Mapping[str, str] | None]] = reply.get(stream, []) if reply else []
    return entries


def _xadd(stream: str, fields: Mapping[str, str]) -> Any:  # hiredis' hint says a tuple of one
    return ("XADD", stream, "*", *chain.from_iterable(fields.items()))


def _client(url: str, timeout_seconds: float | None) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        encoding_errors="replace",  # one entry that is not UTF-8 must not make its stream unreadable
        legacy_responses=False,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=COMMAND_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
