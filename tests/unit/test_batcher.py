"""Natural batching: what is in a batch, whose error is whose, and that no item is ever forgotten."""

import asyncio
from collections.abc import Sequence

import pytest

import chassis.batcher
from chassis.batcher import MOST_TURNS, Batcher
from chassis.testing import eventually


class Flush:
    """Records batches; each waits until the test opens the gate."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.in_flight = 0
        self.most_in_flight = 0

    async def __call__(self, batch: Sequence[int]) -> list[int | BaseException]:
        self.batches.append(list(batch))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await self.gate.wait()
        self.in_flight -= 1
        return [ValueError(f"{item}") if item < 0 else item * 10 for item in batch]


async def rounds(count: int = 5) -> None:
    """Let every task that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_single_item_waits_for_nobody() -> None:
    flush = Flush()
    flush.gate.set()

    assert await Batcher(flush).submit(1) == 10
    assert flush.batches == [[1]]


async def test_what_arrives_during_a_flush_is_the_next_batch() -> None:
    flush = Flush()
    batcher = Batcher(flush)
    first = asyncio.create_task(batcher.submit(1))
    await rounds()
    others = [asyncio.create_task(batcher.submit(item)) for item in (2, 3, 4)]
    await rounds()
    assert batcher.waiting == 3

    flush.gate.set()

    assert await asyncio.gather(first, *others) == [10, 20, 30, 40]
    assert flush.batches == [[1], [2, 3, 4]]


async def test_what_each_turn_of_the_loop_brings_comes_along() -> None:
    flush = Flush()
    flush.gate.set()
    batcher = Batcher(flush)

    async def submit_after(turns: int) -> int:
        await rounds(turns)
        return await batcher.submit(turns)

    await asyncio.gather(*map(submit_after, range(MOST_TURNS)))

    assert flush.batches == [list(range(MOST_TURNS))]


async def test_a_turn_that_brings_none_ends_the_gathering() -> None:
    flush = Flush()
    batcher = Batcher(flush)
    task = asyncio.create_task(batcher.submit(1))

    await rounds(4)  # to submit, to begin, to see that none came, and one to spare

    assert flush.batches == [[1]]
    flush.gate.set()
    await task


async def test_a_stream_without_end_is_cut_into_batches() -> None:
    flush = Flush()
    flush.gate.set()
    batcher = Batcher(flush)

    tasks: list[asyncio.Task[int]] = []
    while len(flush.batches) < 3:
        tasks.append(asyncio.create_task(batcher.submit(len(tasks))))
        await rounds(1)
    await asyncio.gather(*tasks)

    assert max(map(len, flush.batches)) <= MOST_TURNS + 2


async def test_items_keep_their_order_over_many_batches() -> None:
    flush = Flush()
    flush.gate.set()
    batcher = Batcher(flush, max_items=7)

    results = await asyncio.gather(*(batcher.submit(item) for item in range(100)))

    assert results == [item * 10 for item in range(100)]
    assert [item for batch in flush.batches for item in batch] == list(range(100))
    assert max(len(batch) for batch in flush.batches) == 7


async def test_who_submits_again_at_once_is_not_forgotten() -> None:
    flush = Flush()
    flush.gate.set()
    batcher = Batcher(flush)

    async with asyncio.timeout(1):
        results = [await batcher.submit(item) for item in range(50)]

    assert results == [item * 10 for item in range(50)]


async def test_an_items_error_is_its_own() -> None:
    flush = Flush()
    flush.gate.set()
    batcher = Batcher(flush)

    good, bad, last = await asyncio.gather(
        batcher.submit(1), batcher.submit(-2), batcher.submit(3), return_exceptions=True
    )

    assert (good, last) == (10, 30)
    assert isinstance(bad, ValueError)


async def test_what_the_flush_raises_is_every_items_error_and_the_next_batch_goes_on() -> None:
    calls = 0

    async def flush(batch: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("away")
        return list(batch)

    batcher = Batcher(flush)
    results = await asyncio.gather(batcher.submit(1), batcher.submit(2), return_exceptions=True)

    assert [type(result) for result in results] == [OSError, OSError]
    assert await batcher.submit(3) == 3


async def test_a_flush_that_loses_results_is_an_error_for_all() -> None:
    async def flush(_: Sequence[int]) -> list[int]:
        return []

    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        await Batcher(flush).submit(1)


async def test_a_batch_ends_before_it_weighs_too_much() -> None:
    flush = Flush()
    flush.gate.set()
    batcher = Batcher(flush, max_weight=10, weight=lambda item: item)

    await asyncio.gather(*map(batcher.submit, [4, 6, 1, 9, 30, 2]))

    # 4+6 = 10 fits; 1+9 = 10 fits; 30 is over the limit and goes alone; 2 is what is left
    assert flush.batches == [[4, 6], [1, 9], [30], [2]]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_batches_than_allowed_are_in_flight(concurrency: int) -> None:
    flush = Flush()
    batcher = Batcher(flush, max_items=1, concurrency=concurrency)
    tasks = [asyncio.create_task(batcher.submit(item)) for item in range(20)]
    await rounds()

    flush.gate.set()
    await asyncio.gather(*tasks)

    assert flush.most_in_flight == concurrency


async def test_an_item_whose_submitter_gave_up_in_time_is_not_flushed() -> None:
    flush = Flush()
    batcher = Batcher(flush)
    first = asyncio.create_task(batcher.submit(1))
    await rounds()
    second, third = asyncio.create_task(batcher.submit(2)), asyncio.create_task(batcher.submit(3))
    await rounds()
    second.cancel()
    await rounds()

    flush.gate.set()

    assert [await first, await third] == [10, 30]
    assert flush.batches == [[1], [3]]


async def test_a_submitter_that_gives_up_in_flight_harms_no_other() -> None:
    flush = Flush()
    batcher = Batcher(flush)
    tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2)]
    await rounds()
    tasks[0].cancel()

    flush.gate.set()

    assert await tasks[1] == 20
    await batcher.drain()


