"""Natural batching: a batch is whatever arrived while the previous batch was in flight.

    submit ──▶ [waiting] ──▶ flush(batch) in flight ──▶ each submitter gets its own result
                  ▲                    │
                  └── arrives meanwhile┘

No timer gathers items: an idle batcher flushes its first item at once, so low load pays no wait, and under load the
batches grow by themselves (DESIGN section 2). Only while each turn of the loop brings more does a batch wait for the
next one, a few turns at most: what has arrived already, but is not read yet, comes along.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

#: As long as a large batch in flight keeps a small one waiting: more than it takes unless it hangs.
COMPANY_SECONDS = 0.1
#: A turn of a busy loop takes a millisecond or less.
MOST_TURNS = 5


async def while_more_come(count: Callable[[], int]) -> None:
    """Let the loop turn until a turn brings no more of what is counted, or MOST_TURNS are over."""
    for _ in range(MOST_TURNS):
        before = count()
        await asyncio.sleep(0)
        if count() <= before:
            return


class Batcher(Generic[Item, Result]):
    """Gathers items into batches; an item's error is its own.

    `flush` takes a batch and gives a result or an exception for each item, in order; what it raises itself is
    given to every item of that batch. At most `concurrency` batches are in flight. With `weight` (such as bytes) a
    batch also ends before it would weigh more than `max_weight`, though it always takes one item.

    With `large` (items), a smaller batch does not leave beside one of that size in flight, but waits for its return or
    COMPANY_SECONDS: many who are answered together come back together, and a part of them that leaves at once costs as
    much as all of them.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result | BaseException]]],
        *,
        max_items: int = 1000,
        max_weight: int | None = None,
        weight: Callable[[Item], int] | None = None,
        concurrency: int = 1,
        large: int = sys.maxsize,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._flush = flush
        self._max_items = max_items
        self._max_weight = max_weight
        self._weight = weight
        self._concurrency = concurrency
        self._large = large
        #: Large batches in flight, each until it returns or COMPANY_SECONDS have passed.
        self._company: set[object] = set()
        self._on_batch = on_batch
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Items that are not in flight yet."""
        return len(self._waiting)

    async def submit(self, item: Item) -> Result:
        """Hand an item in and wait for its own result.

        A cancelled submitter's item may still be flushed. Raises: what `flush` gave for this item.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._wake()
        return await future

    def fail_waiting(self, error: Exception) -> None:
        """Give an error to all that are not in flight yet."""
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            _settle(future, error)

    async def drain(self) -> None:
        """Wait until nothing is waiting or in flight."""
        while self._running:
            await asyncio.wait(self._running)

    def _wake(self) -> None:
        if len(self._running) < self._concurrency and self._may_leave():
            # in an empty context: a batch is nobody's call and must not carry the ids of the one that began it
            task = asyncio.create_task(self._run(), context=Context())
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _count(self) -> int:
        return len(self._waiting)

    def _may_leave(self) -> bool:
        return not self._company or len(self._waiting) >= self._large

    async def _run(self) -> None:
        try:
            await self._flush_all()
        finally:
            # here, for the callback runs a turn of the loop later: whom this task has just answered may submit before
            self._running.discard(asyncio.current_task())

    async def _flush_all(self) -> None:
        while self._waiting and self._may_leave():
            await while_more_come(self._count)
            if not self._may_leave():
                return
            batch = [(item, future) for item, future in self._take() if not future.cancelled()]
            if not batch:
                continue
            if self._on_batch is not None:
                self._on_batch(len(batch))
            try:
                with self._keeping_company(len(batch)):
                    results = await self._flush([item for item, _ in batch])
                if len(results) != len(batch):
                    raise RuntimeError(f"flush gave {len(results)} results for {len(batch)} items")
            except asyncio.CancelledError:
                for _, future in batch:
                    future.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - the batch's error is every item's error
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                _settle(future, result)

    @contextmanager
    def _keeping_company(self, size: int) -> Iterator[None]:
        """Have small batches wait for a large one while it is in flight, but not for long."""
        if size < self._large:
            yield
            return
        batch = object()
        self._company.add(batch)
        timer = asyncio.get_running_loop().call_later(COMPANY_SECONDS, self._wait_no_more_for, batch)
        try:
            yield
        finally:
            self._company.discard(batch)
            timer.cancel()

    def _wait_no_more_for(self, batch: object) -> None:
        self._company.discard(batch)
        self._wake()

    def _take(self) -> Sequence[tuple[Item, asyncio.Future[Result]]]:
        if len(self._waiting) <= self._max_items and self._is_light():
            waiting, self._waiting = self._waiting, deque()
            return waiting
        if self._weight is None or self._max_weight is None:
            return [self._waiting.popleft() for _ in range(self._max_items)]
        batch = [self._waiting.popleft()]
        total = self._weight(batch[0][0])
        while self._waiting and len(batch) < self._max_items:
            total += self._weight(self._waiting[0][0])
            if total > self._max_weight:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _is_light(self) -> bool:
        if self._weight is None or self._max_weight is None:
            return True
        return sum(map(self._weight, [item for item, _ in self._waiting])) <= self._max_weight


def _settle(future: asyncio.Future[Result], result: Result | BaseException) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
