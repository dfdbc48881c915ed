"""DeliverBatch: every item answered once, none held by another, posts cut when the caller goes away."""

from typing import Any

import grpc
import pytest

from chassis.testing import eventually
from integrationhub.adapter.v1 import adapter_pb2 as pb
from tests.contract.adapter.conftest import Adapter, System, delivery


def batch(system: System, count: int) -> list[pb.DeliverRequest]:
    return [
        delivery(system.name, integration_request_id=f"id-{number}", payload_json=f'{{"orderId":"O-{number}"}}')
        for number in range(count)
    ]


def stream(adapter: Adapter, deliveries: list[pb.DeliverRequest]) -> Any:
    return adapter.stub.DeliverBatch(pb.DeliverBatchRequest(deliveries=deliveries), metadata=adapter.metadata)


async def results(system: System, deliveries: list[pb.DeliverRequest]) -> list[pb.DeliverBatchResult]:
    call = stream(await system.started(), deliveries)
    return [result async for message in call for result in message.results]


async def test_every_item_is_answered_once(system: System) -> None:
    answered = await results(system, batch(system, 200))

    assert sorted(result.integration_request_id for result in answered) == sorted(f"id-{n}" for n in range(200))
    assert {result.response.outcome for result in answered} == {pb.OUTCOME_DELIVERED}
    assert len(await system.orders()) == 200


async def test_a_slow_item_holds_nobody(system: System) -> None:
    await system.fault("hang", external_order_id="O-0")
    call = stream(await system.started(), batch(system, 5))

    first: list[str] = []
    async for message in call:
        first += [result.integration_request_id for result in message.results]
        if len(first) == 4:
            break
    call.cancel()

    assert sorted(first) == ["id-1", "id-2", "id-3", "id-4"]


async def test_what_has_finished_meanwhile_comes_together(system: System) -> None:
    call = stream(await system.started(), batch(system, 300))

    messages = [len(message.results) async for message in call]

    assert sum(messages) == 300
    assert len(messages) < 300


async def test_each_item_has_its_own_outcome(system: System) -> None:
    await system.fault("status", status=503, external_order_id="O-0")
    await system.fault("status", status=400, external_order_id="O-1")

    answered = {result.integration_request_id: result.response for result in await results(system, batch(system, 3))}

    assert [answered[f"id-{number}"].outcome for number in range(3)] == [
        pb.OUTCOME_UNAVAILABLE,
        pb.OUTCOME_REJECTED,
        pb.OUTCOME_DELIVERED,
    ]


async def test_an_unknown_target_is_its_items_rejection(system: System) -> None:
    items = [delivery("Nowhere", integration_request_id="lost"), *batch(system, 1)]

    answered = {result.integration_request_id: result.response for result in await results(system, items)}

    assert (answered["lost"].outcome, answered["lost"].code) == (pb.OUTCOME_REJECTED, "TARGET_NOT_FOUND")
    assert answered["id-0"].outcome == pb.OUTCOME_DELIVERED


async def test_a_bad_item_is_its_own_rejection(system: System) -> None:
    items = [delivery(system.name, integration_request_id="bad", payload_json="[]"), *batch(system, 1)]

    answered = {result.integration_request_id: result.response for result in await results(system, items)}

    assert (answered["bad"].outcome, answered["bad"].code) == (pb.OUTCOME_REJECTED, "INVALID_REQUEST")
    assert answered["id-0"].outcome == pb.OUTCOME_DELIVERED


@pytest.mark.parametrize("count", [0, 1001])
async def test_an_empty_or_too_large_batch_is_refused(system: System, count: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await results(system, [pb.DeliverRequest()] * count)

    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await system.posts() == []


async def test_posts_in_flight_are_cut_when_the_caller_goes_away(system: System) -> None:
    await system.settings(concurrency=1)
    await system.fault("hang")
    adapter = await system.started()
    call = stream(adapter, batch(system, 1))
    await eventually(system.posts)

    call.cancel()

    async def has_room() -> bool:
        return (await system.deliver()).outcome == pb.OUTCOME_DELIVERED

    await eventually(has_room)


async def test_posts_are_cut_even_while_nobody_reads_the_answers(system: System) -> None:
    await system.fault("hang", external_order_id="O-0")
    await system.fault("status", status=400, times=None, body={"message": "x" * 60_000})
    call = stream(await system.started(), batch(system, 200))

    async def has_posted_all() -> bool:
        return len(await system.posts()) == 200

    await eventually(has_posted_all)
    await system.settings(concurrency=1)
    await system.simulator.clear_faults(system.place)

    call.cancel()

    async def has_room() -> bool:
        return (await system.deliver()).outcome == pb.OUTCOME_DELIVERED

    await eventually(has_room)
