"""Posts announced in the commit of their claim, on both databases: what they record, and when they are not."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import psycopg
import pytest
from structlog.testing import capture_logs

from chassis.clock import SECOND
from chassis.testing import TestKeys, eventually
from intake_service.store import tables
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from tests.intake import TTL_SECONDS, IntakeUnderTest, release, retry, running_intake, sending
from tests.servers import waits_for_a_lock

RECEIVED, PROCESSING = pb.INTEGRATION_REQUEST_STATUS_RECEIVED, pb.INTEGRATION_REQUEST_STATUS_PROCESSING
WAITING = pb.INTEGRATION_REQUEST_STATUS_WAITING_EXTERNAL


@pytest.fixture
async def hub(database_url: str, keys: TestKeys) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys) as intake:
        yield intake


async def announced_lease(hub: IntakeUnderTest, request_id: str, worker: str = "w1", **changes: Any) -> life.Lease:
    """Claim one request and announce its post."""
    usual: dict[str, Any] = {"target_system": "TotvsProtheus", "timeout": sending().timeout}
    announcement = life.Announcement(**{**usual, "checked_sources": ["Portal"], **changes})
    wanted = life.ClaimRequest(worker_id=worker, integration_request_ids=[request_id], announcements=[announcement])
    (result,) = (await hub.lifecycle.Claim(wanted, metadata=hub.worker)).results
    assert result.status == life.CLAIM_STATUS_GRANTED, life.ClaimStatus.Name(result.status)
    return result.lease


async def test_the_post_is_announced_in_the_commit_of_its_claim(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    hub.clock.advance(3)

    lease = await announced_lease(hub, created.id)

    assert (lease.token, lease.announced, lease.in_doubt, lease.own_doubt) == (1, True, False, False)
    assert (lease.integration_request.status, lease.integration_request.attempts) == (WAITING, 1)
    assert lease.sent_at.ToMicroseconds() == hub.clock.now()
    [row] = await hub.rows(tables.integration_requests)
    assert (row["status"], row["attempts"], row["in_doubt"], row["sent_token"]) == ("WaitingExternal", 1, True, 1)
    assert row["due_at"] == hub.clock.now() + 75 * SECOND  # the attempt's time-out and the margin


async def test_both_moves_are_on_record_told_and_logged(hub: IntakeUnderTest) -> None:
    with capture_logs() as lines:
        created = await hub.create()
        await announced_lease(hub, created.id)

    story = [(entry.from_status, entry.to_status) for entry in await hub.history(created.id)]
    assert story[1:] == [(RECEIVED, PROCESSING), (PROCESSING, WAITING)]
    types = [event.type for event in await hub.unpublished()]
    assert types == ["IntegrationRequestCreated"] + ["IntegrationRequestStatusChanged"] * 2
    moves = [(line["old_status"], line["new_status"]) for line in lines if line["event"] == "Status updated"]
    assert moves == [("Received", "Processing"), ("Processing", "WaitingExternal")]


async def test_an_announced_post_is_in_doubt_for_the_next_worker(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    await announced_lease(hub, created.id)
    await hub.beat("w1", leaving=True)

    again = await announced_lease(hub, created.id, "w2")

    assert (again.announced, again.in_doubt, again.own_doubt) == (False, True, False)
    assert again.integration_request.attempts == 1


async def test_what_is_checked_first_is_claimed_only(hub: IntakeUnderTest) -> None:
    created = await hub.create()

    lease = await announced_lease(hub, created.id, checked_sources=["Portal", "SAP"])

    assert (lease.announced, lease.integration_request.status) == (False, PROCESSING)
    assert await hub.report(lease, sending=sending()) == "ACCEPTED"


async def test_an_announcement_for_another_target_says_nothing(hub: IntakeUnderTest) -> None:
    created = await hub.create()

    lease = await announced_lease(hub, created.id, target_system="Other")

    assert (lease.announced, lease.integration_request.status) == (False, PROCESSING)


async def test_a_request_whose_time_is_over_is_not_announced(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    hub.clock.advance(TTL_SECONDS)

    lease = await announced_lease(hub, created.id)

    assert (lease.announced, lease.integration_request.attempts) == (False, 0)


async def test_a_retry_is_announced_with_its_claim(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    lease = await announced_lease(hub, created.id)
    await hub.report(lease, retry=retry(2))
    hub.clock.advance(2)

    again = await announced_lease(hub, created.id)

    assert (again.announced, again.in_doubt) == (True, False)
    assert (again.integration_request.attempts, again.integration_request.status) == (2, WAITING)
    assert len(await hub.history(created.id)) == 3  # a retry is no move


async def test_a_worker_that_lost_the_answer_finds_its_own_doubt_and_takes_the_post_back(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    await announced_lease(hub, created.id)

    second = await announced_lease(hub, created.id)
    taken_back = await hub.report(second, release=release(not_sent=True))
    third = await announced_lease(hub, created.id)

    assert (second.announced, second.in_doubt, second.own_doubt) == (False, True, True)
    assert taken_back == "ACCEPTED"
    assert (third.announced, third.in_doubt, third.integration_request.attempts) == (True, False, 1)


async def test_a_worker_that_lost_two_answers_finds_a_doubt_that_only_a_lookup_settles(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    await announced_lease(hub, created.id)
    await announced_lease(hub, created.id)

    third = await announced_lease(hub, created.id)

    assert (third.in_doubt, third.own_doubt) == (True, False)


async def test_a_claim_that_is_repeated_while_the_first_is_being_committed_is_told_to_ask_again(
    postgres_url: str, keys: TestKeys
) -> None:
    async with (
        running_intake(postgres_url, keys) as hub,
        await psycopg.AsyncConnection.connect(postgres_url) as other,
    ):
        created = await hub.create()
        await other.execute("LOCK TABLE integration_request_history IN SHARE MODE")  # what is written there waits
        first = asyncio.create_task(announced_lease(hub, created.id))
        await eventually(lambda: waits_for_a_lock(other))
        first.cancel()  # its worker's patience is over
        (second,) = await hub.claim(created.id)
        (rival,) = await hub.claim(created.id, worker="w2")
        await other.commit()
        await eventually(lambda: is_leased(hub))
        third = await announced_lease(hub, created.id)

    assert (second.status, rival.status) == (life.CLAIM_STATUS_BUSY, life.CLAIM_STATUS_BUSY)
    assert (third.token, third.own_doubt, third.announced) == (2, True, False)


async def is_leased(hub: IntakeUnderTest) -> bool:
    """Whether the only request is held by a worker."""
    [row] = await hub.rows(tables.integration_requests)
    return row["leased_by"] is not None


async def test_a_doubt_that_was_handed_back_is_nobodys_own(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    lease = await announced_lease(hub, created.id)
    await hub.report(lease, in_doubt=life.InDoubt())

    again = await announced_lease(hub, created.id)

    assert (again.in_doubt, again.own_doubt, again.announced) == (True, False, False)


async def test_a_time_out_that_is_no_time_is_refused(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    timeout = sending().timeout
    timeout.seconds = 2**62

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await announced_lease(hub, created.id, timeout=timeout)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
