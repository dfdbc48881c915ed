"""Acceptance goes first: while a crowd of creates waits at intake, claims wait for it a little.

A partner waits for its answer; what is accepted is safe, and waits in its stream. On a machine with few cores the two
compete, and what is claimed later is claimed in larger batches, of which each request costs less. So a burst is taken
in at once and worked off after it, and both end earlier. What waits is bounded: by the backlog's limits, and a claim
by its size, so that a target keeps five hundred requests per second, and one that takes less hardly notices.
"""

import asyncio
import math

#: So many creates that wait for their commit at the same time are a crowd; a steady stream has less.
CROWD = 32
#: A crowd comes in waves, as its answers go out together.
WAVE_SECONDS = 0.05
SECONDS_PER_CLAIM = 0.002


class Door:
    """Who waits to be accepted now."""

    def __init__(self) -> None:
        self._waiting = 0
        self._crowded_until = -math.inf

    def arrive(self, count: int) -> None:
        """So many creates begin to wait for their commit."""
        self._waiting += count

    def depart(self, count: int) -> None:
        """So many have been answered."""
        if self._waiting >= CROWD:
            self._crowded_until = asyncio.get_running_loop().time() + WAVE_SECONDS
        self._waiting -= count

    async def let_pass(self, claims: int) -> float:
        """Wait while there is a crowd, as long as so many claims may be made to wait; gives the seconds it took."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        latest = begun + claims * SECONDS_PER_CLAIM
        while (now := loop.time()) < latest:
            until = now + WAVE_SECONDS if self._waiting >= CROWD else self._crowded_until
            if until <= now:
                break
            await asyncio.sleep(min(until, latest) - now)
        return now - begun
