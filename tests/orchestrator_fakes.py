"""An intake and an adapter in memory behind real gRPC servers, for the orchestrator's tests.

The servers are chassis.rpc's, so tokens, scopes and errors are the real ones; the fake adapter answers as it is told.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.access import LIFECYCLE
from chassis.rpc import RpcServer, Servicer, stages
from chassis.rpc_client import RpcClient
from chassis.streams import Streams
from chassis.targets import Target
from chassis.telemetry import Telemetry
from chassis.testing import TestKeys, free_port
from chassis.tokens import JwksSource, ServiceToken, TokenVerifier
from chassis.tracing import Tracing
from integrationhub.adapter.v1 import adapter_pb2, adapter_pb2_grpc
from integrationhub.adapter.v1.adapter_pb2 import DeliverRequest, DeliverResponse, LookupRequest, LookupResponse
from integrationhub.intake.v1 import lifecycle_pb2_grpc
from integrationhub.intake.v1.lifecycle_pb2 import Lease
from orchestrator_service.capacity import TargetCapacity
from orchestrator_service.clients import AdapterClient, IntakeClient
from orchestrator_service.consumer import Consumer, TargetReader, WorkInHand
from orchestrator_service.process import Processor
from orchestrator_service.validation import PayloadSchema
from tests.fake_lifecycle import FakeLifecycle

ISSUER = AUDIENCE = "integration-hub"
WORKER = "worker-1"


def target(name: str = "Erp", **changes: Any) -> Target:
    """A target of the targets file."""
    usual = {"adapter": "http_json", "base_url": "http://127.0.0.1:1", "timeout_seconds": 5, "retry": [2, 4, 8]}
    return Target(**{"name": name, **usual, **changes})


class FakeAdapter(adapter_pb2_grpc.AdapterServiceServicer):
    """The AdapterService in memory: `answer` and `look_up` are what a test makes of them."""

    def __init__(self) -> None:
        self.deliveries: list[DeliverRequest] = []
        self.lookups: list[LookupRequest] = []
        #: Sizes of the calls, 1 for a single Deliver.
        self.calls: list[int] = []
        self.answer: Callable[[DeliverRequest], Awaitable[DeliverResponse]] = delivered
        self.look_up: Callable[[LookupRequest], Awaitable[LookupResponse]] = found

    def delivered_to(self, name: str) -> list[DeliverRequest]:
        """What has arrived for one target."""
        return [delivery for delivery in self.deliveries if delivery.target_system == name]

    async def Deliver(self, request: DeliverRequest, _: Any) -> DeliverResponse:  # noqa: N802
        """Makes one attempt."""
        self.calls.append(1)
        return await self._deliver(request)

    async def DeliverBatch(  # noqa: N802
        self, request: adapter_pb2.DeliverBatchRequest, _: Any
    ) -> AsyncIterator[adapter_pb2.DeliverBatchResponse]:
        """Makes many attempts and answers each as it finishes."""
        self.calls.append(len(request.deliveries))
        for finished in asyncio.as_completed([self._result(delivery) for delivery in request.deliveries]):
            yield adapter_pb2.DeliverBatchResponse(results=[await finished])

    async def Lookup(self, request: LookupRequest, _: Any) -> LookupResponse:  # noqa: N802
        """Asks for a request."""
        self.lookups.append(request)
        return await self.look_up(request)

    async def ListTargets(  # noqa: N802
        self, _: adapter_pb2.ListTargetsRequest, __: Any
    ) -> adapter_pb2.ListTargetsResponse:
        """Lists no targets."""
        return adapter_pb2.ListTargetsResponse()

    async def _deliver(self, request: DeliverRequest) -> DeliverResponse:
        self.deliveries.append(request)
        return await self.answer(request)

    async def _result(self, delivery: DeliverRequest) -> adapter_pb2.DeliverBatchResult:
        response = await self._deliver(delivery)
        return adapter_pb2.DeliverBatchResult(integration_request_id=delivery.integration_request_id, response=response)


class Gate:
    """An answer that waits until the test opens it."""

    def __init__(self, response: DeliverResponse | None = None) -> None:
        self.is_open = asyncio.Event()
        self._response = response or DeliverResponse(outcome=adapter_pb2.OUTCOME_DELIVERED)

    async def __call__(self, _: DeliverRequest) -> DeliverResponse:
        await self.is_open.wait()
        return self._response


async def delivered(_: DeliverRequest) -> DeliverResponse:
    """The external system takes it."""
    return DeliverResponse(outcome=adapter_pb2.OUTCOME_DELIVERED, response_json='{"order":"PRO-1"}')


async def found(_: LookupRequest) -> LookupResponse:
    """The external system has it."""
    return LookupResponse(outcome=adapter_pb2.LOOKUP_OUTCOME_FOUND, response_json='{"order":"PRO-1"}')


def always(response: DeliverResponse) -> Callable[[DeliverRequest], Awaitable[DeliverResponse]]:
    """Answer every attempt alike."""

    async def answer(_: DeliverRequest) -> DeliverResponse:
        return response

    return answer


def looked_up(outcome: adapter_pb2.LookupOutcome.ValueType) -> Callable[[LookupRequest], Awaitable[LookupResponse]]:
    """Answer every lookup alike."""

    async def answer(_: LookupRequest) -> LookupResponse:
        return LookupResponse(outcome=outcome, detail="as told")

    return answer


@dataclass
class Surroundings:
    """What an orchestrator lives among, and its own parts that speak to it."""

    intake: FakeLifecycle
    adapter: FakeAdapter
    adapter_server: RpcServer
    intake_client: IntakeClient
    adapter_client: AdapterClient
    telemetry: Telemetry
    keys: TestKeys
    intake_address: str
    adapter_address: str

    def processor(
        self, *targets: Target, schemas: dict[tuple[str, str], PayloadSchema] | None = None, **limits: float
    ) -> Processor:
        """A processor for these targets, without jitter."""
        return Processor(
            targets={one.name: one for one in targets},
            schemas=schemas or {},
            intake=self.intake_client,
            adapter=self.adapter_client,
            telemetry=self.telemetry,
            tracing=Tracing(),
            chance=lambda: 0.0,
            **limits,
        )

    def count(self, name: str, **labels: str) -> float:
        """The value of a metric."""
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0


def capacity_for(one: Target) -> TargetCapacity:
    """The capacity of a worker that is alone."""
    capacity = TargetCapacity(one)
    capacity.set_share(workers=1, index=0)
    return capacity


@asynccontextmanager
async def surroundings(folder: Path) -> AsyncIterator[Surroundings]:
    """Serve a fake intake and a fake adapter and connect a worker's clients to them."""
    keys = TestKeys(folder)
    intake, adapter = FakeLifecycle(), FakeAdapter()
    intake_address, adapter_address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    intake_server = _server(
        intake_address,
        keys,
        "intake.v1.LifecycleService",
        intake,
        lifecycle_pb2_grpc.add_LifecycleServiceServicer_to_server,
    )
    adapter_server = _server(
        adapter_address,
        keys,
        "adapter.v1.AdapterService",
        adapter,
        adapter_pb2_grpc.add_AdapterServiceServicer_to_server,
    )
    token = ServiceToken(keys.signer, service="orchestrator", scopes=[LIFECYCLE])
    telemetry = Telemetry("orchestrator")
    intake_rpc = RpcClient(intake_address, token, timeout_seconds=5)
    adapter_rpc = RpcClient(adapter_address, token, timeout_seconds=5)
    parts = Surroundings(
        intake=intake,
        adapter=adapter,
        adapter_server=adapter_server,
        intake_client=IntakeClient(intake_rpc, worker_id=WORKER, telemetry=telemetry),
        adapter_client=AdapterClient(adapter_rpc, telemetry=telemetry),
        telemetry=telemetry,
        keys=keys,
        intake_address=intake_address,
        adapter_address=adapter_address,
    )
    async with AsyncExitStack() as stack:
        for component in (intake_server, adapter_server, parts.intake_client, parts.adapter_client):
            await component.start()
            stack.push_async_callback(component.stop)
        yield parts