async def test_draining_waits_for_everything() -> None:
    flush = Flush()
    batcher = Batcher(flush, max_items=1)
    tasks = [asyncio.create_task(batcher.submit(item)) for item in range(5)]
    await rounds()
    draining = asyncio.create_task(batcher.drain())
    await rounds()
    assert not draining.done()

    flush.gate.set()
    await draining

    assert len(flush.batches) == 5
    assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40]


async def test_the_size_of_each_batch_is_told() -> None:
    sizes: list[int] = []
    flush = Flush()
    flush.gate.set()

    batcher = Batcher(flush, max_items=2, on_batch=sizes.append)
    await asyncio.gather(*map(batcher.submit, [1, 2, 3]))

    assert sizes == [2, 1]


async def submitted(batcher: Batcher[int, int], *items: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(batcher.submit(item)) for item in items]
    await rounds()
    return tasks


async def test_a_small_batch_waits_for_a_large_one_in_flight() -> None:
    flush = Flush()
    batcher = Batcher(flush, concurrency=2, large=3)
    tasks = await submitted(batcher, 1)
    tasks += await submitted(batcher, 2)  # beside a small one it leaves
    flush.gate.set()
    await asyncio.gather(*tasks)
    flush.gate.clear()
    tasks = await submitted(batcher, 3, 4, 5)
    tasks += await submitted(batcher, 6)
    tasks += await submitted(batcher, 7)
    assert flush.batches == [[1], [2], [3, 4, 5]]

    flush.gate.set()

    assert await asyncio.gather(*tasks) == [30, 40, 50, 60, 70]
    assert flush.batches[3:] == [[6, 7]]


async def test_a_large_batch_leaves_beside_another() -> None:
    flush = Flush()
    batcher = Batcher(flush, concurrency=2, large=3)
    tasks = await submitted(batcher, 1, 2, 3)
    tasks += await submitted(batcher, 4, 5, 6)
    tasks += await submitted(batcher, 7, 8, 9)
    assert flush.batches == [[1, 2, 3], [4, 5, 6]]

    flush.gate.set()

    assert await asyncio.gather(*tasks) == [item * 10 for item in range(1, 10)]
    assert flush.most_in_flight == 2


async def test_a_large_batch_that_hangs_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chassis.batcher, "COMPANY_SECONDS", 0.02)
    flush = Flush()
    batcher = Batcher(flush, concurrency=2, large=3)
    tasks = await submitted(batcher, 1, 2, 3)
    tasks += await submitted(batcher, 4)

    await eventually(lambda: flush.in_flight == 2)
    assert flush.batches == [[1, 2, 3], [4]]

    flush.gate.set()
    await asyncio.gather(*tasks)


async def test_another_large_batch_does_not_prolong_the_wait_for_one_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chassis.batcher, "COMPANY_SECONDS", 0.02)
    gates = {1: asyncio.Event(), 4: asyncio.Event(), 7: asyncio.Event()}
    begun: list[int] = []

    async def flush(batch: Sequence[int]) -> list[int | BaseException]:
        begun.append(batch[0])
        await gates[batch[0]].wait()
        return list(batch)

    batcher: Batcher[int, int] = Batcher(flush, concurrency=2, large=3)
    tasks = await submitted(batcher, 1, 2, 3)
    monkeypatch.setattr(chassis.batcher, "COMPANY_SECONDS", 60)
    tasks += await submitted(batcher, 4, 5, 6)
    tasks += await submitted(batcher, 7)

    gates[4].set()  # the first hangs on

    await eventually(lambda: begun == [1, 4, 7])
    for gate in gates.values():
        gate.set()
    assert await asyncio.gather(*tasks) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_drain_waits_for_what_waits_for_a_large_batch() -> None:
    flush = Flush()
    batcher = Batcher(flush, concurrency=2, large=3)
    tasks = await submitted(batcher, 1, 2, 3)
    tasks += await submitted(batcher, 4)

    draining = asyncio.create_task(batcher.drain())
    await rounds()
    flush.gate.set()
    await draining

    assert [task.result() for task in tasks] == [10, 20, 30, 40]
