"""Posts that are announced with their claim, where no schema is there to check: a word less to intake, same fences."""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest

from chassis.errors import StorageUnavailable
from chassis.streams import work_stream
from chassis.testing import eventually
from integrationhub.adapter.v1 import adapter_pb2
from integrationhub.adapter.v1.adapter_pb2 import DeliverResponse
from orchestrator_service import consumer
from orchestrator_service.consumer import Consumer
from orchestrator_service.mapping import announcement_of
from orchestrator_service.process import ANNOUNCEMENT_SECONDS, Origin
from orchestrator_service.validation import PayloadSchema
from tests.orchestrator_fakes import (
    Gate,
    Surroundings,
    always,
    capacity_for,
    consuming_from,
    target,
)
from tests.servers import ValkeyServer

ERP = target()
UNKNOWN = DeliverResponse(outcome=adapter_pb2.OUTCOME_UNKNOWN, detail="reset")
Consuming = Callable[..., AbstractAsyncContextManager[Consumer]]


@pytest.fixture
def consuming(parts: Surroundings, valkey: ValkeyServer) -> Consuming:
    """Run a worker with periods that suit a test; its pending entries are swept at once."""
    return partial(consuming_from, parts, valkey.url, sweep_seconds=0.2)


async def ring(db: Any, request_id: str) -> None:
    await db.xadd(work_stream("Erp"), {"id": request_id})


