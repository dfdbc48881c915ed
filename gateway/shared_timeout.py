"""asyncio.timeout for many waits of one length, with one timer for all of them.

    begins ──▶ [oldest … newest] ──▶ ends, from any place
                   │
                   └── the timer is set for the oldest that is not over

Waits of one length run out in the order in which they began. A timer for each costs three times as much as all the
rest of it.
"""

import asyncio
from itertools import islice, takewhile
from types import TracebackType


class SharedTimeout:
    """Bounds each `with` of it to so many seconds; as with asyncio.timeout, what is late is cancelled."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waits: dict[_Wait, None] = {}  # in order, and each can leave at once
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> "_Wait":
        """Begin a wait, for a `with`, in a task. The `with` raises: TimeoutError when it took too long."""
        loop = self._loop = self._loop or asyncio.get_running_loop()
        task = asyncio.current_task(loop)  # without its loop it asks the system which process this is
        assert task is not None
        wait = _Wait(self._waits, task, loop.time() + self._seconds)
        self._waits[wait] = None
        if self._timer is None:
            self._timer = loop.call_at(wait.due_at, self._cancel_what_is_late, loop)
        return wait

    def _cancel_what_is_late(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for wait in list(takewhile(lambda wait: wait.due_at <= loop.time(), self._waits)):
            del self._waits[wait]
            wait.cancel()
        for oldest in islice(self._waits, 1):
            self._timer = loop.call_at(oldest.due_at, self._cancel_what_is_late, loop)


class _Wait:
    __slots__ = ("_cancelling", "_is_late", "_task", "_waits", "due_at")

    def __init__(self, waits: "dict[_Wait, None]", task: "asyncio.Task[object]", due_at: float) -> None:
        self._waits = waits
        self._task = task
        self._cancelling = task.cancelling()
        self._is_late = False
        self.due_at = due_at

    def __enter__(self) -> None:
        """Nothing: the wait began when it was made."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._waits.pop(self, None)
        # as asyncio.timeout has it: a cancellation that somebody else asked for as well stays one
        if self._is_late and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def cancel(self) -> None:
        """Cancel the task that waits."""
        self._is_late = True
        self._task.cancel()
