"""asyncio.timeout_at for many waits at once, with one timer for all of them.

    begins ──▶ {waits} ──▶ ends, and is forgotten at once
                  ▲
                timer      set for the earliest; what is late when it rings is cancelled, then it is set anew

A timer for each costs three times as much as all the rest of it.
"""

import asyncio
import math
from types import TracebackType


class Deadlines:
    """Bounds each `with` of it to its own instant; as with asyncio.timeout_at, what is late is cancelled."""

    def __init__(self) -> None:
        self._waits: set[_Wait] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def within(self, seconds: float) -> "_Wait":
        """Begin a wait of so many seconds at most, as `until` does."""
        loop = self._loop = self._loop or asyncio.get_running_loop()
        return self.until(loop.time() + seconds)

    def until(self, deadline: float) -> "_Wait":
        """Begin a wait, for a `with`, in a task; `deadline` is an instant of the event loop's clock.

        The `with` raises: TimeoutError when that has come.
        """
        loop = self._loop = self._loop or asyncio.get_running_loop()
        task = asyncio.current_task(loop)  # without its loop it asks the system which process this is
        assert task is not None
        wait = _Wait(self._waits, task, deadline)
        self._waits.add(wait)
        if deadline < self._rings_at:
            self._set_timer(loop, deadline)
        return wait

    def _set_timer(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(at, self._cancel_what_is_late, loop)
        self._rings_at = at

    def _cancel_what_is_late(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for wait in [wait for wait in self._waits if wait.deadline <= now]:
            self._waits.discard(wait)
            wait.cancel()
        self._timer, self._rings_at = None, math.inf
        if self._waits:
            self._set_timer(loop, min(wait.deadline for wait in self._waits))


class _Wait:
    __slots__ = ("_all", "_cancelling", "_is_late", "_task", "deadline")

    def __init__(self, all_waits: "set[_Wait]", task: "asyncio.Task[object]", deadline: float) -> None:
        self._all = all_waits
        self._task = task
        self._cancelling = task.cancelling()
        self._is_late = False
        self.deadline = deadline

    def __enter__(self) -> None:
        """Nothing: the wait began when it was made."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._all.discard(self)
        # as asyncio.timeout_at has it: a cancellation that somebody else asked for as well stays one
        if self._is_late and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def cancel(self) -> None:
        """Cancel the task that waits."""
        self._is_late = True
        self._task.cancel()
