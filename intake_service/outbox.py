"""The relay: publishes committed events to the streams and only then forgets their outbox rows.

    commit ──hand_over──▶ [in memory] ──XADD, pipelined──▶ streams ──▶ delete rows (together, soon after)
       └──────────────── outbox rows ──sweep (start, failure, every 5 s)──────▲

What this process commits it publishes at once, without reading it back. What was left behind (a crash, Redis away,
another process' rows) is swept up from the table. An event may be published twice, never not at all; after a
failure the memory is dropped and everything comes from the table in order.
"""

import asyncio
import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Sequence

from opentelemetry.trace import SpanKind

from chassis.clock import SECOND, Micros
from chassis.database import Store
from chassis.errors import HubError
from chassis.logs import get_logger
from chassis.service import Loop
from chassis.streams import Streams
from chassis.telemetry import Telemetry
from chassis.tracing import OpenSpan, Tracing, trace_fields
from intake_service.events import CREATED, EVENT_TYPES, STATUS_CHANGED, Event, OutboxRow, ring
from intake_service.store import outbox

log = get_logger()

#: Events in a round trip; the last row's are all in it.
BATCH = 500
#: Events.
MAX_IN_MEMORY = 50_000
SWEEP_SECONDS = 5.0
#: The same for what could not be forgotten.
BEHIND_SECONDS = 0.2
#: A row younger than this is still in the hands of the process that committed it.
LEFT_BEHIND_SECONDS = 2.0
TRIM_SECONDS = 600.0
#: Nobody waits for the deletion of a row, and alone it would cost a commit: those of so long are deleted together.
FORGET_SECONDS = 0.25