async def test_a_post_with_nothing_to_check_needs_one_report(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    request_id = parts.intake.add()
    async with consuming():
        await ring(db, request_id)
        await eventually(lambda: parts.intake.requests[request_id].is_terminal)

    request = parts.intake.requests[request_id]
    assert (request.steps, parts.intake.batches) == (["sending", "completed"], [1])
    assert request.reports[0].sending.timeout.ToSeconds() == ERP.timeout_seconds
    assert [delivery.attempt for delivery in parts.adapter.deliveries] == [1]


async def test_a_post_of_a_source_with_a_schema_is_announced_after_the_check(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    checked = target(schemas={"SAP": "order.json"})
    schema = PayloadSchema({"type": "object", "required": ["orderId"]})
    processor = parts.processor(checked, schemas={("Erp", "SAP"): schema})
    good, bad = parts.intake.add(), parts.intake.add(payload_json="{}")
    async with consuming(checked, processor=processor):
        await ring(db, good)
        await ring(db, bad)
        await eventually(lambda: all(parts.intake.requests[each].is_terminal for each in (good, bad)))

    assert [parts.intake.requests[each].steps for each in (good, bad)] == [["sending", "completed"], ["failed"]]
    assert [len(parts.adapter.deliveries), sum(parts.intake.batches)] == [1, 3]


async def test_what_was_announced_in_an_answer_that_got_lost_is_taken_back_and_posted_once(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    parts.intake.loses_next_answer = StorageUnavailable("The answer is lost.")
    request_id = parts.intake.add()
    async with consuming():
        await ring(db, request_id)
        await eventually(lambda: parts.intake.requests[request_id].steps == ["sending", "release"])
        handed_back = parts.intake.requests[request_id].reports[1].release
        await ring(db, request_id)  # as intake does for what was handed back
        await eventually(lambda: parts.intake.requests[request_id].is_terminal)

    assert (handed_back.not_sent, handed_back.still_in_doubt) == (True, False)
    assert [delivery.attempt for delivery in parts.adapter.deliveries] == [1]
    assert parts.adapter.lookups == []


async def test_what_an_earlier_claim_still_holds_is_claimed_again_and_its_post_taken_back(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    parts.intake.loses_next_answer = StorageUnavailable("The answer is lost.")
    request_id = parts.intake.add()
    request = parts.intake.requests[request_id]
    async with consuming():
        await ring(db, request_id)
        await eventually(lambda: request.steps == ["sending"])
        parts.intake.busy.add(request_id)  # and its commit hangs
        asked = len(parts.intake.claims)
        await eventually(lambda: len(parts.intake.claims) >= asked + 2)
        parts.intake.busy.clear()
        await eventually(lambda: request.steps == ["sending", "release"])

    assert parts.adapter.deliveries == []


async def test_what_is_busy_does_not_starve_the_others_of_its_target(
    parts: Surroundings, db: Any, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "BUSY_SECONDS", 0.3)
    busy, other = parts.intake.add(), parts.intake.add()
    parts.intake.busy.add(busy)
    async with consuming_from(parts, valkey.url, target(concurrency=1)):
        await ring(db, busy)
        await eventually(lambda: len(parts.intake.claims) == 2)  # it was swept up as often as there is room
        await ring(db, other)
        await eventually(lambda: parts.intake.requests[other].is_terminal)

        assert len(parts.intake.claims) <= 5


async def test_a_post_whose_outcome_was_refused_is_looked_up_and_not_taken_back(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    parts.adapter.answer = gate = Gate(UNKNOWN)
    request_id = parts.intake.add()
    request = parts.intake.requests[request_id]
    async with consuming():
        await ring(db, request_id)
        await eventually(lambda: parts.adapter.deliveries)
        # a claim of this worker that was long on its way arrives now: its token makes the report stale
        request.lease.token += 1
        request.sent_token = request.lease.token
        gate.is_open.set()
        await eventually(lambda: parts.intake.batches)
        await ring(db, request_id)
        await eventually(lambda: request.is_terminal)

    assert request.steps == ["sending", "completed"]
    assert (len(parts.adapter.deliveries), len(parts.adapter.lookups)) == (1, 1)


async def test_a_post_of_another_worker_in_doubt_is_looked_up(
    parts: Surroundings, db: Any, consuming: Consuming
) -> None:
    request_id = parts.intake.in_doubt(seconds_ago=60)
    async with consuming():
        await ring(db, request_id)
        await eventually(lambda: parts.intake.requests[request_id].is_terminal)

    assert (len(parts.adapter.deliveries), len(parts.adapter.lookups)) == (0, 1)


@pytest.mark.parametrize(
    ("seconds_ago", "step", "posts"), [(0, "completed", 1), (ANNOUNCEMENT_SECONDS + 0.1, "release", 0)]
)
async def test_an_announcement_that_was_asked_for_too_long_ago_is_taken_back(
    parts: Surroundings, seconds_ago: float, step: str, posts: int
) -> None:
    request_id = parts.intake.add()
    [result] = (await parts.intake_client.claim([request_id], announcement_of(ERP))).results
    [place] = capacity_for(ERP).take(1)

    origin = Origin(begun_at=time.monotonic() - seconds_ago)
    await parts.processor(ERP).process(result.lease, place, ERP, origin)

    request = parts.intake.requests[request_id]
    assert (request.steps, len(parts.adapter.deliveries)) == (["sending", step], posts)
    assert request.reports[1].release.not_sent is (step == "release")


async def test_what_was_announced_and_read_in_another_targets_stream_is_taken_back(parts: Surroundings) -> None:
    other = target("Other")
    request_id = parts.intake.add()
    # as when both readers' claims travel together
    [result] = (await parts.intake_client.claim([request_id], announcement_of(ERP))).results
    [place] = capacity_for(other).take(1)

    await parts.processor(other).process(result.lease, place, other, Origin(begun_at=time.monotonic()))

    request = parts.intake.requests[request_id]
    assert (request.steps, parts.adapter.deliveries) == (["sending", "release"], [])
    assert (request.lease.in_doubt, request.lease.integration_request.attempts) == (False, 0)


async def test_each_retry_is_announced_with_its_claim(parts: Surroundings, db: Any, consuming: Consuming) -> None:
    parts.adapter.answer = always(DeliverResponse(outcome=adapter_pb2.OUTCOME_UNAVAILABLE, detail="503"))
    request_id = parts.intake.add()
    async with consuming():
        await ring(db, request_id)
        await eventually(lambda: len(parts.intake.requests[request_id].steps) == 2)
        await ring(db, request_id)
        await eventually(lambda: len(parts.intake.requests[request_id].steps) == 4)

    assert parts.intake.requests[request_id].steps == ["sending", "retry"] * 2
    assert [delivery.attempt for delivery in parts.adapter.deliveries] == [1, 2]


@pytest.mark.parametrize(("says_how_long", "step", "posts"), [(True, "completed", 1), (False, "release", 0)])
async def test_the_time_that_a_crowd_kept_a_claim_waiting_is_not_the_announcements(
    parts: Surroundings, db: Any, consuming: Consuming, says_how_long: bool, step: str, posts: int
) -> None:
    parts.intake.crowded_seconds, parts.intake.says_how_long = 1.0, says_how_long
    request_id = parts.intake.add()
    processor = parts.processor(ERP, announcement_seconds=0.9)
    async with consuming(ERP, processor=processor):
        await ring(db, request_id)
        await eventually(lambda: len(parts.intake.requests[request_id].steps) == 2)

    assert parts.intake.requests[request_id].steps == ["sending", step]
    assert len(parts.adapter.deliveries) == posts
