"""A request that kills its workers, among others that are claimed beside it."""

from collections.abc import AsyncIterator

import pytest

from chassis.testing import TestKeys
from intake_service.integration_request import SUSPECT_SECONDS
from integrationhub.intake.v1 import lifecycle_pb2 as life
from tests.intake import IntakeUnderTest, running_intake


@pytest.fixture
async def hub(database_url: str, keys: TestKeys) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys) as intake:
        yield intake


async def test_a_request_that_kills_its_workers_takes_no_other_with_it(hub: IntakeUnderTest) -> None:
    killer, *others = [(await hub.create(f"E-{number}")).id for number in range(8)]

    for turn in range(100):
        worker = f"w{turn}"
        results = await hub.claim(killer, *others, worker=worker)
        leases = [result.lease for result in results if result.status == life.CLAIM_STATUS_GRANTED]
        if any(lease.integration_request.id == killer for lease in leases):
            await hub.beat(worker, leaving=True)  # as its death is seen
        else:
            for lease in leases:
                assert await hub.report(lease, worker=worker, completed=life.Completed()) == "ACCEPTED"
        hub.clock.advance(SUSPECT_SECONDS / 4)  # what may go on is claimed before the next one may

    killed = await hub.get(killer)
    assert killed.failure_reason == "poisoned"
    assert [(await hub.get(each)).failure_reason for each in others] == [""] * 7
    assert hub.metric("integration_requests_completed_total") == 7


async def test_what_has_lost_one_worker_goes_on_at_once(hub: IntakeUnderTest) -> None:
    created = [(await hub.create(f"E-{number}")).id for number in range(8)]
    await hub.claim(*created, worker="w1")
    await hub.beat("w1", leaving=True)

    results = await hub.claim(*created, worker="w2")

    assert {result.status for result in results} == {life.CLAIM_STATUS_GRANTED}
