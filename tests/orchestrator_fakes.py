"""An intake and an adapter in memory behind real gRPC servers, for the orchestrator's tests.

The servers are chassis.rpc's, so tokens, scopes and errors are the real ones. The fake intake keeps leases as the
real one does (tokens, staleness, a lease granted anew to its own holder); the fake adapter answers as it is told.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chassis.access import LIFECYCLE
from chassis.clock import SECOND, to_timestamp
from chassis.errors import HubError
from chassis.rpc import RpcServer, Servicer, stages
from chassis.rpc_client import RpcClient
from chassis.streams import Streams
from chassis.targets import Target
from chassis.telemetry import Telemetry
from chassis.testing import FakeClock, TestKeys, free_port
from chassis.tokens import JwksSource, ServiceToken, TokenVerifier
from chassis.tracing import Tracing
from integrationhub.adapter.v1 import adapter_pb2, adapter_pb2_grpc
from integrationhub.adapter.v1.adapter_pb2 import DeliverRequest, DeliverResponse, LookupRequest, LookupResponse
from integrationhub.intake.v1 import lifecycle_pb2, lifecycle_pb2_grpc
from integrationhub.intake.v1.intake_pb2 import IntegrationRequest
from integrationhub.intake.v1.lifecycle_pb2 import Lease
from orchestrator_service.capacity import TargetCapacity
from orchestrator_service.clients import AdapterClient, IntakeClient
from orchestrator_service.consumer import Consumer, TargetReader, WorkInHand
from orchestrator_service.process import Processor
from orchestrator_service.validation import PayloadSchema

ISSUER = AUDIENCE = "integration-hub"
WORKER = "worker-1"


def target(name: str = "Erp", **changes: Any) -> Target:
    """A target of the targets file."""
    usual = {"adapter": "http_json", "base_url": "http://127.0.0.1:1", "timeout_seconds": 5, "retry": [2, 4, 8]}
    return Target(**{"name": name, **usual, **changes})


@dataclass
class StoredRequest:
    """What the fake intake keeps of a request."""

    lease: Lease
    holder: str = ""
    is_terminal: bool = False
    reports: list[lifecycle_pb2.Report] = field(default_factory=list)

    @property
    def steps(self) -> list[str]:
        """The kinds of the accepted reports, in order."""
        return [str(report.WhichOneof("step")) for report in self.reports]


class FakeLifecycle(lifecycle_pb2_grpc.LifecycleServiceServicer):
    """Intake's LifecycleService in memory."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.requests: dict[str, StoredRequest] = {}
        self.claims: list[list[str]] = []
        self.batches: list[int] = []
        self.beats: list[lifecycle_pb2.HeartbeatRequest] = []
        self.live_workers = 1
        self.worker_index = 0
        self.was_given_up = False
        #: Raised by every call while it is set.
        self.away: HubError | None = None
        #: Claims and reports wait for it when a test clears it.
        self.open = asyncio.Event()
        self.open.set()
        #: The next claim is recorded and its answer lost.
        self.loses_next_answer: HubError | None = None

    def add(self, target_system: str = "Erp", payload_json: str = '{"orderId":"A"}', **lease: Any) -> str:
        """Store a request that waits for a worker; `lease` overrides fields of the lease it will be claimed with."""
        integration_request = IntegrationRequest(
            id=str(uuid.uuid4()),
            external_id="PARTNER-1",
            source_system=lease.pop("source_system", "SAP"),
            target_system=target_system,
            payload_json=payload_json,
            correlation_id=str(uuid.uuid4()),
            attempts=lease.pop("attempts", 0),
        )
        expires_at = to_timestamp(lease.pop("expires_at", self.clock.now() + 86_400 * SECOND))
        stored = StoredRequest(Lease(integration_request=integration_request, expires_at=expires_at, **lease))
        self.requests[integration_request.id] = stored
        return integration_request.id

    def in_doubt(self, *, seconds_ago: float, **lease: Any) -> str:
        """Store a request whose post may have reached the external system that many seconds ago."""
        sent_at = to_timestamp(self.clock.now() - round(seconds_ago * SECOND))
        return self.add(in_doubt=True, sent_at=sent_at, attempts=1, **lease)

    async def Claim(self, request: lifecycle_pb2.ClaimRequest, _: Any) -> lifecycle_pb2.ClaimResponse:  # noqa: N802
        """Claims leases."""
        await self._answerable()
        ids = list(request.integration_request_ids)
        self.claims.append(ids)
        results = [self._claim(request_id, request.worker_id) for request_id in ids]
        if (lost := self.loses_next_answer) is not None:
            self.loses_next_answer = None
            raise lost
        return lifecycle_pb2.ClaimResponse(results=results)

    async def Report(self, request: lifecycle_pb2.ReportRequest, _: Any) -> lifecycle_pb2.ReportResponse:  # noqa: N802
        """Records reports."""
        await self._answerable()
        self.batches.append(len(request.reports))
        results = [
            lifecycle_pb2.ReportResult(
                integration_request_id=report.integration_request_id, status=self._report(report)
            )
            for report in request.reports
        ]
        return lifecycle_pb2.ReportResponse(results=results)

    async def Heartbeat(  # noqa: N802
        self, request: lifecycle_pb2.HeartbeatRequest, _: Any
    ) -> lifecycle_pb2.HeartbeatResponse:
        """Counts beats."""
        await self._answerable()
        self.beats.append(request)
        return lifecycle_pb2.HeartbeatResponse(
            live_workers=self.live_workers, worker_index=self.worker_index, was_given_up=self.was_given_up
        )

    async def _answerable(self) -> None:
        await self.open.wait()
        if self.away is not None:
            raise self.away

    def _claim(self, request_id: str, worker_id: str) -> lifecycle_pb2.ClaimResult:
        result = lifecycle_pb2.ClaimResult(integration_request_id=request_id)
        stored = self.requests.get(request_id)
        if stored is None:
            result.status = lifecycle_pb2.CLAIM_STATUS_NOT_FOUND
        elif stored.is_terminal or stored.holder not in ("", worker_id):
            result.status = lifecycle_pb2.CLAIM_STATUS_NOT_AVAILABLE
        else:
            stored.holder = worker_id
            stored.lease.token += 1
            stored.lease.claimed_at.CopyFrom(to_timestamp(self.clock.now()))
            result.status = lifecycle_pb2.CLAIM_STATUS_GRANTED
            result.lease.CopyFrom(stored.lease)
        return result

    def _report(self, report: lifecycle_pb2.Report) -> lifecycle_pb2.ReportStatus.ValueType:
        stored = self.requests[report.integration_request_id]
        step = report.WhichOneof("step")
        is_old = report.token != stored.lease.token or not stored.holder
        if stored.is_terminal or (is_old and step != "completed"):
            return lifecycle_pb2.REPORT_STATUS_STALE
        stored.reports.append(report)
        if step == "sending":
            stored.lease.in_doubt = True
            stored.lease.sent_at.CopyFrom(to_timestamp(self.clock.now()))
            stored.lease.integration_request.attempts += 1
            return lifecycle_pb2.REPORT_STATUS_ACCEPTED
        stored.holder = ""
        stored.is_terminal = step in ("completed", "failed")
        is_settled = step == "retry" or report.release.not_sent
        still_in_doubt = report.retry.still_in_doubt or report.release.still_in_doubt
        stored.lease.in_doubt = stored.lease.in_doubt and (still_in_doubt or not is_settled)
        stored.lease.retries += report.retry.spends_retry
        stored.lease.lookups += report.in_doubt.lookup_made
        stored.lease.timed_out = stored.lease.timed_out or report.in_doubt.timed_out
        return lifecycle_pb2.REPORT_STATUS_ACCEPTED


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
    return [result.lease for result in await parts.intake_client.claim(ids)]
