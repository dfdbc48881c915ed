"""The calls to one target that are in flight, and what waits for its turn to make one.

As many requests may be held ahead as the target takes in `AHEAD_SECONDS`, going by its recent calls (Little's law): a
fast target is kept busy while the hub commits; of a slow one next to nothing is held that another worker could have.
"""

import asyncio
import math
from collections import deque

from chassis.deadlines import Deadlines

#: Under load a claim and a record take 10 to 50 ms each; meanwhile the target works on what is held ahead.
AHEAD_SECONDS = 0.3
MOST_AHEAD = 768
#: Of payloads, going by the recent ones: what is held ahead stands in memory.
MOST_AHEAD_CHARACTERS = 16 * 1024 * 1024
#: Who waits longer has met a target that became slow meanwhile. Well within the time that an announcement keeps.
TURN_SECONDS = 1.0
#: Turns are given by eighths of the limit: deliveries that begin together travel in one call.
LUMPS = 8
#: The mean follows about so many calls.
_RECENT_CALLS = 16


class Calls:
    """Turns are given in the order in which they are asked for."""

    def __init__(self) -> None:
        self._limit = 0
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._deadlines = Deadlines()
        #: Mean length of a call; nothing is held ahead before the first has ended.
        self._seconds = math.inf
        #: Mean length of a payload.
        self._characters = 1.0

    def set_limit(self, limit: int) -> None:
        """Take another limit; what is in flight beyond a lower one ends by itself."""
        self._limit = limit
        self._give_turns()

    def ahead(self) -> int:
        """How many requests may be held beyond the limit, to make their calls soon."""
        shortest = AHEAD_SECONDS / MOST_AHEAD
        by_time = int(self._limit * AHEAD_SECONDS / max(self._seconds, shortest))
        return min(MOST_AHEAD, by_time, int(MOST_AHEAD_CHARACTERS / self._characters))

    async def turn(self) -> bool:
        """Wait until fewer calls than the limit are in flight, and count as one; False when that took too long."""
        if self.in_flight < self._limit and not self._waiting:
            self.in_flight += 1
            return True
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            with self._deadlines.within(TURN_SECONDS):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave()  # it came in the same moment
            if isinstance(error, TimeoutError):
                self._seconds = max(self._seconds, TURN_SECONDS)  # so long the calls take that have not ended yet
                return False
            raise
        return True

    def leave(self, seconds: float | None = None, characters: int = 1) -> None:
        """End a turn; `seconds` is how long its call took, if one was made, and `characters` what it carried."""
        if seconds is not None:
            self._characters += (max(characters, 1) - self._characters) / _RECENT_CALLS
            change = (seconds - self._seconds) / _RECENT_CALLS
            self._seconds = seconds if math.isinf(self._seconds) else self._seconds + change
        self.in_flight -= 1
        if self._waiting:
            self._give_turns()

    def _give_turns(self) -> None:
        limit = self._limit
        if self.in_flight > limit - limit // LUMPS:
            return
        while self._waiting and self.in_flight < limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)
