"""Acceptance goes first, on both databases: a crowd of creates keeps claims waiting, and no longer than it may."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import pytest

from chassis.testing import TestKeys, eventually
from intake_service.door import CROWD, SECONDS_PER_CLAIM
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from tests.intake import IntakeUnderTest, new_request, running_intake

GRANTED = life.CLAIM_STATUS_GRANTED


@pytest.fixture
async def hub(database_url: str, keys: TestKeys) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys, maximum=100_000, maximum_per_partner=100_000) as intake:
        yield intake


async def test_claims_wait_while_a_crowd_of_creates_is_accepted_and_then_go_on(hub: IntakeUnderTest) -> None:
    is_over = asyncio.Event()
    claimed = 150

    async def crowd(name: str) -> None:
        batches = count()
        while not is_over.is_set():
            batch = next(batches)
            await hub.requests.BatchCreateIntegrationRequests(
                pb.BatchCreateIntegrationRequestsRequest(
                    requests=[new_request(f"{name}-{batch}-{each}") for each in range(CROWD)]
                ),
                metadata=hub.partner(),
            )

    ids = [(await hub.create(f"waits-{each}")).id for each in range(claimed)]
    coming = [asyncio.create_task(crowd(name)) for name in ("a", "b")]
    await eventually(lambda: hub.metric("integration_requests_received_total") > claimed)
    loop = asyncio.get_running_loop()
    before = loop.time()
    results = await hub.claim(*ids)
    waited = loop.time() - before
    is_over.set()
    await asyncio.gather(*coming)

    assert {result.status for result in results} == {GRANTED}
    assert waited >= claimed * SECONDS_PER_CLAIM
