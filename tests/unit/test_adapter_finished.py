"""Which message takes a result of a batch: the first at once, others in step, the last without waiting."""

import asyncio

from adapter_service.finished import Finished, Pace
from integrationhub.adapter.v1 import adapter_pb2 as pb

#: Longer than any test waits.
ENDLESS_SECONDS = 3600.0


def result(name: str) -> pb.DeliverBatchResult:
    return pb.DeliverBatchResult(integration_request_id=name)


def names(results: list[pb.DeliverBatchResult]) -> list[str]:
    return [each.integration_request_id for each in results]


async def test_the_first_result_waits_for_nobody() -> None:
    finished = Finished(2, Pace(ENDLESS_SECONDS))
    finished.add(result("first"))

    async with asyncio.timeout(1):
        assert names(await finished.take()) == ["first"]


async def test_the_last_result_waits_for_nobody() -> None:
    finished = Finished(3, Pace(ENDLESS_SECONDS))
    finished.add(result("first"))
    await finished.take()
    finished.add(result("second"))
    taking = asyncio.create_task(finished.take())
    done, _ = await asyncio.wait([taking], timeout=0.02)
    assert not done

    finished.add(result("last"))

    async with asyncio.timeout(1):
        assert names(await taking) == ["second", "last"]
        assert await finished.take() == []


async def test_messages_of_all_batches_keep_their_distance_from_the_last() -> None:
    pace, loop = Pace(0.05), asyncio.get_running_loop()
    one, other = Finished(2, pace), Finished(2, pace)
    for batch in (one, other):
        batch.add(result("first"))
    begun = loop.time()
    await one.take()

    assert names(await other.take()) == ["first"]
    one.add(result("last of one"))
    other.add(result("last of the other"))

    assert loop.time() - begun >= 0.045  # a clock of whole milliseconds
    assert names(await one.take()) == ["last of one"]
    assert names(await other.take()) == ["last of the other"]


async def test_what_is_ready_in_the_next_turns_of_the_loop_comes_along() -> None:
    finished = Finished(3, Pace())

    async def answer_after(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        finished.add(result(f"after {turns}"))

    tasks = [asyncio.create_task(answer_after(turns)) for turns in (0, 1, 2)]

    assert names(await finished.take()) == ["after 0", "after 1", "after 2"]
    await asyncio.gather(*tasks)
