"""Turns to call a target: who waits for one, what becomes of it, and what a target is never asked to bear."""

import asyncio
from typing import Any

import pytest

from chassis.streams import work_stream
from chassis.targets import Target
from chassis.testing import eventually
from integrationhub.adapter.v1 import adapter_pb2
from integrationhub.adapter.v1.adapter_pb2 import DeliverRequest, DeliverResponse
from orchestrator_service import calls
from orchestrator_service.capacity import Place
from tests.fake_lifecycle import StoredRequest
from tests.orchestrator_fakes import Surroundings, always, capacity_for, claim, consuming_from, delivered, target
from tests.servers import ValkeyServer

UNAVAILABLE = DeliverResponse(outcome=adapter_pb2.OUTCOME_UNAVAILABLE, detail="503")


async def ring(db: Any, request_id: str) -> None:
    await db.xadd(work_stream("Erp"), {"id": request_id})


async def place_without_turn(one: Target) -> Place:
    """One of two places, after another worker has come for the other half and the first place has called."""
    capacity = capacity_for(one)
    first, second = capacity.take(2)
    capacity.set_share(workers=2, index=0)
    assert await first.turn()
    return second


async def process(parts: Surroundings, request_id: str, by: Target, place: Place) -> StoredRequest:
    """Claim and process once, as a reader does."""
    [lease] = await claim(parts, [request_id])
    await parts.processor(by).process(lease, place, by)
    return parts.intake.requests[request_id]


async def test_what_waits_too_long_for_its_turn_is_handed_back_unsent(
    parts: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "TURN_SECONDS", 0.01)
    erp = target(concurrency=2)
    place = await place_without_turn(erp)
    request = await process(parts, parts.intake.add(), erp, place)

    assert (request.steps, request.reports[0].release.delay.ToSeconds()) == (["release"], 2)
    assert parts.adapter.deliveries == []


async def test_a_lookup_that_waits_too_long_for_its_turn_is_made_later(
    parts: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "TURN_SECONDS", 0.01)
    erp = target(concurrency=2)
    place = await place_without_turn(erp)
    request = await process(parts, parts.intake.in_doubt(seconds_ago=100), erp, place)

    assert (request.steps, request.reports[0].in_doubt.lookup_made) == (["in_doubt"], False)
    assert parts.adapter.lookups == []


@pytest.mark.parametrize("outcome", [UNAVAILABLE, DeliverResponse(outcome=adapter_pb2.OUTCOME_DELIVERED)])
async def test_the_next_ones_turn_comes_with_the_answer_and_not_with_its_record(
    parts: Surroundings, outcome: DeliverResponse
) -> None:
    erp = target(concurrency=1)
    capacity = capacity_for(erp)
    [place] = capacity.take(1)
    parts.adapter.answer = always(outcome)
    [lease] = await claim(parts, [parts.intake.add()])
    processing = asyncio.create_task(parts.processor(erp).process(lease, place, erp))
    await eventually(lambda: parts.adapter.deliveries)
    parts.intake.open.clear()
    await eventually(lambda: capacity.in_flight == 0)

    assert capacity.free() == 0  # the place is kept until the end is on record
    parts.intake.open.set()
    await processing


class Crowded:
    """An external system that counts its calls at once, and answers when it is let."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.at_once = self.most_at_once = 0

    async def __call__(self, request: DeliverRequest) -> DeliverResponse:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.is_open.wait()
        self.at_once -= 1
        return await delivered(request)


@pytest.mark.parametrize(("idempotent", "in_hand"), [(True, 39), (False, 2)])
async def test_a_target_is_called_no_more_at_once_than_it_may_be_whatever_is_claimed_ahead(
    parts: Surroundings, db: Any, valkey: ValkeyServer, idempotent: bool, in_hand: int
) -> None:
    system = parts.adapter.answer = Crowded()
    ids = [parts.intake.add() for _ in range(40)]
    async with consuming_from(parts, valkey.url, target(concurrency=2, idempotent=idempotent)) as consumer:
        reader = consumer.readers[0]
        await ring(db, ids[0])
        await eventually(lambda: parts.intake.requests[ids[0]].steps[-1:] == ["completed"])
        system.is_open.clear()
        for request_id in ids[1:]:
            await ring(db, request_id)
        await eventually(lambda: system.at_once == 2 and sum(map(len, parts.intake.claims)) - 1 == in_hand)
        assert reader.capacity.in_flight == 2
        system.is_open.set()
        await eventually(lambda: all(parts.intake.requests[one].steps[-1:] == ["completed"] for one in ids))

    assert system.most_at_once == 2
    assert len(parts.adapter.deliveries) == len(ids)
