"""From the streams to the work: read where there is room, claim, start, acknowledge.

    room ──▶ read ──▶ take a place ──▶ claim ──▶ work in a task of its own ──▶ place left
                                         └──▶ acknowledge: from here the lease guards the work, not the stream

One reader per target, so that none waits for another. An entry whose claim failed stays in this worker's pending
list and is swept up again; so is what a cancelled or lost read left there, and a request that was busy. Entries of a
dead worker are taken over.
"""

import asyncio
import re
import time
from collections.abc import Sequence

from chassis.correlation import clean_traceparent
from chassis.errors import HubError, ServiceUnavailable
from chassis.logs import get_logger
from chassis.streams import Entry, Streams, work_stream
from chassis.targets import Target
from chassis.telemetry import Telemetry
from chassis.tracing import now_ns
from integrationhub.intake.v1 import lifecycle_pb2
from integrationhub.intake.v1.intake_pb2 import IntegrationRequest
from integrationhub.intake.v1.lifecycle_pb2 import ClaimResult, Lease
from orchestrator_service.breaker import BreakerState
from orchestrator_service.capacity import Place, TargetCapacity, WaitReason
from orchestrator_service.clients import AdapterClient, IntakeClient
from orchestrator_service.mapping import announcement_of
from orchestrator_service.process import Origin, Processor

log = get_logger()

MAX_READ = 500
SWEEP_SECONDS = 5.0
RECLAIM_SECONDS = 15.0
#: Until a request that another transaction was changing is claimed again.
BUSY_SECONDS = 1.0
#: A name that has not read for this long belongs to a worker that is gone: a living one reads every few seconds.
DEAD_CONSUMER_SECONDS = 3600.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 2.0
CANCEL_AGAIN_SECONDS = 0.05
_BREAKER_LEVELS = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class WorkInHand:
    """What this worker has claimed or is about to claim, over all targets.

    Intake grants a lease anew to the worker that holds it, since its answer may have been lost; so a worker must
    never claim what it works on. A bell that rings meanwhile is remembered.
    """

    def __init__(self) -> None:
        self._rung_again: dict[str, bool] = {}
        #: Ended here without a word from intake that it is off this worker's hands: it may have been posted.
        self._unsettled: set[str] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    def begin(self, integration_request_id: str) -> bool:
        """Take it in hand; False when it is there already, and then the bell is remembered."""
        if integration_request_id in self._rung_again:
            self._rung_again[integration_request_id] = True
            return False
        self._rung_again[integration_request_id] = False
        return True

    def end(self, integration_request_id: str) -> bool:
        """Let it go; says whether its bell rang meanwhile."""
        return self._rung_again.pop(integration_request_id)

    def settle(self, integration_request_id: str, *, recorded: bool) -> None:
        """Remember whether what was done under a lease is on record."""
        (self._unsettled.discard if recorded else self._unsettled.add)(integration_request_id)

    def is_unheard(self, lease: Lease) -> bool:
        """Whether the doubt of a lease is of an answer that never came: had it come, it would be on record or here."""
        return lease.own_doubt and lease.integration_request.id not in self._unsettled


