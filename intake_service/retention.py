"""The sweeper: deletes finished requests when they have been kept for as long as HUB_RETENTION_DAYS says.

It works in small steps through the same group commit as everything else and rests four times as long as each step
took, so that it never has more than a fifth of the writer. With a request its external id is forgotten: a partner may
use that again.

To a clock that is ahead everything is old, so one that may be is not believed for a day, and nothing is deleted:

    while running    the database's clock has gained more than an hour on our own: it was set, or a machine slept
    at the start     it is ahead of the newest request's last change by more than those days
"""

import asyncio
import math
import time
from collections.abc import Callable

from chassis.clock import SECOND, Micros
from chassis.database import Store
from chassis.ids import first_id_at
from chassis.logs import get_logger
from chassis.service import Loop
from chassis.telemetry import Telemetry
from intake_service.store.retention import Sweep, Swept, newest_change, sweep

log = get_logger()

DAY_SECONDS = 86_400
PERIOD_SECONDS = 60.0
RESTS_PER_STEP = 4
SHORTEST_REST_SECONDS = 0.01
#: What gains less deletes hardly too early; and a machine stands still for seconds while its snapshot is taken.
STEP_SECONDS = 3600.0


class Sweeper:
    """Deletes what has ended long ago; a component. Several of them share the rows by their locks."""

    def __init__(
        self, store: Store, telemetry: Telemetry, *, days: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._days = days
        self._monotonic = monotonic
        #: The database's clock at the last turn, and an instant of our own not later than that.
        self._last_reading: tuple[Micros, float] | None = None
        self._doubted_until = -math.inf
        self._deleted = telemetry.counter("integration_requests_deleted_total")
        self._loop = Loop(self._step, name="retention")

    async def start(self) -> None:
        """Start deleting, unless everything is kept."""
        if self._days:
            log.info("Finished requests are deleted when their time is over", days=self._days)
            await self._loop.start()

    async def stop(self) -> None:
        """Stop deleting."""
        await self._loop.stop()

    async def pass_over(self, now: Micros) -> tuple[int, int]:
        """Look at everything that is old enough by now, once; gives how many were deleted and how many kept.

        Kept are those with an open dead letter. Raises: StorageUnavailable; what was deleted until then stays deleted.
        """
        ended_before = now - self._days * DAY_SECONDS * SECOND
        until_id, last_id = first_id_at(ended_before), "0"
        deleted = kept = 0
        while last_id:
            started = time.monotonic()
            item = Sweep(after_id=last_id, until_id=until_id, ended_before=ended_before)
            swept: Swept = await self._store.write(sweep, item)
            self._deleted.inc(swept.deleted)
            deleted, kept, last_id = deleted + swept.deleted, kept + swept.kept, swept.last_id
            await asyncio.sleep(max(SHORTEST_REST_SECONDS, RESTS_PER_STEP * (time.monotonic() - started)))
        return deleted, kept

    async def take_turn(self) -> None:
        """Do a pass, unless the clock may be ahead. Raises: as `pass_over`."""
        now = await self._believed_now()
        if now is None:
            return
        deleted, kept = await self.pass_over(now)
        if deleted:
            log.info("Finished requests deleted", count=deleted, kept_for_open_dead_letters=kept, days=self._days)

    async def _believed_now(self) -> Micros | None:
        """The database's clock; None while it may be ahead."""
        read_at = self._monotonic()
        now = await self._store.read(self._store.database.now)
        if self._last_reading is None:
            since, elapsed = await self._store.read(newest_change) or now, 0.0
            most = float(self._days * DAY_SECONDS)
        else:
            since, elapsed = self._last_reading[0], read_at - self._last_reading[1]
            most = STEP_SECONDS
        self._last_reading = (now, read_at)
        ahead_seconds = (now - since) / SECOND - elapsed
        if ahead_seconds > most:
            log.warning("The clock may be ahead; nothing is deleted for a day", seconds=round(ahead_seconds))
            self._doubted_until = read_at + DAY_SECONDS
        return None if read_at < self._doubted_until else now

    async def _step(self) -> None:
        await self.take_turn()
        await asyncio.sleep(PERIOD_SECONDS)
