"""An intake with everything but its process: the real store, gRPC server, tokens and log; time is the test's to turn.

Callers of the tests: the partners `acme` and `brix`, the gateway, the worker `w1`, an operator.
"""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import msgspec
import pytest
import sqlalchemy as sa
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from chassis.access import ACT_FOR_PARTNER, LIFECYCLE, OPERATIONS, REQUESTS_READ, REQUESTS_WRITE
from chassis.database import Store
from chassis.rate_limit import RateLimit
from chassis.rpc import RpcServer
from chassis.service import Component
from chassis.settings import HubSettings
from chassis.streams import Streams
from chassis.telemetry import MetricsServer, Telemetry
from chassis.testing import FakeClock, TestKeys, free_port
from intake_service.backlog import Backlog
from intake_service.bootstrap import build
from intake_service.events import Event
from intake_service.outbox import Relay
from intake_service.scheduler import Scheduler
from intake_service.store.due import Due, Round, take_due
from intake_service.store.tables import outbox_batches
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from integrationhub.intake.v1.dead_letters_pb2_grpc import DeadLetterServiceStub
from integrationhub.intake.v1.intake_pb2_grpc import IntakeServiceStub
from integrationhub.intake.v1.lifecycle_pb2_grpc import LifecycleServiceStub

if TYPE_CHECKING:  # these three are in the stubs' hints only
    from integrationhub.intake.v1.dead_letters_pb2_grpc import DeadLetterServiceAsyncStub
    from integrationhub.intake.v1.intake_pb2_grpc import IntakeServiceAsyncStub
    from integrationhub.intake.v1.lifecycle_pb2_grpc import LifecycleServiceAsyncStub

#: Nothing listens there: what the relay would publish stays in the outbox.
NO_REDIS = "redis://127.0.0.1:1/0"
PAYLOAD = '{"orderId":"ORD-2024-001","customer":"Empresa ABC","amount":15000.00}'
TTL_SECONDS = 86400
SERVICES = tuple(f"integrationhub.intake.v1.{name}Service" for name in ("Intake", "Lifecycle", "DeadLetter"))
#: Two systems; nothing calls them.
TARGETS = f"""
[targets.TotvsProtheus]
adapter = "http_json"
base_url = "http://127.0.0.1:1"
ttl_seconds = {TTL_SECONDS}

[targets.SAP]
adapter = "http_json"
base_url = "http://127.0.0.1:1"
ttl_seconds = {TTL_SECONDS}
"""

Part = TypeVar("Part")
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """How a call was refused, read from the status' details as a partner's own client would."""

    code: str
    reason: str
    message: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    #: JSON pointer → what is wrong.
    violations: dict[str, str] = field(default_factory=dict)
    resource: str = ""
    retry_after_seconds: float | None = None


def new_request(external_id: str = "E-1", **fields: Any) -> pb.CreateIntegrationRequestRequest:
    """A good request, the seed's, with what the test changes."""
    good = {"source_system": "SAP", "target_system": "TotvsProtheus", "payload_json": PAYLOAD}
    return pb.CreateIntegrationRequestRequest(external_id=external_id, **{**good, **fields})


def read_refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """The details of a call's error."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it reads code, details and metadata only
    if status is None:
        return Refusal(code=error.code().name, reason="", message=error.details() or "")
    return refusal_of(error.code().name, status.message, status.details)


def refusal_of(code: str, message: str, details: Sequence[Any]) -> Refusal:
    """The same for the details of one item of a batch."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    resource, retry = error_details_pb2.ResourceInfo(), error_details_pb2.RetryInfo()
    for detail in details:
        for wanted in (info, bad, resource, retry):
            if detail.Is(wanted.DESCRIPTOR):
                detail.Unpack(wanted)
    return Refusal(
        code=code,
        reason=info.reason,
        message=message,
        metadata=dict(info.metadata),
        violations={violation.field: violation.description for violation in bad.field_violations},
        resource=resource.resource_name,
        retry_after_seconds=retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None,
    )