class TargetReader:
    """Reads one target's stream; a component whose `stop` only stops the reading."""

    def __init__(
        self,
        target: Target,
        *,
        capacity: TargetCapacity,
        streams: Streams,
        intake: IntakeClient,
        adapter: AdapterClient,
        processor: Processor,
        in_hand: WorkInHand,
        telemetry: Telemetry,
        sweep_seconds: float = SWEEP_SECONDS,
        reclaim_seconds: float = RECLAIM_SECONDS,
    ) -> None:
        self.target = target
        self.capacity = capacity
        capacity.on_pause = self._tell_of_pause
        self._stream = work_stream(target.name)
        self._announcement = announcement_of(target)
        self._streams = streams
        self._intake = intake
        self._adapter = adapter
        self._processor = processor
        self._in_hand = in_hand
        self._orphans = telemetry.counter("orphan_event_total")
        self._lag_ms = telemetry.histogram("events_consume_lag_ms").labels(target=target.name)
        telemetry.watch("target_in_flight", lambda: capacity.in_flight, target=target.name)
        telemetry.watch("target_concurrency_limit", lambda: capacity.limit, target=target.name)
        telemetry.watch("target_breaker_state", lambda: _BREAKER_LEVELS[capacity.breaker], target=target.name)
        self._sweep_seconds = sweep_seconds
        self._reclaim_seconds = reclaim_seconds
        self._sweep_at = 0.0
        self._reclaim_at = 0.0
        #: Whether others called the target too when its pause was last asked for; None before the first time.
        self._had_peers: bool | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_taking = False
        self._is_stopping = False

    async def start(self) -> None:
        """Start reading."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name=f"read {self._stream}")

    async def stop(self) -> None:
        """Stop reading, after the claims in flight. What was read and not claimed stays pending for the others."""
        self._is_stopping = True
        while self._task is not None and not self._task.done():
            # more than once: before Python 3.12 the wait_for in redis-py swallows a cancellation that meets its
            # result (python/cpython#86296)
            if not self._is_taking:
                self._task.cancel()
            await asyncio.wait([self._task], timeout=CANCEL_AGAIN_SECONDS)

    async def leave(self) -> None:
        """Take this worker's name off the stream's group, unless entries are pending under it."""
        try:
            await self._streams.drop_consumer(self._stream, self._intake.worker_id)
        except HubError as error:
            log.info("Consumer name stays in the group", stream=self._stream, reason=error.reason)

    async def _run(self) -> None:
        pause_seconds = FIRST_PAUSE_SECONDS
        while not self._is_stopping:
            try:
                entries = await self._next_entries()
                self._is_taking = True
                await self._take(entries)
                pause_seconds = FIRST_PAUSE_SECONDS
                continue
            except HubError as error:
                if pause_seconds == FIRST_PAUSE_SECONDS:
                    log.warning("Stream is not read", stream=self._stream, reason=error.reason)
            except Exception:  # the outermost loop of a reader: it must go on
                log.exception("Reading failed", stream=self._stream)
            finally:
                self._is_taking = False
            self._sweep_at = 0.0  # what was read and not claimed comes first
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, LONGEST_PAUSE_SECONDS)

    async def _next_entries(self) -> Sequence[Entry]:
        """Wait for room, then give what has been left lying, or else what is new."""
        await self._ask_for_pause()
        room = min(await self.capacity.room(), MAX_READ)
        if not await self._adapter.reachable():
            self.capacity.trouble = WaitReason.ADAPTER_AWAY
            raise ServiceUnavailable("The adapter cannot be reached; work waits in its stream.")
        if self.capacity.trouble is WaitReason.ADAPTER_AWAY:
            self.capacity.trouble = None
        worker_id, now = self._intake.worker_id, time.monotonic()
        if now >= self._sweep_at:
            entries = await self._streams.own_pending(self._stream, worker_id, room)
            self._sweep_at = now if len(entries) == room else now + self._sweep_seconds
            if entries:
                return entries
        if now >= self._reclaim_at:
            entries = await self._streams.reclaim(
                self._stream, worker_id, idle_seconds=self._reclaim_seconds, count=room
            )
            self._reclaim_at = now if len(entries) == room else now + self._reclaim_seconds
            await self._streams.reap_consumers(self._stream, idle_seconds=DEAD_CONSUMER_SECONDS)
            if entries:
                return entries
        if not self.capacity.has_peers:
            return await self._streams.read(self._stream, worker_id, room)
        entries, pause_seconds = await self._streams.read_work(self.target.name, worker_id, room)
        self.capacity.pause(pause_seconds)
        return entries

    async def _ask_for_pause(self) -> None:
        """Learn what no read tells: of a pause from before this worker's time, or from a peer that has left since."""
        has_peers = self.capacity.has_peers
        if has_peers is not self._had_peers:
            self.capacity.pause(await self._streams.pause_seconds(self.target.name))
            self._had_peers = has_peers

    def _tell_of_pause(self, seconds: float) -> None:
        """Have the others, those to come too, leave the target alone; who does not hear it is told by the target."""
        task = asyncio.create_task(self._leave_alone(seconds))
        self._in_hand.tasks.add(task)
        task.add_done_callback(self._in_hand.tasks.discard)

    async def _leave_alone(self, seconds: float) -> None:
        try:
            await self._streams.leave_alone(self.target.name, seconds)
        except HubError as error:
            log.info("Pause was not passed on", stream=self._stream, reason=error.reason)

    async def _take(self, entries: Sequence[Entry]) -> None:
        """Claim what the entries name, start what is granted, acknowledge all that was answered."""
        begun = [entry for entry in entries if self._begin(entry)]
        places = self.capacity.take(len(begun))
        left = self._leave(begun[len(places) :])
        if places:
            left |= await self._claim(list(zip(begun, places, strict=False)))
            await asyncio.sleep(0)  # what was started goes first: it is waited for, an acknowledgement is not
        await self._streams.acknowledge(self._stream, [entry.id for entry in entries if entry.id not in left])

    def _begin(self, entry: Entry) -> bool:
        """Take the request that an entry names in hand; False when there is nothing to do but to acknowledge it."""
        integration_request_id = entry.fields.get("id", "")
        if _UUID.fullmatch(integration_request_id):
            return self._in_hand.begin(integration_request_id)
        self._orphans.inc()
        log.warning("Stream entry names no request", stream=self._stream, entry_id=entry.id)
        return False

    def _leave(self, entries: Sequence[Entry]) -> set[str]:
        """Let what has no place wait in the pending list, to be swept up first; gives the entries' ids."""
        for entry in entries:
            self._in_hand.end(entry.fields["id"])
            self._sweep_at = 0.0
        return {entry.id for entry in entries}

    async def _claim(self, taken: Sequence[tuple[Entry, Place]]) -> set[str]:
        """Start what is granted; gives the ids of the entries whose requests are busy."""
        begun_ns, begun_at = now_ns(), time.monotonic()
        try:
            response = await self._intake.claim([entry.fields["id"] for entry, _ in taken], self._announcement)
        except BaseException:
            for entry, place in taken:
                self._in_hand.end(entry.fields["id"])
                place.leave()
            self.capacity.trouble = WaitReason.INTAKE_AWAY
            raise
        self.capacity.trouble = None
        now_ms = now_ns() / 1_000_000
        begun_at += response.waited.ToNanoseconds() / 1e9
        busy = set()
        for result, (entry, place) in zip(response.results, taken, strict=True):
            if result.status == lifecycle_pb2.CLAIM_STATUS_GRANTED:
                self._lag_ms.observe(max(0.0, now_ms - entry.added_at_ms))
                origin = Origin(
                    rung_by=clean_traceparent(entry.fields.get("traceparent")),
                    begun_ns=begun_ns,
                    begun_at=begun_at,
                    is_unheard=self._in_hand.is_unheard(result.lease),
                )
                self._start(result.lease, place, origin)
            else:
                self._drop(result, entry.fields["id"], place)
            if result.status == lifecycle_pb2.CLAIM_STATUS_BUSY:
                busy.add(entry.id)
                self._sweep_at = time.monotonic() + BUSY_SECONDS  # not sooner: meanwhile there is room for what is new
        return busy

    def _start(self, lease: Lease, place: Place, origin: Origin) -> None:
        task = self._loop.create_task(self._work(lease, place, origin))
        self._in_hand.tasks.add(task)
        task.add_done_callback(self._in_hand.tasks.discard)

    def _drop(self, result: ClaimResult, integration_request_id: str, place: Place) -> None:
        self._in_hand.end(integration_request_id)
        place.leave()
        if result.status == lifecycle_pb2.CLAIM_STATUS_NOT_FOUND:
            self._orphans.inc()
            log.warning("Stream entry names an unknown request", stream=self._stream)

    async def _work(self, lease: Lease, place: Place, origin: Origin) -> None:
        integration_request = lease.integration_request
        recorded = False
        try:
            recorded = await self._processor.process(lease, place, self.target, origin)
        except Exception:  # the outermost frame of a request: its lease runs out and others take it
            log.exception(
                "Error processing integration request",
                request_id=integration_request.id,
                correlation_id=integration_request.correlation_id,
            )
        finally:
            place.leave()
            self._in_hand.settle(integration_request.id, recorded=recorded)
            rung_again = self._in_hand.end(integration_request.id)
        if rung_again:
            await self._ring(integration_request)

    async def _ring(self, integration_request: IntegrationRequest) -> None:
        """Ring once more for a request whose bell rang while it was worked on; if that fails, intake will."""
        try:
            await self._streams.publish([(self._stream, {"id": integration_request.id})])
        except HubError as error:
            ids = {"request_id": integration_request.id, "correlation_id": integration_request.correlation_id}
            log.info("Bell was not rung again", stream=self._stream, reason=error.reason, **ids)


class Consumer:
    """All readers of this worker and what they started; a component."""

    def __init__(self, readers: Sequence[TargetReader], in_hand: WorkInHand, *, grace_seconds: float) -> None:
        self.readers = readers
        self._in_hand = in_hand
        self._grace_seconds = grace_seconds

    async def start(self) -> None:
        """Start reading every stream."""
        for reader in self.readers:
            await reader.start()

    async def stop(self) -> None:
        """Drain: stop reading, hand back what was not sent, finish what was, within the grace.

        What is cut off then stands in doubt in the database and is looked up by its next worker.
        """
        for reader in self.readers:
            reader.capacity.drain()
        await asyncio.gather(*(reader.stop() for reader in self.readers))
        if self._in_hand.tasks:
            _, late = await asyncio.wait(self._in_hand.tasks, timeout=self._grace_seconds)
            for task in late:
                task.cancel()
            if late:
                log.warning("Grace is over; requests are left to other workers", count=len(late))
                await asyncio.wait(late)
        await asyncio.gather(*(reader.leave() for reader in self.readers))
