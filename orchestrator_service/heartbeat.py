"""The worker's heartbeat: it keeps the leases, and its answer deals each worker its share of every target."""

import asyncio
from collections.abc import Sequence

from chassis.errors import HubError
from chassis.logs import get_logger
from chassis.service import Loop
from orchestrator_service.capacity import TargetCapacity
from orchestrator_service.clients import IntakeClient

log = get_logger()

HEARTBEAT_SECONDS = 5.0


class Heartbeat:
    """Beats while the worker lives, and says goodbye; a component."""

    def __init__(self, intake: IntakeClient, capacities: Sequence[TargetCapacity]) -> None:
        self._intake = intake
        self._capacities = capacities
        self._loop = Loop(self._step, name="heartbeat")
        #: Workers that share the work; 0 before the first beat was answered.
        self.live_workers = 0

    async def start(self) -> None:
        """Start beating."""
        await self._loop.start()

    async def stop(self) -> None:
        """Give up what is left of the leases, so that others need not wait for this worker's silence."""
        await self._loop.stop()
        if not self.live_workers:
            return
        self.live_workers = 0
        try:
            await self._intake.heartbeat(leaving=True)
        except HubError as error:
            log.info("Goodbye was not heard; leases end by silence", reason=error.reason)

    async def beat(self) -> None:
        """Beat once and take the shares that the answer gives. Raises: HubError."""
        answer = await self._intake.heartbeat(leaving=False)
        if answer.was_given_up and self.live_workers:
            log.warning("Worker was given up; its old leases belong to others", worker_id=self._intake.worker_id)
        self.live_workers = answer.live_workers
        for capacity in self._capacities:
            capacity.set_share(workers=answer.live_workers, index=answer.worker_index)

    async def _step(self) -> None:
        await self.beat()
        await asyncio.sleep(HEARTBEAT_SECONDS)
