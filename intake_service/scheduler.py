"""The clock that makes due work due: the lost event, the dead worker, the retry, the delay and the lost lease alike.

Every row that is not terminal has a `due_at`. This loop finds the rows whose time has come, sets when each is looked
at next, and rings. When Redis has lost its memory (its marker key is gone) everything that waits is due at once.
"""

import asyncio
import time

from chassis.clock import SECOND
from chassis.database import Store
from chassis.logs import get_logger
from chassis.service import Loop
from chassis.streams import Streams
from chassis.telemetry import Telemetry
from intake_service.outbox import Relay
from intake_service.store import due

log = get_logger()

PERIOD_SECONDS = 0.25
MARKER_SECONDS = 1.0
#: Rounds that lie farther apart: this process or its database was away, and no worker could beat or report.
PAUSE_SECONDS = 5.0
#: From then on, as from a start, workers are given time before they are given up. A beat that hung in the pause ends
#: after 4 s, and the next is at most 5 s away.
MERCY_SECONDS = 10.0
#: And whoever lives is given time to report before a lease that is over is taken. A report that hung ends after 10 s,
#: and the next is at most 5 s away.
REPORT_MERCY_SECONDS = 20.0


class Scheduler:
    """Rings for due rows; a component. Several of them share the rows by their locks."""

    def __init__(self, store: Store, streams: Streams, relay: Relay, telemetry: Telemetry) -> None:
        self._store = store
        self._streams = streams
        self._relay = relay
        self._rings = telemetry.counter("due_rings_total")
        self._looked_for_marker_at = 0.0
        #: The database's clock in the last round, and the instant of our own at which that was begun.
        self._last_reading: tuple[int | None, float] = (None, time.monotonic())
        self._resumed_at = time.monotonic()
        self._loop = Loop(self._step, name="scheduler")

    async def start(self) -> None:
        """Start looking."""
        await self._loop.start()

    async def stop(self) -> None:
        """Stop looking."""
        await self._loop.stop()

    async def _step(self) -> None:
        # a ring into a Redis that is dead or takes no writes would push every due row back for nothing
        await self._check_memory()
        while (await self.ring_due()).is_full:
            pass
        await asyncio.sleep(PERIOD_SECONDS)

    async def ring_due(self) -> due.Due:
        """Ring once for what is due now. Raises: StorageUnavailable."""
        now = time.monotonic()
        last_at, last_monotonic = self._last_reading
        if now - last_monotonic > PAUSE_SECONDS:
            self._resumed_at = now
        wanted = due.Round(
            gives_up_silent=now - self._resumed_at >= MERCY_SECONDS,
            ends_leases=now - self._resumed_at >= REPORT_MERCY_SECONDS,
            stands_until=now + PAUSE_SECONDS,
            last_at=last_at,
            last_monotonic=last_monotonic,
        )
        found: due.Due = await self._store.write(due.take_due, wanted)
        self._last_reading = (found.at, now)
        if found.step:
            log.warning("The database's clock was set", seconds=found.step / SECOND)
        self._relay.ring(found.rings)
        for target, _ in found.rings:
            self._rings.labels(target=target).inc()
        return found

    async def _check_memory(self) -> None:
        if time.monotonic() - self._looked_for_marker_at < MARKER_SECONDS:
            return
        if await self._streams.memory_lost():
            waiting = 0
            made = due.MadeDue(rows=0, is_full=True)
            while made.is_full:
                made = await self._store.write(due.everything_due_now, None)
                waiting += made.rows
            await self._streams.set_marker()
            if waiting:
                log.warning("Redis has lost its memory; everything that waits is rung again", waiting=waiting)
        self._looked_for_marker_at = time.monotonic()
