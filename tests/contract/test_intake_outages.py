"""After an outage of intake or its database, on both databases: what workers could not report is not taken away."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from chassis.testing import TestKeys
from intake_service import scheduler
from intake_service.store import due
from intake_service.store.due import Round, take_due
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from tests.intake import IntakeUnderTest, new_request, running_intake, sending

COMPLETED = pb.INTEGRATION_REQUEST_STATUS_COMPLETED
NOT_AVAILABLE = life.CLAIM_STATUS_NOT_AVAILABLE
#: An attempt that may take 5 s; its lease lasts 20 s.
TIMEOUT_SECONDS = 5


@dataclass
class Elapsing:
    """A hub whose database and whose process see the same time pass, at a test's word."""

    hub: IntakeUnderTest
    seconds: float = 0.0

    def monotonic(self) -> float:
        """The process' own clock."""
        return time.monotonic() + self.seconds

    def let_pass(self, seconds: float) -> None:
        """Let time pass without a round."""
        self.seconds += seconds
        self.hub.clock.advance(seconds)

    async def rung(self) -> list[str]:
        """One round of the scheduler itself; gives the ids that it rings for."""
        return [request_id for _, request_id in (await self.hub.scheduler.ring_due()).rings]

    async def go_on(self, seconds: int, *, beats: bool) -> list[str]:
        """Let time pass, second by second, with rounds and with or without w1's beats; gives what was rung for."""
        rung = []
        for _ in range(seconds):
            self.let_pass(1)
            if beats:
                await self.hub.beat()
            rung += await self.rung()
        return rung


@pytest.fixture
async def elapsing(database_url: str, keys: TestKeys, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Elapsing]:
    async with running_intake(database_url, keys) as hub:
        elapsing = Elapsing(hub)
        for module in (due, scheduler):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=elapsing.monotonic))
        yield elapsing


async def posted(elapsing: Elapsing) -> life.Lease:
    """A lease whose post is announced, in a hub that has run for long."""
    await elapsing.go_on(30, beats=False)
    lease = await elapsing.hub.lease((await elapsing.hub.create()).id)
    assert await elapsing.hub.report(lease, sending=sending(TIMEOUT_SECONDS)) == "ACCEPTED"
    assert await elapsing.rung() == []
    return lease


async def test_an_outcome_heard_in_an_outage_longer_than_the_lease_is_taken_when_it_is_over(elapsing: Elapsing) -> None:
    hub, lease = elapsing.hub, await posted(elapsing)
    elapsing.let_pass(25)  # nobody reaches the database, and the lease lasts 20 s

    rung = await elapsing.go_on(15, beats=True)  # a report that hung for 10 s waits for 5 more
    (result,) = await hub.claim(lease.integration_request.id, worker="w2")
    reported = await hub.report(lease, completed=life.Completed())

    done = await hub.get(lease.integration_request.id)
    assert (rung, result.status, reported, done.status) == ([], NOT_AVAILABLE, "ACCEPTED", COMPLETED)


async def test_an_outcome_heard_while_intake_was_away_is_taken_after_its_start(elapsing: Elapsing) -> None:
    hub, lease = elapsing.hub, await hub_lease_before_a_start(elapsing)

    rung = await elapsing.go_on(15, beats=True)

    assert rung == []
    assert await hub.report(lease, completed=life.Completed()) == "ACCEPTED"


async def hub_lease_before_a_start(elapsing: Elapsing) -> life.Lease:
    """A lease that has ended when the scheduler begins its first round."""
    lease = await elapsing.hub.lease((await elapsing.hub.create()).id)
    assert await elapsing.hub.report(lease, sending=sending(TIMEOUT_SECONDS)) == "ACCEPTED"
    elapsing.let_pass(25)
    return lease


async def test_a_living_worker_that_says_nothing_after_an_outage_loses_its_lease_after_20_seconds(
    elapsing: Elapsing,
) -> None:
    lease = await posted(elapsing)
    elapsing.let_pass(25)
    await elapsing.hub.beat()

    first = await elapsing.rung()
    early = await elapsing.go_on(19, beats=True)
    late = await elapsing.go_on(1, beats=True)

    assert (first, early, late) == ([], [], [lease.integration_request.id])


async def test_after_a_crash_of_everything_the_leases_of_the_dead_are_taken_after_10_seconds(
    elapsing: Elapsing,
) -> None:
    lease = await posted(elapsing)
    elapsing.let_pass(25)

    first = await elapsing.rung()
    early = await elapsing.go_on(9, beats=False)
    late = await elapsing.go_on(1, beats=False)

    assert (first, early, late) == ([], [], [lease.integration_request.id])


async def test_leases_that_are_spared_keep_no_other_request_waiting(elapsing: Elapsing) -> None:
    hub = elapsing.hub
    await elapsing.go_on(30, beats=False)
    wanted = pb.BatchCreateIntegrationRequestsRequest(requests=[new_request(f"E-{n}") for n in range(due.BATCH)])
    created = await hub.requests.BatchCreateIntegrationRequests(wanted, metadata=hub.partner())
    await hub.claim(*(each.integration_request.id for each in created.results))
    waiting = await hub.create("waiting")
    await elapsing.rung()
    elapsing.let_pass(80)  # a lease lasts 75 s
    await hub.beat()

    found = await hub.scheduler.ring_due()

    assert (found.rings, found.is_full) == ([("TotvsProtheus", waiting.id)], False)


async def test_a_round_that_was_kept_waiting_itself_takes_no_lease(elapsing: Elapsing) -> None:
    lease = await posted(elapsing)
    stands_until = elapsing.monotonic() + scheduler.PAUSE_SECONDS
    elapsing.let_pass(25)

    late = Round(gives_up_silent=True, ends_leases=True, stands_until=stands_until)
    found = await elapsing.hub.store.write(take_due, late)

    assert found.rings == []
    assert await elapsing.hub.report(lease, completed=life.Completed()) == "ACCEPTED"
