"""An intake in memory behind a real gRPC server, and a gateway in front of it.

The server is chassis.rpc's, so tokens, scopes, error details and correlation are the real ones; only storage is not.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from chassis.access import ACT_FOR_PARTNER, REQUESTS_READ, REQUESTS_WRITE
from chassis.clock import SECOND, to_timestamp
from chassis.correlation import correlation_id_var
from chassis.errors import DuplicateExternalId, HubError, IntegrationRequestNotFound, InvalidRequest, Violation
from chassis.rpc import Part, RpcServer, Servicer, caller_var, stages
from chassis.rpc_client import RpcClient
from chassis.status import to_status
from chassis.telemetry import Telemetry
from chassis.testing import FakeClock, TestKeys, free_port
from chassis.tokens import JwksSource, ServiceToken, TokenVerifier
from chassis.tracing import Tracing
from gateway.app import GatewayApp, build_app
from gateway.intake_client import IntakeClient
from gateway.readiness import INTAKE_SERVICE, STORAGE, Readiness
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1.intake_pb2_grpc import add_IntakeServiceServicer_to_server

TARGETS = ("TotvsProtheus", "SAP")
ISSUER = AUDIENCE = "integration-hub"


class FakeIntake:
    """Keeps requests in a dict and answers as intake does."""

    def __init__(self) -> None:
        # 2024-01-15T10:30:00Z: the seed's
        self.clock = FakeClock(1_705_314_600 * SECOND)
        self.stored: dict[str, pb.IntegrationRequest] = {}
        self.history: dict[str, list[pb.HistoryEntry]] = {}
        self.batches: list[pb.BatchCreateIntegrationRequestsRequest] = []
        self.correlation_ids_of_batches: list[str] = []
        self.gets: list[pb.GetIntegrationRequestRequest] = []
        #: Runs before each batch is looked at; a test lets it wait or raise.
        self.before_batch: Callable[[], Any] | None = None
        #: Raised for each item instead of storing it.
        self.refuse_items_with: HubError | None = None
        self.refuse_reads_with: list[HubError] = []

    async def BatchCreateIntegrationRequests(  # noqa: N802 - gRPC's name
        self, request: pb.BatchCreateIntegrationRequestsRequest, _: Any
    ) -> pb.BatchCreateIntegrationRequestsResponse:
        self.batches.append(request)
        self.correlation_ids_of_batches.append(correlation_id_var.get())
        if self.before_batch is not None:
            await self.before_batch()
        return pb.BatchCreateIntegrationRequestsResponse(results=[self._create(item) for item in request.requests])

    async def GetIntegrationRequest(  # noqa: N802 - gRPC's name
        self, request: pb.GetIntegrationRequestRequest, _: Any
    ) -> pb.GetIntegrationRequestResponse:
        self.gets.append(request)
        return pb.GetIntegrationRequestResponse(integration_request=self._find(request.id, request.partner_id))

    async def ListIntegrationRequests(  # noqa: N802 - gRPC's name
        self, request: pb.ListIntegrationRequestsRequest, _: Any
    ) -> pb.ListIntegrationRequestsResponse:
        self._maybe_refuse_read()
        partner_id = caller_var.get().act_for(request.partner_id)
        found = [
            stored
            for stored in reversed(self.stored.values())
            if stored.partner_id == partner_id and _fits(stored, request)
        ]
        if request.page_token and not request.page_token.isdigit():
            raise InvalidRequest("The cursor is not valid.", [Violation(pointer="/cursor", detail="is no cursor")])
        start = int(request.page_token or 0)
        end = start + request.page_size
        token = str(end) if end < len(found) else ""
        return pb.ListIntegrationRequestsResponse(integration_requests=found[start:end], next_page_token=token)

    async def ListIntegrationRequestHistory(  # noqa: N802 - gRPC's name
        self, request: pb.ListIntegrationRequestHistoryRequest, _: Any
    ) -> pb.ListIntegrationRequestHistoryResponse:
        stored = self._find(request.id, request.partner_id)
        return pb.ListIntegrationRequestHistoryResponse(entries=self.history.get(stored.id, []))

    def payloads(self) -> list[str]:
        """The payload text of everything stored, as it came over the wire."""
        return [item.payload_json for batch in self.batches for item in batch.requests]

    def _create(self, item: pb.CreateIntegrationRequestRequest) -> pb.BatchCreateResult:
        try:
            return pb.BatchCreateResult(integration_request=self._store(item))
        except HubError as error:
            status = to_status(error)
            return pb.BatchCreateResult(
                error=pb.BatchItemError(code=status.code, message=status.message, details=status.details)
            )

    def _store(self, item: pb.CreateIntegrationRequestRequest) -> pb.IntegrationRequest:
        if self.refuse_items_with is not None:
            raise self.refuse_items_with
        partner_id = caller_var.get().act_for(item.partner_id)
        if item.target_system not in TARGETS:
            violation = Violation(pointer="/targetSystem", detail=f"must be one of {', '.join(TARGETS)}")
            raise InvalidRequest("The request breaks the contract.", [violation])
        for other in self.stored.values():
            if (other.partner_id, other.external_id) == (partner_id, item.external_id):
                raise DuplicateExternalId(item.external_id, other.id, "Received")
        stored = pb.IntegrationRequest(
            id=f"00000000-0000-4000-8000-{len(self.stored):012d}",
            partner_id=partner_id,
            external_id=item.external_id,
            source_system=item.source_system,
            target_system=item.target_system,
            status=pb.INTEGRATION_REQUEST_STATUS_RECEIVED,
            correlation_id=item.correlation_id,
            created_at=to_timestamp(self.clock.now()),
            updated_at=to_timestamp(self.clock.now()),
            version=1,
        )
        self.clock.advance(1)
        self.stored[stored.id] = stored
        return stored

    def _find(self, request_id: str, partner_id: str) -> pb.IntegrationRequest:
        self._maybe_refuse_read()
        stored = self.stored.get(request_id)
        if stored is None or stored.partner_id != caller_var.get().act_for(partner_id):
            raise IntegrationRequestNotFound(request_id)
        return stored

    def _maybe_refuse_read(self) -> None:
        if self.refuse_reads_with:
            raise self.refuse_reads_with.pop(0)


def _fits(stored: pb.IntegrationRequest, wanted: pb.ListIntegrationRequestsRequest) -> bool:
    asked = MessageToDict(wanted, preserving_proto_field_name=True)
    exact = {"status", "external_id", "target_system", "correlation_id"} & asked.keys()
    at = stored.created_at.ToMicroseconds()
    return (
        all(getattr(stored, field) == getattr(wanted, field) for field in exact)
        and ("created_after" not in asked or at >= wanted.created_after.ToMicroseconds())
        and ("created_before" not in asked or at < wanted.created_before.ToMicroseconds())
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayUnderTest:
    """A gateway's application, the intake behind it and what both are made of."""

    app: GatewayApp
    intake: FakeIntake
    intake_server: RpcServer
    intake_address: str
    keys: TestKeys
    telemetry: Telemetry
    readiness: Readiness
    #: Of the intake, as its health tells of it.
    storage: Part

    def header(self, *scopes: str, partner: str = "acme") -> dict[str, str]:
        """An Authorization header with both scopes of a partner, or with those named."""
        return self.keys.header(partner, *(scopes or (REQUESTS_WRITE, REQUESTS_READ)))

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series of the gateway; 0 when nothing was recorded."""
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running_gateway(
    folder: Path,
    *,
    service_scopes: tuple[str, ...] = (REQUESTS_WRITE, REQUESTS_READ, ACT_FOR_PARTNER),
    timeout_seconds: float = 5.0,
    tracing: Tracing | None = None,
    storage_name: str = STORAGE,
    issuers: Sequence[str] = (),
) -> AsyncIterator[GatewayUnderTest]:
    """A gateway in front of a running fake intake, whose health tells of its storage under a name.

    Both read the key sets of `issuers` beside their own.
    """
    keys = TestKeys(folder)
    source = JwksSource(",".join([*issuers, str(keys.jwks)]))
    verifier = TokenVerifier(source, issuer=ISSUER, audience=AUDIENCE)
    intake = FakeIntake()
    address = f"127.0.0.1:{free_port()}"
    servicer = Servicer(
        name=INTAKE_SERVICE, implementation=IntakeServicer(intake), add=add_IntakeServiceServicer_to_server
    )
    storage = Part(storage_name)
    intake_server = RpcServer(
        address, [servicer], stages(Telemetry("intake"), verifier), grace_seconds=0.1, parts=[storage]
    )
    await intake_server.start()
    token = ServiceToken(keys.signer, service="gateway", scopes=service_scopes)
    client = RpcClient(address, token, timeout_seconds=timeout_seconds)
    telemetry = Telemetry("gateway")
    intake_client = IntakeClient(client, telemetry, timeout_seconds=timeout_seconds)
    readiness = Readiness(client)
    app = build_app(
        intake=intake_client,
        verifier=verifier,
        readiness=readiness,
        telemetry=telemetry,
        tracing=tracing or Tracing(),
    )
    try:
        yield GatewayUnderTest(
            app=app,
            intake=intake,
            intake_server=intake_server,
            intake_address=address,
            keys=keys,
            telemetry=telemetry,
            readiness=readiness,
            storage=storage,
        )
    finally:
        await asyncio.wait_for(intake_client.stop(), 10)
        await client.stop()
        await intake_server.stop()
        await source.stop()


class IntakeServicer:
    """What the generated code adds: the fake's calls, and nothing for the rest of the service."""

    def __init__(self, intake: FakeIntake) -> None:
        self._intake = intake

    def __getattr__(self, name: str) -> Any:
        return getattr(self._intake, name, self._unimplemented)

    async def _unimplemented(self, *_: Any) -> Any:
        raise AssertionError("the gateway does not call this")