@asynccontextmanager
async def consuming_from(
    parts: Surroundings,
    redis_url: str,
    *targets: Target,
    processor: Any = None,
    grace_seconds: float = 5.0,
    block_seconds: float = 0.5,
    **periods: float,
) -> AsyncIterator[Consumer]:
    """Run a worker that reads the streams of some targets; by default of Erp alone."""
    streams = Streams(redis_url, block_seconds=block_seconds)
    in_hand = WorkInHand()
    read = targets or (target(),)
    processor = processor or parts.processor(*read)
    readers = [
        TargetReader(
            one,
            capacity=capacity_for(one),
            streams=streams,
            intake=parts.intake_client,
            adapter=parts.adapter_client,
            processor=processor,
            in_hand=in_hand,
            telemetry=parts.telemetry,
            **periods,
        )
        for one in read
    ]
    consumer = Consumer(readers, in_hand, grace_seconds=grace_seconds)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()
        await streams.stop()


def _server(
    address: str, keys: TestKeys, name: str, implementation: object, add: Callable[[Any, Any], None]
) -> RpcServer:
    verifier = TokenVerifier(JwksSource(str(keys.jwks)), issuer=ISSUER, audience=AUDIENCE)
    service = Servicer(name=f"integrationhub.{name}", implementation=implementation, add=add)
    stage_list = stages(Telemetry(name.partition(".")[0]), verifier)
    return RpcServer(address, [service], stage_list, grace_seconds=0.2)


async def claim(parts: Surroundings, ids: Sequence[str]) -> list[Lease]:
    """Claim as the worker does."""
    return [result.lease for result in (await parts.intake_client.claim(ids)).results]
