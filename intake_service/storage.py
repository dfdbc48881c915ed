"""Finds out whether the database takes writes again once it has refused one.

Creates and heartbeats tell health's part `storage` what they meet. While it is away the gateway's /readyz is 503, so no
balancer sends a create, and there may be no worker that beats: then nothing but this loop would ever bring it back.
"""

import asyncio

from chassis.database import Store
from chassis.rpc import Part
from chassis.service import Loop
from intake_service.store.outbox import probe

PROBE_SECONDS = 2.0


class StorageProbe:
    """Tries a write every few seconds while the part is away, and never while it is there; a component."""

    def __init__(self, store: Store, storage: Part) -> None:
        self._store = store
        self._storage = storage
        self._loop = Loop(self._step, name="storage")

    async def start(self) -> None:
        """Start looking."""
        await self._loop.start()

    async def stop(self) -> None:
        """Stop looking."""
        await self._loop.stop()

    async def _step(self) -> None:
        await asyncio.sleep(PROBE_SECONDS)
        if not self._storage.is_there:
            await self._store.write(probe, None)
            await self._storage.tell(is_there=True)
