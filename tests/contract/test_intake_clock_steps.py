"""A step of the database's clock that several intakes see, on both databases: it is made up for once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest

from chassis.clock import SECOND
from chassis.testing import TestKeys
from intake_service.store import tables
from integrationhub.intake.v1 import lifecycle_pb2 as life
from tests.intake import IntakeUnderTest, in_doubt, retry, running_intake

RETRY_SECONDS = 7200
#: What a lease has left: 60 s for the attempt and 15 s more, a second after its announcement.
LEASE_SECONDS = 74


@pytest.fixture
async def hubs(database_url: str, keys: TestKeys) -> AsyncIterator[Sequence[IntakeUnderTest]]:
    """Three intakes of one database, which have had their first round."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running_intake(database_url, keys))
        others = [await stack.enter_async_context(running_intake(database_url, keys, clock=first.clock)) for _ in "23"]
        yield [first, *others]


async def announced_and_seen(hubs: Sequence[IntakeUnderTest]) -> life.Lease:
    """A lease whose post was announced a second before every intake has had a round."""
    lease = await hubs[0].sent()
    hubs[0].clock.advance(1)
    for hub in hubs:
        await hub.scheduler.ring_due()
    return lease


async def due_in(hub: IntakeUnderTest) -> int:
    """Whole seconds until the only request is looked at next; what a test itself takes is less than one."""
    (row,) = await hub.rows(tables.integration_requests)
    left: int = row["due_at"] - hub.clock.now()
    return round(left / SECOND)


async def test_a_wait_is_brought_nearer_by_a_step_back_once_for_all_intakes(hubs: Sequence[IntakeUnderTest]) -> None:
    lease = await announced_and_seen(hubs)
    assert await hubs[0].report(lease, retry=retry(RETRY_SECONDS)) == "ACCEPTED"

    hubs[0].clock.advance(-3600)
    left = []
    for hub in hubs:
        await hub.scheduler.ring_due()
        left.append(await due_in(hub))

    assert left == [RETRY_SECONDS] * 3


async def test_a_time_that_a_step_back_changes_changes_the_version_too(hubs: Sequence[IntakeUnderTest]) -> None:
    lease = await announced_and_seen(hubs)
    await hubs[0].report(lease, retry=retry(RETRY_SECONDS))
    before = await hubs[0].get(lease.integration_request.id)

    hubs[0].clock.advance(-3600)
    for hub in hubs:
        await hub.scheduler.ring_due()
    after = await hubs[0].get(lease.integration_request.id)

    assert after.next_attempt_at.ToSeconds() < before.next_attempt_at.ToSeconds()
    assert after.version > before.version


async def test_a_lease_is_kept_over_a_step_forward_once_for_all_intakes(hubs: Sequence[IntakeUnderTest]) -> None:
    await announced_and_seen(hubs)

    hubs[0].clock.advance(600)
    left = []
    for hub in hubs:
        await hub.scheduler.ring_due()
        left.append(await due_in(hub))

    assert left == [LEASE_SECONDS] * 3


async def test_of_intakes_that_see_a_step_at_once_one_makes_up_for_it(hubs: Sequence[IntakeUnderTest]) -> None:
    await announced_and_seen(hubs)

    hubs[0].clock.advance(600)
    await asyncio.gather(*(hub.scheduler.ring_due() for hub in hubs))

    assert await due_in(hubs[0]) == LEASE_SECONDS


async def test_each_step_is_made_up_for_whichever_intake_sees_it_first(hubs: Sequence[IntakeUnderTest]) -> None:
    await announced_and_seen(hubs)

    left = []
    for seconds, order in ((600, hubs), (600, hubs[::-1]), (3600, hubs[1:])):
        hubs[0].clock.advance(seconds)
        for hub in order:
            await hub.scheduler.ring_due()
        left.append(await due_in(hubs[0]))

    assert left == [LEASE_SECONDS] * 3


async def test_a_step_and_its_correction_leave_a_doubts_lookup_where_it_was(hubs: Sequence[IntakeUnderTest]) -> None:
    lease = await announced_and_seen(hubs)
    hubs[0].clock.advance(600)
    for hub in hubs:
        await hub.scheduler.ring_due()
    assert await hubs[0].report(lease, in_doubt=in_doubt(30)) == "ACCEPTED"

    hubs[0].clock.advance(-600)
    for hub in hubs:
        await hub.scheduler.ring_due()

    assert await due_in(hubs[0]) == 30


async def test_what_marks_a_step_is_no_worker(hubs: Sequence[IntakeUnderTest]) -> None:
    await announced_and_seen(hubs)
    hubs[0].clock.advance(600)
    await hubs[0].scheduler.ring_due()

    beaten = await hubs[0].beat()

    assert (beaten.live_workers, beaten.worker_index) == (1, 0)