class Relay:
    """Publishes events and rings; a component."""

    def __init__(self, store: Store, streams: Streams, telemetry: Telemetry, tracing: Tracing) -> None:
        self._store = store
        self._streams = streams
        self._tracing = tracing
        self._published = telemetry.counter("events_published_total")
        self._lag = telemetry.gauge("outbox_lag_seconds")
        self._lag_ms = telemetry.histogram("events_publish_lag_ms")
        telemetry.start_at_zero("events_published_total", [{"type": event_type} for event_type in EVENT_TYPES])
        self._handed_over: deque[OutboxRow | tuple[str, str]] = deque()
        #: Events in memory.
        self._held = 0
        self._something = asyncio.Event()
        self._is_behind = True
        self._swept_at = 0.0
        self._trimmed_at = -math.inf
        self._to_forget: list[str] = []
        self._forgetting: asyncio.Task[None] | None = None
        self._loop = Loop(self._step, name="outbox-relay", pause_after_error_seconds=0.5)

    def hand_over(self, rows: Sequence[OutboxRow]) -> None:
        """Take rows that were just committed."""
        if self._is_behind or not rows:
            return
        self._held += sum(len(row.events) for row in rows)
        if self._held > MAX_IN_MEMORY:
            self._fall_behind()
            return
        self._handed_over.extend(rows)
        if any(event.type != STATUS_CHANGED for row in rows for event in row.events):
            self._something.set()
        else:  # a claim's; its worker waits for the answer, which is written meanwhile
            asyncio.get_running_loop().call_soon(self._something.set)

    def ring(self, rings: Sequence[tuple[str, str]]) -> None:
        """Ring for (target, request id) now; a ring that gets lost is rung again by the scheduler."""
        self._handed_over.extend(rings)
        self._something.set()

    async def start(self) -> None:
        """Start publishing, what was left behind first."""
        await self._loop.start()

    async def stop(self) -> None:
        """Publish what is in memory if Redis answers; the rest stays in the table."""
        await self._loop.stop()
        try:
            while self._handed_over and not self._is_behind:
                await self._publish_handed_over()
        except HubError:
            log.info("Outbox rows stay for the next start", waiting=len(self._handed_over))
        if self._forgetting is not None:
            self._forgetting.cancel()
            await asyncio.wait([self._forgetting])
        await self._forget()

    async def _step(self) -> None:
        has_more = False
        if self._is_behind or time.monotonic() - self._swept_at >= SWEEP_SECONDS:
            has_more = await self._sweep()
        if self._handed_over:
            await self._publish_handed_over()
        elif not has_more:
            self._something.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEHIND_SECONDS if self._is_behind else SWEEP_SECONDS):
                    await self._something.wait()

    async def _publish_handed_over(self) -> None:
        batch: list[OutboxRow | tuple[str, str]] = []
        size = 0
        while self._handed_over and size < BATCH:
            item = self._handed_over.popleft()
            batch.append(item)
            size += len(item.events) if isinstance(item, OutboxRow) else 0
        try:
            await self._publish(batch)
        except asyncio.CancelledError:
            self._handed_over.extendleft(reversed(batch))  # `stop` publishes it, some of it for the second time
            raise
        except HubError:
            self._handed_over.extendleft(item for item in reversed(batch) if not isinstance(item, OutboxRow))
            raise
        self._held = max(0, self._held - size)

    async def _publish(self, batch: Sequence[OutboxRow | tuple[str, str]]) -> None:
        rows = [item for item in batch if isinstance(item, OutboxRow)]
        events = [event for row in rows for event in row.events]
        spans = self._begin_spans(events)
        contexts = {place: span.traceparent for place, span in spans.items()}
        entries = [ring(*item) for item in batch if not isinstance(item, OutboxRow)]
        for place, event in enumerate(events):
            entries += event.entries(contexts.get(place, event.traceparent))
        try:
            await self._streams.publish(entries)
        except HubError as error:
            for span in spans.values():
                span.fail(error.reason)
                span.end()
            self._fall_behind()
            raise
        now = time.time() * SECOND
        for event_type, count in Counter([event.type for event in events]).items():
            self._published.labels(type=event_type).inc(count)
        for row in rows:
            self._lag_ms.observe(max(0.0, (now - row.created_at) / 1000), len(row.events))
        log.info_each(
            "Event published to queue",
            [
                _fields(event, contexts.get(place, event.traceparent))
                for place, event in enumerate(events)
                if event.type == CREATED
            ],
        )
        for span in spans.values():
            span.end()
        self._to_forget += [row.id for row in rows]
        if self._to_forget and (self._forgetting is None or self._forgetting.done()):
            self._forgetting = asyncio.create_task(self._forget_soon(), name="outbox-forget")

    def _begin_spans(self, events: Sequence[Event]) -> dict[int, OpenSpan]:
        """Begin the spans of the events that bring work, by place; the workers' spans hang below them."""
        if not self._tracing.enabled:
            return {}
        begun = {
            place: self._tracing.begin("messagebus.publish", event.traceparent, SpanKind.PRODUCER)
            for place, event in enumerate(events)
            if event.rings
        }
        return {place: span for place, span in begun.items() if span is not None}

    async def _forget_soon(self) -> None:
        await asyncio.sleep(FORGET_SECONDS)
        await self._forget()

    async def _forget(self) -> None:
        """Delete the rows of what is in the streams."""
        while self._to_forget:
            ids, self._to_forget = self._to_forget[:BATCH], self._to_forget[BATCH:]
            try:
                await self._store.write(outbox.delete_published, ids)
            except HubError:
                self._fall_behind()  # they will be published twice, which every consumer must bear

    def _fall_behind(self) -> None:
        """Go by the table from here on, which has every row; a ring is nowhere else."""
        self._handed_over = deque(item for item in self._handed_over if not isinstance(item, OutboxRow))
        self._held = 0
        self._is_behind = True

    async def _sweep(self) -> bool:
        """Publish what the table still holds, oldest first; says whether it holds more that can be published at once.

        When the memory was dropped that is everything; what is committed from here on is handed over again and
        follows. A full batch means that there is more: then the rows are dropped once more, for the order's sake.
        """
        was_behind, self._is_behind = self._is_behind, False
        try:
            await self._forget()
            left = await self._read_left(0 if was_behind else LEFT_BEHIND_SECONDS)
            self._swept_at = time.monotonic()
            await self._measure_lag()
        except BaseException:
            if was_behind:
                self._fall_behind()
            raise
        if left:
            await self._publish(left)
            await self._forget()
        is_full = len(left) >= outbox.BATCH
        has_more = is_full and not self._is_behind  # of what could not be forgotten the next would be the same
        if is_full:
            self._fall_behind()
        await self._trim()
        return has_more

    async def _read_left(self, age_seconds: float) -> list[OutboxRow]:
        age = round(age_seconds * SECOND)
        with contextlib.suppress(HubError):  # then at the next sweep
            await self._store.write(outbox.adopt, age)
        return await self._store.read(outbox.read_left_behind(await self._now(), age))

    async def _now(self) -> Micros:
        return await self._store.read(self._store.database.now)

    async def _measure_lag(self) -> None:
        oldest = await self._store.read(outbox.oldest_unpublished)
        self._lag.set(max(0.0, (await self._now() - oldest) / SECOND) if oldest is not None else 0.0)

    async def _trim(self) -> None:
        if time.monotonic() - self._trimmed_at < TRIM_SECONDS:
            return
        self._trimmed_at = time.monotonic()
        try:
            await self._streams.trim_by_age()
        except HubError as error:  # then the next time: publishing must not wait for it
            log.warning("Old events stay for now", reason=error.reason)


def _fields(event: Event, context: str) -> dict[str, str]:
    return {
        "event_type": event.type,
        "correlation_id": event.correlation_id,
        "request_id": event.request_id,
        **trace_fields(context),
    }
