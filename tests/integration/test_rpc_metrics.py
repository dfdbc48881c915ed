"""A gRPC server measures every call under the code that it ended with, however it ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from chassis.access import REQUESTS_READ, REQUESTS_WRITE
from chassis.errors import NotFound
from chassis.rpc import RpcServer, Servicer, stages
from chassis.telemetry import Telemetry
from chassis.testing import TestKeys, eventually, free_port
from chassis.tokens import JwksSource, TokenVerifier
from integrationhub.intake.v1 import intake_pb2, intake_pb2_grpc

SERVICE = "integrationhub.intake.v1.IntakeService"


class Intake:
    """Answers, refuses, breaks or hangs, by the method that is called."""

    async def ListIntegrationRequests(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        del request, context
        return intake_pb2.ListIntegrationRequestsResponse()

    async def GetIntegrationRequest(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        del request, context
        raise NotFound("id-1")

    async def CancelIntegrationRequest(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        del request, context
        raise ValueError

    async def CreateIntegrationRequest(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        del request, context
        await asyncio.Event().wait()

    BatchCreateIntegrationRequests = ListIntegrationRequestHistory = ListIntegrationRequests


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry("intake")


@pytest.fixture
async def stub(telemetry: Telemetry, keys: TestKeys) -> AsyncIterator[Any]:
    verifier = TokenVerifier(JwksSource(str(keys.jwks)), issuer="integration-hub", audience="integration-hub")
    served = Servicer(name=SERVICE, implementation=Intake(), add=intake_pb2_grpc.add_IntakeServiceServicer_to_server)
    address = f"127.0.0.1:{free_port()}"
    server = RpcServer(address, [served], stages(telemetry, verifier), grace_seconds=0.1)
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield intake_pb2_grpc.IntakeServiceStub(channel)
    await server.stop()


def counted(telemetry: Telemetry) -> dict[tuple[str, str], float]:
    """The calls by method and code."""
    (family,) = (each for each in telemetry.registry.collect() if each.name == "rpc_duration_ms")
    return {
        (sample.labels["method"].removeprefix(f"/{SERVICE}/"), sample.labels["code"]): sample.value
        for sample in family.samples
        if sample.name.endswith("_count")
    }


async def test_a_call_is_counted_under_the_code_it_ended_with(telemetry: Telemetry, stub: Any, keys: TestKeys) -> None:
    mine = (("authorization", keys.header("acme", REQUESTS_READ, REQUESTS_WRITE)["Authorization"]),)

    await stub.ListIntegrationRequests(intake_pb2.ListIntegrationRequestsRequest(), metadata=mine, timeout=5)
    with suppress(grpc.aio.AioRpcError):
        await stub.ListIntegrationRequests(intake_pb2.ListIntegrationRequestsRequest(), timeout=5)
    with suppress(grpc.aio.AioRpcError):
        await stub.GetIntegrationRequest(intake_pb2.GetIntegrationRequestRequest(), metadata=mine, timeout=5)
    with suppress(grpc.aio.AioRpcError):
        await stub.CancelIntegrationRequest(intake_pb2.CancelIntegrationRequestRequest(), metadata=mine, timeout=5)
    with suppress(grpc.aio.AioRpcError):
        await stub.CreateIntegrationRequest(intake_pb2.CreateIntegrationRequestRequest(), metadata=mine, timeout=0.2)

    expected = {
        ("ListIntegrationRequests", "OK"): 1,
        ("ListIntegrationRequests", "UNAUTHENTICATED"): 1,
        ("GetIntegrationRequest", "NOT_FOUND"): 1,
        ("CancelIntegrationRequest", "INTERNAL"): 1,
        ("CreateIntegrationRequest", "CANCELLED"): 1,
    }
    await eventually(lambda: counted(telemetry) == expected, 5)
