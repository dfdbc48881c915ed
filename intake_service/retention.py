"""The sweeper: deletes finished requests when they have been kept for as long as HUB_RETENTION_DAYS says.

It works in small steps through the same group commit as everything else and rests four times as long as each step
took, so that it never has more than a fifth of the writer. With a request its external id is forgotten: a partner may
use that again.
"""

import asyncio
import time

from chassis.clock import SECOND
from chassis.database import Store
from chassis.logs import get_logger
from chassis.service import Loop
from chassis.telemetry import Telemetry
from intake_service.ids import first_id_at
from intake_service.store.retention import Sweep, Swept, sweep

log = get_logger()

DAY_SECONDS = 86_400
PERIOD_SECONDS = 60.0
RESTS_PER_STEP = 4
SHORTEST_REST_SECONDS = 0.01


class Sweeper:
    """Deletes what has ended long ago; a component. Several of them share the rows by their locks."""

    def __init__(self, store: Store, telemetry: Telemetry, *, days: int) -> None:
        self._store = store
        self._days = days
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

    async def pass_over(self) -> tuple[int, int]:
        """Look at everything that is old enough, once; gives how many were deleted and how many kept.

        Kept are those with an open dead letter. Raises: StorageUnavailable; what was deleted until then stays deleted.
        """
        ended_before = await self._store.read(self._store.database.now) - self._days * DAY_SECONDS * SECOND
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

    async def _step(self) -> None:
        deleted, kept = await self.pass_over()
        if deleted:
            log.info("Finished requests deleted", count=deleted, kept_for_open_dead_letters=kept, days=self._days)
        await asyncio.sleep(PERIOD_SECONDS)
