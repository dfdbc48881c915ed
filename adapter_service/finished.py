"""What has finished of a batch of deliveries, until a message takes it to the caller.

    result ──add──▶ [finished] ──take, in step with all batches──▶ one message of the answer

A message costs both sides about as much as the work on a result. Where a system takes its time, results come one by
one; so the first message leaves at once, and others at a distance, those of all batches together. A slow item still
holds nobody for longer than that, and the last of a batch do not wait.
"""

import asyncio
import contextlib
import math

from chassis.batcher import while_more_come
from integrationhub.adapter.v1 import adapter_pb2 as pb

#: Under full load a batch is on its way through the hub for as long.
PACE_SECONDS = 0.04


class Pace:
    """When the next message may leave, whatever batch it is of."""

    def __init__(self, seconds: float = PACE_SECONDS) -> None:
        self._seconds = seconds
        self._next = -math.inf

    async def keep(self, never_mind: asyncio.Event) -> None:
        """Wait for the next moment, or for the event."""
        loop = asyncio.get_running_loop()
        if (seconds := self._next - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await never_mind.wait()
        if self._next <= (now := loop.time()):
            self._next = now + self._seconds


class Finished:
    """Results of one batch that nobody has taken yet. A queue takes a step for each."""

    def __init__(self, count: int, pace: Pace) -> None:
        self._to_come = count
        self._pace = pace
        self._results: list[pb.DeliverBatchResult] = []
        self._are_there = asyncio.Event()
        self._are_all_there = asyncio.Event()

    def add(self, result: pb.DeliverBatchResult) -> None:
        """Put one in."""
        self._results.append(result)
        self._are_there.set()
        self._to_come -= 1
        if not self._to_come:
            self._are_all_there.set()

    async def take(self) -> list[pb.DeliverBatchResult]:
        """Wait for some, and take all that there are; none when all have been taken."""
        if not self._to_come and not self._results:
            return []
        await self._are_there.wait()
        await self._pace.keep(self._are_all_there)
        await while_more_come(self._count)
        self._are_there.clear()
        results, self._results = self._results, []
        return results

    def _count(self) -> int:
        return len(self._results)
