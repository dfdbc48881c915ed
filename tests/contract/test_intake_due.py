"""What is due, on both databases: rings and their pauses, lost leases, expiry, and what a lost Redis makes due."""

import asyncio
import time
from collections.abc import AsyncIterator

import psycopg
import pytest
from structlog.testing import capture_logs

from chassis.clock import SECOND, from_timestamp
from chassis.testing import TestKeys, eventually
from intake_service.store import due, tables
from intake_service.store.due import Round, take_due
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from tests.intake import TTL_SECONDS, IntakeUnderTest, in_doubt, release, retry, running_intake, sending
from tests.servers import waits_for_a_lock

GRANTED = life.CLAIM_STATUS_GRANTED


@pytest.fixture
async def hub(database_url: str, keys: TestKeys) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys) as intake:
        yield intake


async def rung(hub: IntakeUnderTest) -> list[str]:
    """One round of the scheduler; gives the ids that it rings for."""
    return [request_id for _, request_id in (await hub.due()).rings]


async def due_in(hub: IntakeUnderTest) -> float | None:
    """Seconds until the only request is looked at next."""
    (row,) = await hub.rows(tables.integration_requests)
    return None if row["due_at"] is None else (row["due_at"] - hub.clock.now()) / SECOND


async def test_a_request_that_nobody_claims_is_rung_again_and_again_ever_more_rarely(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    pauses = []
    for _ in range(9):
        pauses.append(await due_in(hub))
        hub.clock.advance((pauses[-1] or 0) - 0.001)
        assert await rung(hub) == []
        hub.clock.advance(0.001)
        assert await rung(hub) == [created.id]

    # the first ring is the creation's own; then 15 s doubling up to 10 min
    assert pauses == [15, 15, 30, 60, 120, 240, 480, 600, 600]


async def test_a_ring_names_the_target(hub: IntakeUnderTest) -> None:
    created = await hub.create(target_system="SAP")
    hub.clock.advance(15)

    assert (await hub.due()).rings == [("SAP", created.id)]


async def test_a_claim_begins_the_pauses_anew(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    for _ in range(4):
        hub.clock.advance(await due_in(hub) or 0)
        await hub.due()
    lease = await hub.lease(created.id)
    await hub.report(lease, release=release(0))
    await rung(hub)

    assert await due_in(hub) == 15


async def test_a_retry_is_rung_when_it_is_due(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()
    await hub.report(lease, retry=retry(4))
    early = await rung(hub)
    hub.clock.advance(4)

    assert (early, await rung(hub)) == ([], [lease.integration_request.id])


async def test_an_ended_request_is_never_due(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()
    await hub.report(lease, completed=life.Completed())
    hub.clock.advance(3 * TTL_SECONDS)

    assert await due_in(hub) is None
    assert await rung(hub) == []


async def test_the_leases_of_a_silent_worker_are_due_after_15_seconds(hub: IntakeUnderTest) -> None:
    lease = await hub.lease((await hub.create()).id)
    hub.clock.advance(14.999)
    early = await rung(hub)
    hub.clock.advance(0.001)
    late = await rung(hub)

    (result,) = await hub.claim(lease.integration_request.id, worker="w2")

    assert (early, late) == ([], [lease.integration_request.id])
    assert (result.status, result.lease.token) == (GRANTED, 2)
    assert (await hub.history(lease.integration_request.id))[-1].outcome == "lease_lost"


async def test_a_worker_that_beats_keeps_its_lease(hub: IntakeUnderTest) -> None:
    lease = await hub.lease((await hub.create()).id)
    for _ in range(6):
        hub.clock.advance(10)
        await hub.beat()
        assert await rung(hub) == []

    assert await hub.report(lease, sending=sending()) == "ACCEPTED"


async def test_silent_workers_are_spared_after_a_pause_of_the_hub_itself(hub: IntakeUnderTest) -> None:
    lease = await hub.lease((await hub.create()).id)
    hub.clock.advance(60)

    found = await hub.store.write(take_due, Round(gives_up_silent=False, ends_leases=False))

    assert found.rings == []
    assert await hub.report(lease, sending=sending()) == "ACCEPTED"


async def test_a_step_of_the_clock_takes_no_lease_and_makes_no_proof(hub: IntakeUnderTest) -> None:
    lease = await hub.sent("E-1")
    silent = await hub.sent("E-2", worker="silent")
    hub.clock.advance(10)
    await hub.beat("w1")
    hub.clock.advance(7)
    before = hub.clock.now()
    hub.clock.advance(3600)  # at once: no time has passed for anybody else

    step = Round(gives_up_silent=True, ends_leases=True, last_at=before, last_monotonic=time.monotonic())
    found = await hub.store.write(take_due, step)
    doubt = await hub.report(lease, in_doubt=in_doubt(0))
    again = await hub.lease(lease.integration_request.id, "w2")

    assert [request_id for _, request_id in found.rings] == [silent.integration_request.id]  # 17 s without a beat
    assert doubt == "ACCEPTED"
    # 17 s after the post, as before the step: an "absent" proves nothing yet
    assert abs(from_timestamp(again.claimed_at) - from_timestamp(again.sent_at) - 17 * SECOND) < SECOND


async def test_the_scheduler_notices_a_step_of_the_clock(hub: IntakeUnderTest) -> None:
    lease = await hub.sent("E-1")
    await hub.scheduler.ring_due()
    hub.clock.advance(3600)
    with capture_logs() as lines:
        found = await hub.scheduler.ring_due()

    assert found.rings == []
    assert await hub.report(lease, in_doubt=in_doubt(0)) == "ACCEPTED"
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["The database's clock was set"]


async def test_nothing_waits_for_a_clock_that_was_set_back(hub: IntakeUnderTest) -> None:
    waiting, dead = await hub.sent("E-1"), await hub.sent("E-2", worker="dead")
    await hub.report(waiting, retry=retry(4))
    hub.clock.advance(1)
    await hub.scheduler.ring_due()
    hub.clock.advance(-3600)
    at_once = (await hub.scheduler.ring_due()).rings
    hub.clock.advance(4)
    soon = await rung(hub)
    hub.clock.advance(11)
    await hub.beat("w1")
    lost = await rung(hub)

    assert at_once == []
    assert soon == [waiting.integration_request.id]
    assert dead.integration_request.id in lost


async def test_time_that_has_passed_is_no_step(hub: IntakeUnderTest) -> None:
    lease = await hub.sent("E-1")
    before = hub.clock.now()
    hub.clock.advance(3600)

    an_hour = Round(gives_up_silent=True, ends_leases=True, last_at=before, last_monotonic=time.monotonic() - 3600)
    found = await hub.store.write(take_due, an_hour)

    assert [request_id for _, request_id in found.rings] == [lease.integration_request.id]


async def test_a_lease_ends_75_seconds_after_the_claim_though_its_worker_lives(hub: IntakeUnderTest) -> None:
    lease = await hub.lease((await hub.create()).id)
    for _ in range(15):
        hub.clock.advance(5)
        await hub.beat()

    assert await rung(hub) == [lease.integration_request.id]
    assert await due_in(hub) == 15  # the ring may get lost, too


async def test_a_lease_lasts_15_seconds_longer_than_the_attempt_may_take(hub: IntakeUnderTest) -> None:
    lease = await hub.lease((await hub.create()).id)
    await hub.report(lease, sending=sending(300))

    assert await due_in(hub) == 315


async def test_a_request_nobody_could_deliver_ends_as_expired(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    hub.clock.advance(TTL_SECONDS - 1)
    await hub.due()
    before, until = await hub.get(created.id), await due_in(hub)
    hub.clock.advance(1)

    found = await hub.due()

    done = await hub.get(created.id)
    assert (before.status, until) == (pb.INTEGRATION_REQUEST_STATUS_RECEIVED, 1)
    assert (done.status, done.failure_reason) == (pb.INTEGRATION_REQUEST_STATUS_FAILED, "expired")
    assert found.rings == []
    (row,) = found.outbox
    assert [event.type for event in row.events] == ["IntegrationRequestFailed", "IntegrationRequestDeadLettered"]
    assert [row["reason"] for row in await hub.rows(tables.dead_letters)] == ["expired"]
    assert (await hub.history(created.id))[-1].actor == "scheduler"
    assert hub.metric("integration_requests_failed_total", reason="expired") == 1


async def test_a_wait_never_outlasts_the_expiry(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()
    hub.clock.advance(TTL_SECONDS - 100)
    await hub.report(lease, retry=retry(43_200))

    assert await due_in(hub) == 100


async def test_a_leased_request_is_not_expired_under_its_worker(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    hub.clock.advance(TTL_SECONDS - 1)
    lease = await hub.lease(created.id)
    hub.clock.advance(10)
    await hub.due()

    assert await hub.report(lease, sending=sending()) == "ACCEPTED"


async def test_an_expired_request_in_doubt_is_looked_up_first_and_given_up_only_much_later(
    hub: IntakeUnderTest,
) -> None:
    lease = await hub.sent()
    request_id = lease.integration_request.id
    await hub.report(lease, in_doubt=in_doubt(30))
    hub.clock.advance(TTL_SECONDS)

    first = await rung(hub)
    hub.clock.advance(TTL_SECONDS)
    second = await rung(hub)

    done = await hub.get(request_id)
    (row,) = await hub.rows(tables.integration_requests)
    assert (first, second) == ([request_id], [])
    assert (done.failure_reason, row["in_doubt"]) == ("expired", True)


async def test_everything_that_waits_is_due_when_redis_has_lost_its_memory(hub: IntakeUnderTest) -> None:
    waiting = await hub.create("E-1")
    claimed = await hub.lease((await hub.create("E-2")).id)
    promised = await hub.sent("E-3")
    await hub.report(promised, retry=retry(8))
    await hub.cancel((await hub.create("E-4")).id)

    made = await hub.store.write(due.everything_due_now, None)

    assert made.rows == 1
    assert await rung(hub) == [waiting.id]
    hub.clock.advance(8)
    assert await rung(hub) == [promised.integration_request.id]
    assert await hub.report(claimed, sending=sending()) == "ACCEPTED"


async def test_everything_is_made_due_in_parts_that_no_statement_is_too_long_for(
    hub: IntakeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "MOST_MADE_DUE", 10)
    created = {(await hub.create(f"E-{number}")).id for number in range(25)}

    parts = [await hub.store.write(due.everything_due_now, None) for _ in range(4)]

    assert parts == [(10, True), (10, True), (5, False), (0, False)]
    assert set(await rung(hub)) == created


async def test_a_round_takes_500_and_says_that_there_may_be_more(hub: IntakeUnderTest) -> None:
    for start in (0, 600):
        wanted = [
            pb.CreateIntegrationRequestRequest(
                external_id=f"E-{number}", source_system="SAP", target_system="SAP", payload_json="{}"
            )
            for number in range(start, start + 600)
        ]
        await hub.requests.BatchCreateIntegrationRequests(
            pb.BatchCreateIntegrationRequestsRequest(requests=wanted), metadata=hub.partner()
        )
    hub.clock.advance(15)

    rounds = [await hub.due() for _ in range(4)]

    assert [(len(found.rings), found.is_full) for found in rounds] == [
        (500, True),
        (500, True),
        (200, False),
        (0, False),
    ]


async def test_two_schedulers_at_once_ring_for_everything(hub: IntakeUnderTest) -> None:
    created = [await hub.create(f"E-{number}") for number in range(40)]
    hub.clock.advance(15)

    rounds = await asyncio.gather(*(hub.due() for _ in range(6)))

    ids = [request_id for found in rounds for _, request_id in found.rings]
    assert sorted(ids) == sorted(each.id for each in created)


@pytest.mark.parametrize("is_after_step_back", [False, True])
async def test_a_row_that_moves_while_others_are_brought_nearer_is_left_as_it_moved(
    postgres_url: str, keys: TestKeys, monkeypatch: pytest.MonkeyPatch, is_after_step_back: bool
) -> None:
    monkeypatch.setattr(due, "MOST_MADE_DUE", 3)
    ends_at = 4_000_000_000 * SECOND
    async with running_intake(postgres_url, keys) as hub:
        ended, claimed, waiting = [(await hub.create(name)).id for name in ("ended", "claimed", "waiting")]
        then = hub.clock.now()
        hub.clock.advance(-3600 if is_after_step_back else 0)
        a_round = Round(gives_up_silent=False, ends_leases=False, last_at=then, last_monotonic=time.monotonic())
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            await other.execute("UPDATE integration_requests SET due_at = NULL WHERE id = %s", [ended])
            await other.execute(
                "UPDATE integration_requests SET leased_by = 'w9', due_at = %s WHERE id = %s", [ends_at, claimed]
            )
            moving = asyncio.create_task(
                hub.store.write(take_due, a_round)
                if is_after_step_back
                else hub.store.write(due.everything_due_now, None)
            )
            await eventually(lambda: waits_for_a_lock(other))
            await other.commit()
        made = await moving
        due_at = {row["id"]: row["due_at"] for row in await hub.rows(tables.integration_requests)}

    assert (due_at[ended], due_at[claimed]) == (None, ends_at)
    assert due_at[waiting] <= hub.clock.now() + 15 * SECOND
    assert is_after_step_back or made == (1, True)  # as many were looked at: there may be more