async def refused(call: Awaitable[Any]) -> Refusal:
    """Make a call that must be refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read_refusal(caught.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeUnderTest:
    """A running intake and its callers."""

    clock: FakeClock
    store: Store
    backlog: Backlog
    relay: Relay
    scheduler: Scheduler
    streams: Streams
    telemetry: Telemetry
    keys: TestKeys
    address: str
    channel: grpc.aio.Channel
    requests: "IntakeServiceAsyncStub"
    lifecycle: "LifecycleServiceAsyncStub"
    dead_letters: "DeadLetterServiceAsyncStub"

    def caller(self, subject: str, *scopes: str, **claims: Any) -> Metadata:
        """The metadata of a call by anybody."""
        return (("authorization", f"Bearer {self.keys.token(subject, *scopes, **claims)}"),)

    def partner(self, name: str = "acme") -> Metadata:
        """The metadata of a partner's call."""
        return self.caller(name, REQUESTS_WRITE, REQUESTS_READ)

    @property
    def gateway(self) -> Metadata:
        """The metadata of a call by the gateway, which may act for any partner."""
        return self.caller("service:gateway", REQUESTS_WRITE, REQUESTS_READ, ACT_FOR_PARTNER)

    @property
    def worker(self) -> Metadata:
        """The metadata of an orchestrator's call."""
        return self.caller("service:orchestrator", LIFECYCLE)

    @property
    def operator(self) -> Metadata:
        """The metadata of an operator's call."""
        return self.caller("ops", OPERATIONS)

    async def create(self, external_id: str = "E-1", partner: str = "acme", **fields: Any) -> pb.IntegrationRequest:
        """Have a good request accepted."""
        answer = await self.requests.CreateIntegrationRequest(
            new_request(external_id, **fields), metadata=self.partner(partner)
        )
        return answer.integration_request

    async def get(self, request_id: str, partner: str = "acme") -> pb.IntegrationRequest:
        """Read a request as its partner does."""
        wanted = pb.GetIntegrationRequestRequest(id=request_id)
        answer = await self.requests.GetIntegrationRequest(wanted, metadata=self.partner(partner))
        return answer.integration_request

    async def history(self, request_id: str, partner: str = "acme") -> list[pb.HistoryEntry]:
        """Read a request's story as its partner does."""
        wanted = pb.ListIntegrationRequestHistoryRequest(id=request_id)
        answer = await self.requests.ListIntegrationRequestHistory(wanted, metadata=self.partner(partner))
        return list(answer.entries)

    async def cancel(self, request_id: str, partner: str = "acme", detail: str = "") -> pb.IntegrationRequest:
        """Cancel a request as its partner does."""
        wanted = pb.CancelIntegrationRequestRequest(id=request_id, detail=detail)
        answer = await self.requests.CancelIntegrationRequest(wanted, metadata=self.partner(partner))
        return answer.integration_request

    async def claim(self, *request_ids: str, worker: str = "w1") -> list[life.ClaimResult]:
        """Claim as a worker does."""
        wanted = life.ClaimRequest(worker_id=worker, integration_request_ids=request_ids)
        return list((await self.lifecycle.Claim(wanted, metadata=self.worker)).results)

    async def lease(self, request_id: str, worker: str = "w1") -> life.Lease:
        """Claim a request that is there to be had."""
        (result,) = await self.claim(request_id, worker=worker)
        assert result.status == life.CLAIM_STATUS_GRANTED, life.ClaimStatus.Name(result.status)
        return result.lease

    async def report(self, lease: life.Lease, *, worker: str = "w1", **step: Any) -> str:
        """Report one step (`sending=...`, `completed=...`, with `call=...`) and give the answer's name."""
        message = life.Report(integration_request_id=lease.integration_request.id, token=lease.token, **step)
        wanted = life.ReportRequest(worker_id=worker, reports=[message])
        (result,) = (await self.lifecycle.Report(wanted, metadata=self.worker)).results
        return life.ReportStatus.Name(result.status).removeprefix("REPORT_STATUS_")

    async def sent(self, external_id: str = "E-1", worker: str = "w1") -> life.Lease:
        """Create a request, claim it and announce its post, as if the first byte was about to leave."""
        lease = await self.lease((await self.create(external_id)).id, worker)
        assert await self.report(lease, worker=worker, sending=sending()) == "ACCEPTED"
        return lease

    async def beat(self, worker: str = "w1", *, leaving: bool = False) -> life.HeartbeatResponse:
        """Give a worker's sign of life."""
        wanted = life.HeartbeatRequest(worker_id=worker, leaving=leaving)
        return await self.lifecycle.Heartbeat(wanted, metadata=self.worker)

    async def due(self) -> Due:
        """Do one round of the scheduler, silent workers included."""
        found: Due = await self.store.write(take_due, Round(gives_up_silent=True, ends_leases=True))
        return found

    async def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        """Everything a table holds, in the order of its first column."""
        query = sa.select(table).order_by(*table.primary_key.columns)
        return await self.store.read(lambda connection: [dict(row) for row in connection.execute(query).mappings()])

    async def unpublished(self) -> list[Event]:
        """The events that the outbox holds, in their order."""
        rows = await self.rows(outbox_batches)
        return [event for row in rows for event in msgspec.json.decode(row["events"], type=list[Event])]

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series; 0 when nothing was recorded."""
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0


def sending(seconds: int = 60) -> life.Sending:
    """The step before a post whose attempt may take `seconds`."""
    step = life.Sending()
    step.timeout.FromSeconds(seconds)
    return step


def retry(seconds: int = 2, *, spends_retry: bool = True) -> life.Retry:
    """The step that waits for another attempt."""
    step = life.Retry(spends_retry=spends_retry)
    step.delay.FromSeconds(seconds)
    return step


def in_doubt(seconds: int = 2, *, lookup_made: bool = False, timed_out: bool = False) -> life.InDoubt:
    """The step that waits for a lookup."""
    step = life.InDoubt(lookup_made=lookup_made, timed_out=timed_out)
    step.delay.FromSeconds(seconds)
    return step


def release(seconds: int = 0, *, not_sent: bool = False) -> life.Release:
    """The step that hands a lease back."""
    step = life.Release(not_sent=not_sent)
    step.delay.FromSeconds(seconds)
    return step


def failed(reason: str = "external_rejected", *, dead_letter: bool = True) -> life.Failed:
    """The step that ends a request without success."""
    return life.Failed(reason=reason, detail="It does not want it.", dead_letter=dead_letter)


@asynccontextmanager
async def running_intake(
    url: str,
    keys: TestKeys,
    *,
    clock: FakeClock | None = None,
    real_time: bool = False,
    redis_url: str = NO_REDIS,
    maximum: int = 1000,
    maximum_per_partner: int = 1000,
    rate_per_minute: int = 0,
    payload_keys: str = "",
) -> AsyncIterator[IntakeUnderTest]:
    """Serve a migrated database. Relay, scheduler and counts are built but run only when the test starts them."""
    clock = clock or FakeClock()
    settings = HubSettings(
        state_dir=keys.jwks.parent,
        database_url=url,
        redis_url=redis_url,
        targets=_targets_file(keys.jwks.parent),
        intake_address=f"127.0.0.1:{free_port()}",
        jwt_jwks=str(keys.jwks),
        partner_rate_per_minute=rate_per_minute,
        payload_keys=payload_keys,
        max_backlog=maximum,
        max_backlog_per_partner=maximum_per_partner,
        grace_seconds=1,
    )
    parts: Mapping[type[Any], Component] = {
        type(part): part for part in (await build(settings, None if real_time else clock)).components
    }
    await parts[Store].start()
    await parts[RpcServer].start()
    async with grpc.aio.insecure_channel(settings.intake_address) as channel:
        try:
            yield IntakeUnderTest(
                clock=clock,
                store=_part(parts, Store),
                backlog=_part(parts, Backlog),
                relay=_part(parts, Relay),
                scheduler=_part(parts, Scheduler),
                streams=_part(parts, Streams),
                telemetry=_part(parts, MetricsServer).telemetry,
                keys=keys,
                address=settings.intake_address,
                channel=channel,
                requests=IntakeServiceStub(channel),
                lifecycle=LifecycleServiceStub(channel),
                dead_letters=DeadLetterServiceStub(channel),
            )
        finally:
            for kind in (RpcServer, Store, Streams, RateLimit):
                await parts[kind].stop()


def _part(parts: Mapping[type[Any], Component], kind: type[Part]) -> Part:
    part = parts[kind]
    assert isinstance(part, kind)
    return part


def _targets_file(folder: Path) -> Path:
    path = folder / "targets.toml"
    path.write_text(TARGETS, encoding="utf-8")
    return path
