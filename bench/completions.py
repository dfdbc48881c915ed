"""When requests complete, as anybody can see it: by reading the hub's event stream.

One that failed did not complete: it is in no rate and no latency, and counts as missing.
"""

import asyncio
import time
from typing import Any, Self

import redis.asyncio as redis

EVENTS = "hub:events"


class Completions:
    """Watches the event stream; `completed_at` holds the Unix time at which each completion was seen."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url, decode_responses=True, legacy_responses=False, socket_timeout=10)
        self._last = "$"
        self._task: asyncio.Task[None] | None = None
        self._is_over = False
        self.completed_at: dict[str, float] = {}
        self._failed: set[str] = set()

    async def __aenter__(self) -> Self:
        """Start watching from now on."""
        newest = await self._redis.xrevrange(EVENTS, count=1)
        self._last = str(newest[0][0]) if newest else "0"
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop watching."""
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._redis.aclose()

    async def all_of(self, ids: set[str], *, seconds: float) -> set[str]:
        """Wait until all of `ids` have ended, at most that long; gives those that have not completed."""
        deadline = time.monotonic() + seconds
        while ids - self.completed_at.keys() - self._failed and time.monotonic() < deadline:  # noqa: ASYNC110 - bounded
            await asyncio.sleep(0.02)
        return ids - self.completed_at.keys()

    async def _watch(self) -> None:
        # the flag, since redis-py swallows a cancellation that meets its result (python/cpython#86296)
        while not self._is_over:
            reply: Any = await self._redis.xread({EVENTS: self._last}, count=2000, block=1000)
            now = time.time()
            for entry_id, fields in reply.get(EVENTS, []) if reply else []:
                self._last = entry_id
                if fields["type"] == "IntegrationRequestCompleted":
                    self.completed_at[fields["id"]] = now
                elif fields["type"] == "IntegrationRequestFailed":
                    self._failed.add(fields["id"])
