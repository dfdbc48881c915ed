"""A gRPC server that drains has let its clients leave before it closes, so that no call of theirs is cut off."""

import asyncio
import socket
from collections import Counter
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

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
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def ListIntegrationRequests(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        del request, context
        self.is_called = True
        await self.may_answer.wait()
        await asyncio.sleep(0.002)
        return intake_pb2.ListIntegrationRequestsResponse()

    GetIntegrationRequest = CancelIntegrationRequest = CreateIntegrationRequest = ListIntegrationRequests
    BatchCreateIntegrationRequests = ListIntegrationRequestHistory = ListIntegrationRequests


def new_server(address: str, keys: TestKeys, intake: Intake, *, grace_seconds: float) -> RpcServer:
    """One that is not started yet."""
    verifier = TokenVerifier(JwksSource(str(keys.jwks)), issuer="integration-hub", audience="integration-hub")
    served = Servicer(
        name="integrationhub.intake.v1.IntakeService",
        implementation=intake,
        add=intake_pb2_grpc.add_IntakeServiceServicer_to_server,
    )
    return RpcServer(address, [served], stages(Telemetry("intake"), verifier), grace_seconds=grace_seconds)


async def start(address: str, keys: TestKeys) -> RpcServer:
    """Start a server, and wait until it is among those that are called."""
    intake = Intake()
    server = new_server(address, keys, intake, grace_seconds=5)
    await server.start()
    await eventually(lambda: intake.is_called)
    return server


def listens(address: str) -> bool:
    """Whether the server takes connections."""
    host, _, port = address.rpartition(":")
    with socket.socket() as tried:
        return tried.connect_ex((host, int(port))) == 0


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


async def test_whoever_only_watches_the_health_does_not_hold_a_drain_up(keys: TestKeys) -> None:
    address = f"127.0.0.1:{free_port()}"
    server = new_server(address, keys, Intake(), grace_seconds=60)
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        watch = await watched(channel)

        async with asyncio.timeout(10):
            await server.stop()

        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_drain_waits_for_the_calls_that_are_under_way_beside_a_watch(keys: TestKeys) -> None:
    address = f"127.0.0.1:{free_port()}"
    intake = Intake()
    intake.may_answer.clear()
    server = new_server(address, keys, intake, grace_seconds=60)
    await server.start()
    token = ServiceToken(keys.signer, service="gateway", scopes=(REQUESTS_READ,))
    client = RpcClient(address, token, timeout_seconds=30)
    stub = intake_pb2_grpc.IntakeServiceStub(client.channel)
    async with grpc.aio.insecure_channel(address) as channel:
        await watched(channel)
        request = intake_pb2.ListIntegrationRequestsRequest()
        call = asyncio.create_task(client.unary(stub.ListIntegrationRequests, request))
        await eventually(lambda: intake.is_called)

        stop = asyncio.create_task(server.stop())
        await eventually(lambda: not listens(address))
        assert not call.done()
        assert not stop.done()
        intake.may_answer.set()

        assert await call == intake_pb2.ListIntegrationRequestsResponse()
        async with asyncio.timeout(10):
            await stop
    await client.stop()


async def watched(channel: grpc.aio.Channel) -> Any:
    """The stream of a foreign client that watches the health, and has been told SERVING."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    return watch
