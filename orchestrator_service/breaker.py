"""The circuit breaker of one target. Pure: every method takes the time, in seconds of any clock that only rises.

    CLOSED ── 10 failures in a row, or half of at least 10 calls in 60 s ──▶ OPEN (30 s, doubling to 5 min)
       ▲                                                                      │ time is over
       └──────── the one call let through succeeds ◀── HALF_OPEN ◀────────────┘
                                                           └── it fails ──▶ OPEN for twice as long

What a failure is, and who is let through, is decided in capacity.py.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum

WINDOW_SECONDS = 60
MIN_CALLS = 10
FAILURE_SHARE = 0.5
FAILURES_IN_A_ROW = 10
FIRST_OPEN_SECONDS = 30.0
LONGEST_OPEN_SECONDS = 300.0


class BreakerState(Enum):
    """Whether calls pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class _Second:
    """The calls that ended within one second."""

    at: int
    calls: int = 0
    failures: int = 0


class Breaker:
    """Counts how calls end and says whether the next may be made."""

    def __init__(self) -> None:
        self._seconds: deque[_Second] = deque()
        self._in_a_row = 0
        #: None while it is closed.
        self._open_until: float | None = None
        self._open_seconds = FIRST_OPEN_SECONDS

    @property
    def open_until(self) -> float | None:
        """When one call will be let through; None while it is closed."""
        return self._open_until

    def state(self, now: float) -> BreakerState:
        """Whether calls pass."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

    def record(self, now: float, *, failed: bool) -> None:
        """Count a call that ended. One that began before the breaker opened tells nothing new and is left out."""
        if self._open_until is not None:
            return
        self._count(now, failed=failed)
        if self._is_too_much():
            self._open_until = now + self._open_seconds

    def record_probe(self, now: float, *, failed: bool) -> None:
        """Close, or open for longer, by the one call that was let through."""
        if failed:
            self._open_seconds = min(self._open_seconds * 2, LONGEST_OPEN_SECONDS)
            self._open_until = now + self._open_seconds
            return
        self._open_until = None
        self._open_seconds = FIRST_OPEN_SECONDS
        self._in_a_row = 0
        self._seconds.clear()

    def _count(self, now: float, *, failed: bool) -> None:
        second = self._second(int(now))
        second.calls += 1
        second.failures += failed
        self._in_a_row = self._in_a_row + 1 if failed else 0

    def _second(self, at: int) -> _Second:
        """The second that is counted now; with a new one, what has left the window is forgotten."""
        if self._seconds and self._seconds[-1].at == at:
            return self._seconds[-1]
        second = _Second(at)
        self._seconds.append(second)
        while self._seconds[0].at <= at - WINDOW_SECONDS:
            self._seconds.popleft()
        return second

    def _is_too_much(self) -> bool:
        if self._in_a_row == 0:
            return False  # the call that has just ended was no failure
        if self._in_a_row >= FAILURES_IN_A_ROW:
            return True
        calls = sum(second.calls for second in self._seconds)
        failures = sum(second.failures for second in self._seconds)
        return calls >= MIN_CALLS and failures >= calls * FAILURE_SHARE
