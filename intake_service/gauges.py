"""What waits, for the operators' metrics: per target, counted from the database every few seconds.

Every intake shows the same figures, for they share the database; whoever reads them takes the largest, not the sum.
"""

import asyncio
from collections.abc import Iterable

from chassis.clock import SECOND
from chassis.database import Store
from chassis.service import Loop
from chassis.telemetry import Telemetry
from intake_service.store.backlog import Waiting, read_waiting

COUNT_SECONDS = 5.0
_NOTHING = Waiting(requests=0, oldest_created_at=None, dead_letters=0)


class Gauges:
    """Keeps the gauges of what waits; a component."""

    def __init__(self, store: Store, telemetry: Telemetry, targets: Iterable[str]) -> None:
        self._store = store
        self._targets = set(targets)
        self._waiting = telemetry.gauge("integration_requests_waiting")
        self._oldest = telemetry.gauge("integration_requests_oldest_waiting_seconds")
        self._dead_letters = telemetry.gauge("dead_letters_open")
        self._loop = Loop(self._step, name="gauges")

    async def count(self) -> None:
        """Count anew. Raises: StorageUnavailable."""
        counted = await self._store.read(read_waiting)
        now = await self._store.read(self._store.database.now)
        self._targets |= counted.keys()  # one that is no longer configured may still have requests
        for target in self._targets:
            waiting = counted.get(target, _NOTHING)
            age = 0.0 if waiting.oldest_created_at is None else max(0.0, (now - waiting.oldest_created_at) / SECOND)
            self._waiting.labels(target=target).set(waiting.requests)
            self._oldest.labels(target=target).set(age)
            self._dead_letters.labels(target=target).set(waiting.dead_letters)

    async def start(self) -> None:
        """Count once, then every few seconds. Raises: StorageUnavailable."""
        await self.count()
        await self._loop.start()

    async def stop(self) -> None:
        """Stop counting."""
        await self._loop.stop()

    async def _step(self) -> None:
        await asyncio.sleep(COUNT_SECONDS)
        await self.count()
