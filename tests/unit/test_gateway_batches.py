"""How the gateway cuts its creates into batches: whatever it sends is within what intake reads."""

import asyncio
from typing import Any

import pytest

from chassis.message_fields import has_few_fields
from chassis.telemetry import Telemetry
from gateway.intake_client import IntakeClient
from integrationhub.intake.v1.intake_pb2 import (
    BatchCreateIntegrationRequestsRequest,
    BatchCreateIntegrationRequestsResponse,
    BatchCreateResult,
    CreateIntegrationRequestRequest,
    IntegrationRequest,
    PartnerLimits,
    SystemNames,
)


class RememberingRpc:
    """Answers every create, and keeps what it was sent."""

    channel: Any = None

    def __init__(self) -> None:
        self.batches: list[BatchCreateIntegrationRequestsRequest] = []

    async def reachable(self, *, timeout_seconds: float) -> bool:
        del timeout_seconds
        return True

    async def unary(
        self, _: Any, batch: BatchCreateIntegrationRequestsRequest
    ) -> BatchCreateIntegrationRequestsResponse:
        self.batches.append(batch)
        result = BatchCreateResult(integration_request=IntegrationRequest(id="r-1"))
        return BatchCreateIntegrationRequestsResponse(results=[result] * len(batch.requests))


@pytest.fixture
def rpc(monkeypatch: pytest.MonkeyPatch) -> RememberingRpc:
    class Stub:
        BatchCreateIntegrationRequests = None

        def __init__(self, _: Any) -> None: ...

    monkeypatch.setattr("gateway.intake_client.IntakeServiceStub", Stub)
    return RememberingRpc()


async def test_creates_by_tokens_for_hundreds_of_systems_travel_in_batches_that_intake_reads(
    rpc: RememberingRpc,
) -> None:
    client: Any = rpc
    intake = IntakeClient(client, Telemetry("gateway"), timeout_seconds=30)
    names = SystemNames(names=[f"S{number}" for number in range(200)])
    create = CreateIntegrationRequestRequest(
        partner_id="acme",
        external_id="E",
        payload_json="x" * 600,
        partner_limits=PartnerLimits(sources=names, targets=names),
    )

    answers = await asyncio.gather(*(intake.create(create) for _ in range(1000)))

    assert len(answers) == sum(len(batch.requests) for batch in rpc.batches) == 1000
    assert all(has_few_fields(batch.SerializeToString(), batch.DESCRIPTOR) for batch in rpc.batches)
