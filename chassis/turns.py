"""Long computations on the event loop, in turns: after each, whoever else waits has three times as much time."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

#: A short call passes the loop several times; in this time it passes between two long ones.
PAUSE_FACTOR = 3


class Turns:
    """One computation at a time, so that many at once hold nobody up for longer than a few of them."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def take(self, compute: Callable[[], Result], *, within_seconds: float | None = None) -> Result:
        """Compute when it is our turn.

        Raises: TimeoutError when it does not come `within_seconds`; what `compute` raises.
        """
        async with asyncio.timeout(within_seconds):
            await self._turn.acquire()
        try:
            started = time.perf_counter()
            try:
                return compute()
            finally:
                await asyncio.sleep(PAUSE_FACTOR * (time.perf_counter() - started))
        finally:
            self._turn.release()
