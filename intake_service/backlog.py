"""The bounded backlog: how many requests wait, in all and per partner, and when to say stop.

The figures are counted from the database every few seconds and kept up to date in between, so that a refusal costs
no query. Several intakes see each other's requests at the next count.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from chassis.database import Store
from chassis.errors import BacklogFull
from chassis.service import Loop
from intake_service.store.backlog import count_waiting

COUNT_SECONDS = 10.0
RETRY_AFTER_SECONDS = 5.0


class Backlog:
    """Counts waiting requests; a component."""

    def __init__(self, store: Store, *, maximum: int, maximum_per_partner: int) -> None:
        self._store = store
        self._maximum = maximum
        self._maximum_per_partner = maximum_per_partner
        self._total = 0
        self._by_partner: Counter[str] = Counter()
        self._loop = Loop(self._step, name="backlog-count")

    def check(self, partner_id: str) -> None:
        """Raises: BacklogFull when no more may wait; nothing has been stored then."""
        if self._total >= self._maximum:
            raise BacklogFull(
                "The hub has too many waiting requests; send this one again later.",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        if self._by_partner[partner_id] >= self._maximum_per_partner:
            raise BacklogFull(
                "Too many of your requests are waiting; send this one again later.",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )

    def accepted(self, partner_ids: Sequence[str]) -> None:
        """So many more wait, each of that partner."""
        self._total += len(partner_ids)
        self._by_partner.update(partner_ids)

    def ended(self, partner_ids: Sequence[str]) -> None:
        """So many less wait, each of that partner."""
        self._total = max(0, self._total - len(partner_ids))
        for partner_id, count in Counter(partner_ids).items():
            self._by_partner[partner_id] = max(0, self._by_partner[partner_id] - count)

    async def count(self) -> None:
        """Count anew. Raises: StorageUnavailable."""
        counted: dict[str, int] = await self._store.read(count_waiting)
        self._by_partner = Counter(counted)
        self._total = sum(counted.values())

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
