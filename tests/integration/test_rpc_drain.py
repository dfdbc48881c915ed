"""A gRPC server that drains has let its clients leave before it closes, so that no call of theirs is cut off."""

import asyncio
from collections import Counter
from typing import Any

from chassis.access import REQUESTS_READ
from chassis.errors import HubError
from chassis.rpc import RpcServer, Servicer, stages
from chassis.rpc_client import RpcClient
from chassis.telemetry import Telemetry
from chassis.testing import TestKeys, eventually, free_port
from chassis.tokens import JwksSource, ServiceToken, TokenVerifier
from integrationhub.intake.v1 import intake_pb2, intake_pb2_grpc

CALLERS = 16
DRAINS = 10


class Intake:
    """Answers after a moment, so that calls are always under way."""

    def __init__(self) -> None:
        self.is_called = False

    async def ListIntegrationRequests(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        del request, context
        self.is_called = True
        await asyncio.sleep(0.002)
        return intake_pb2.ListIntegrationRequestsResponse()

    GetIntegrationRequest = CancelIntegrationRequest = CreateIntegrationRequest = ListIntegrationRequests
    BatchCreateIntegrationRequests = ListIntegrationRequestHistory = ListIntegrationRequests


async def start(address: str, keys: TestKeys) -> RpcServer:
    """Start a server, and wait until it is among those that are called."""
    verifier = TokenVerifier(JwksSource(str(keys.jwks)), issuer="integration-hub", audience="integration-hub")
    intake = Intake()
    served = Servicer(
        name="integrationhub.intake.v1.IntakeService",
        implementation=intake,
        add=intake_pb2_grpc.add_IntakeServiceServicer_to_server,
    )
    server = RpcServer(address, [served], stages(Telemetry("intake"), verifier), grace_seconds=5)
    await server.start()
    await eventually(lambda: intake.is_called)
    return server


async def test_no_call_of_the_hubs_own_is_cut_off_by_a_server_that_drains(keys: TestKeys) -> None:
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    token = ServiceToken(keys.signer, service="gateway", scopes=(REQUESTS_READ,))
    client = RpcClient(",".join(addresses), token, timeout_seconds=5)
    stub = intake_pb2_grpc.IntakeServiceStub(client.channel)
    outcomes: Counter[str] = Counter()
    enough = asyncio.Event()

    async def call_again_and_again() -> None:
        await client.reachable(timeout_seconds=10)
        while not enough.is_set():
            try:
                await client.unary(stub.ListIntegrationRequests, intake_pb2.ListIntegrationRequestsRequest())
                outcomes["answered"] += 1
            except HubError as error:
                outcomes[error.reason] += 1

    callers = [asyncio.create_task(call_again_and_again()) for _ in range(CALLERS)]
    running = [await start(address, keys) for address in addresses]
    for number in range(DRAINS):
        await running[number % 2].stop()
        running[number % 2] = await start(addresses[number % 2], keys)
    enough.set()
    await asyncio.gather(*callers)
    await client.stop()
    await asyncio.gather(*(server.stop() for server in running))

    assert set(outcomes) == {"answered"}, outcomes
