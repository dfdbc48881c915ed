"""How much one target may be given now: places, rate tokens, breaker, pauses, saturation.

    room ──▶ place, before the claim ──▶ turn, before the call ──▶ answer: the next one's turn ──▶ recorded: place left

A target is called no more than `limit` times at once. One that honours the key is given more places than that while its
calls are short, so that it does not rest while the hub claims and records: what they hold waits for its turn. Waiting
for room costs no attempt: the work stays in its stream. Limits are the hub's; each worker keeps to its share. Time is
seconds of a clock that only rises.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from chassis.targets import Target
from orchestrator_service.breaker import Breaker, BreakerState
from orchestrator_service.calls import Calls
from orchestrator_service.retry import RETRY_AFTER_CEILING_SECONDS, Outcome

#: Of a second's calls, so many may be made at once after a quiet time.
BURST_SHARE = 0.1
#: Timers are exact to the millisecond; waking before the time would only mean waiting again.
_TIMER_SECONDS = 0.001
#: For a place that may not be used though no end of the wait is known: someone else is trying the target.
_PROBED_SECONDS = 2.0


class WaitReason(StrEnum):
    """Why a target's stream is not read."""

    DRAINING = "draining"
    BREAKER_OPEN = "breaker_open"
    RETRY_AFTER = "retry_after"
    CONCURRENCY = "concurrency"
    RATE = "rate"
    ADAPTER_AWAY = "adapter_away"
    INTAKE_AWAY = "intake_away"
    REDIS_AWAY = "redis_away"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Why there is no room, and until when if time alone will end it."""

    reason: WaitReason
    until: float | None = None


class TargetCapacity:
    """The capacity of one target as one worker sees it."""

    def __init__(self, target: Target, now: Callable[[], float] = time.monotonic) -> None:
        self._target = target
        self.now = now
        self._changed = asyncio.Event()
        self._is_draining = False
        #: Trouble of the hub's own that keeps the stream from being read; the reader says so. It takes no room away.
        self.trouble: WaitReason | None = None
        #: Whether other workers call the target too, as the last heartbeat had it.
        self.has_peers = False
        #: Told how long the target wants to be left alone, when a call of this worker has heard it.
        self.on_pause: Callable[[float], None] | None = None
        self._breaker = Breaker()
        self._is_probed = False
        self._paused_until = -math.inf
        self._taken = 0
        self.calls = Calls()
        #: Nothing is read before the first heartbeat has told this worker its share.
        self._share = 0
        #: Below the share while the target is saturated.
        self._lowered_to: int | None = None
        self._lowered_at = -math.inf
        self._successes = 0
        self._rate = 0.0
        self._tokens = 1.0
        self._tokens_at = now()

    @property
    def in_flight(self) -> int:
        """Calls of this worker to the target that are in flight now."""
        return self.calls.in_flight

    @property
    def limit(self) -> int:
        """How many it may make at once now."""
        return self._share if self._lowered_to is None else min(self._lowered_to, self._share)

    @property
    def breaker(self) -> BreakerState:
        """Whether calls pass."""
        return self._breaker.state(self.now())

    def set_share(self, *, workers: int, index: int) -> None:
        """Take this worker's share of the target: worker `index`, from 0, of so many."""
        whole, rest = divmod(self._target.concurrency, max(workers, 1))
        share = whole + (index < rest)
        self._refill()
        self.has_peers = workers > 1
        # a worker without a place makes no calls, so its part of the rate belongs to the others
        self._rate = self._target.rate_per_second / min(max(workers, 1), self._target.concurrency) if share else 0.0
        if share != self._share:
            self._share = share
            self.calls.set_limit(self.limit)
            self._changed.set()

    def drain(self) -> None:
        """Give nothing out any more."""
        self._is_draining = True
        self._changed.set()

    def wait(self) -> Wait | None:
        """Why there is no room now; None when there is."""
        now = self.now()
        state = self._breaker.state(now)
        if self._is_draining:
            return Wait(reason=WaitReason.DRAINING)
        if state is BreakerState.OPEN:
            return Wait(reason=WaitReason.BREAKER_OPEN, until=self._breaker.open_until)
        if state is BreakerState.HALF_OPEN and self._is_probed:
            return Wait(reason=WaitReason.BREAKER_OPEN)
        if now < self._paused_until:
            return Wait(reason=WaitReason.RETRY_AFTER, until=self._paused_until)
        if self._places() <= self._ahead() // 2:  # taken anew by halves: a claim of many costs each of them less
            return Wait(reason=WaitReason.CONCURRENCY)
        if self._is_rated and self._refill() < 1:
            return Wait(reason=WaitReason.RATE, until=now + (1 - self._tokens) / self._rate)
        return None

    def held_back_by(self) -> Wait | None:
        """Why the stream is not read now, the hub's own trouble included; None when it is."""
        wait = self.wait()
        if wait is None and self.trouble is not None:
            return Wait(reason=self.trouble)
        return wait

    def free(self) -> int:
        """How many requests may be taken now."""
        if self.wait() is not None:
            return 0
        if self._breaker.open_until is not None:
            return 1  # half-open
        return min(self._places(), int(self._tokens)) if self._is_rated else self._places()

    def _places(self) -> int:
        return self.limit + self._ahead() - self._taken

    def _ahead(self) -> int:
        """How many places beyond the limit.

        None for a target that does not honour the key: what a dead worker held would stand in doubt, and each would
        have to be looked up, or seen to by an operator. None either for one that is saturated or has a rate.
        """
        if not self._target.idempotent or self._lowered_to is not None or self._is_rated:
            return 0
        return self.calls.ahead()

    async def room(self) -> int:
        """Wait until there is room; gives how many requests may be taken."""
        while True:
            self._changed.clear()
            if free := self.free():
                return free
            wait = self.wait()
            if wait is None:
                continue  # it ended between the two looks, and nothing else would wake it
            seconds = None if wait.until is None else wait.until - self.now() + _TIMER_SECONDS
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def take(self, most: int) -> "list[Place]":
        """Take up to so many places, as many as there are."""
        taken = min(most, self.free())
        if not taken:
            return []
        is_probe = self._breaker.open_until is not None
        self._is_probed = self._is_probed or is_probe
        self._taken += taken
        self._tokens -= taken * self._is_rated
        now = self.now()
        return [Place(self, now, is_probe=is_probe) for _ in range(taken)]

    def refusal(self, *, is_probe: bool) -> float | None:
        """Seconds for which a request that has its place must not be posted after all; None when it may be."""
        now = self.now()
        if self._is_draining:
            return 0.0
        if self._breaker.open_until is not None and not is_probe:
            return max(self._breaker.open_until - now, _PROBED_SECONDS)
        return self._paused_until - now if now < self._paused_until else None

    def record(self, outcome: Outcome, *, begun_at: float, is_probe: bool, retry_after_seconds: float) -> None:
        """Learn from a call. UNAVAILABLE and UNKNOWN are failures; a saturated target is not a broken one."""
        now = self.now()
        match outcome:
            case Outcome.DELIVERED | Outcome.REJECTED:
                failed = False
                self._raise_limit()
            case Outcome.UNAVAILABLE | Outcome.UNKNOWN:
                failed = True
            case Outcome.THROTTLED:
                failed = False
                self._lower_limit(now, begun_at)
            case _:
                assert_never(outcome)
        if is_probe:
            self._breaker.record_probe(now, failed=failed)
            self._changed.set()
        else:
            self._breaker.record(now, failed=failed)
        self.leave_alone(retry_after_seconds)

    def leave_alone(self, seconds: float) -> None:
        """Pause as the target has asked, and have the other workers told."""
        if seconds <= 0:
            return
        self.pause(seconds)
        if self.on_pause is not None:
            self.on_pause(min(seconds, RETRY_AFTER_CEILING_SECONDS))

    def pause(self, seconds: float) -> None:
        """Leave the target alone for so long; a longer pause stands."""
        pause = min(seconds, RETRY_AFTER_CEILING_SECONDS)
        self._paused_until = max(self._paused_until, self.now() + pause)

    def leave(self, *, is_probe: bool, has_called: bool) -> None:
        """Give a place back; the token too when no call was made."""
        self._taken -= 1
        if is_probe:
            self._is_probed = False
        if self._is_rated and not has_called:
            self._tokens += 1
        self._changed.set()

    @property
    def _is_rated(self) -> bool:
        return self._rate > 0

    def _refill(self) -> float:
        now = self.now()
        depth = max(1.0, self._rate * BURST_SHARE)
        self._tokens = min(depth, self._tokens + (now - self._tokens_at) * self._rate)
        self._tokens_at = now
        if self._tokens > 1 - 1e-9:
            self._tokens = max(self._tokens, 1.0)  # a sum of floats must not wait for its last digit
        return self._tokens

    def _lower_limit(self, now: float, begun_at: float) -> None:
        """Halve, once for all the calls that were in flight when the target said so."""
        self._successes = 0
        if begun_at < self._lowered_at:
            return
        self._lowered_at = now
        self._lowered_to = max(1, self.limit // 2)
        self.calls.set_limit(self.limit)

    def _raise_limit(self) -> None:
        """Give one place back for every full round of successes."""
        if self._lowered_to is None:
            return
        self._successes += 1
        if self._successes < self._lowered_to:
            return
        self._successes = 0
        self._lowered_to += 1
        if self._lowered_to >= self._share:
            self._lowered_to = None
        self.calls.set_limit(self.limit)


class Place:
    """One request's claim to capacity, from before its claim until it is off this worker's hands."""

    __slots__ = ("_begun_at", "_called_at", "_capacity", "_characters", "_has_turn", "_is_probe")

    def __init__(self, capacity: TargetCapacity, begun_at: float, *, is_probe: bool) -> None:
        self._capacity = capacity
        self._begun_at = begun_at
        self._is_probe = is_probe
        self._has_turn = False
        self._called_at: float | None = None
        self._characters = 1

    async def turn(self) -> bool:
        """Wait until the target may be called beside its other calls; False when that took too long."""
        self._has_turn = self._has_turn or await self._capacity.calls.turn()
        return self._has_turn

    def refusal(self) -> float | None:
        """Seconds for which the request must not be posted after all; None when it may be."""
        return self._capacity.refusal(is_probe=self._is_probe)

    def call(self, characters: int = 1) -> None:
        """Say that the target is being called, with a payload of that length: the rate token is spent."""
        self._called_at = self._capacity.now()
        self._characters = characters

    def refused(self, seconds: float) -> None:
        """Say that no call was made after all, for a cause that would meet every other one for so long, or 0."""
        self._called_at = None
        self._capacity.pause(seconds)

    def answered(self) -> None:
        """Say that the call has ended, so that it is the next one's turn."""
        if self._has_turn:
            self._has_turn = False
            begun_at = self._called_at
            seconds = None if begun_at is None else self._capacity.now() - begun_at
            self._capacity.calls.leave(seconds, self._characters)

    def record(self, outcome: Outcome, retry_after_seconds: float = 0.0) -> None:
        """Say what came of a post."""
        self._capacity.record(
            outcome, begun_at=self._begun_at, is_probe=self._is_probe, retry_after_seconds=retry_after_seconds
        )

    def leave_alone(self, seconds: float) -> None:
        """Say that the target has asked to be left alone, in its answer to a lookup."""
        self._capacity.leave_alone(seconds)

    def leave(self) -> None:
        """Give the place back, once."""
        self.answered()
        self._capacity.leave(is_probe=self._is_probe, has_called=self._called_at is not None)
