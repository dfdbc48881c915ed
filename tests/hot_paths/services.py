"""The hot paths of the gateway, the orchestrator and the adapter; what they call answers at once, in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from adapter_service.attempts import Attempts
from adapter_service.auth import make_credentials
from adapter_service.calls import TargetCalls
from adapter_service.registry import ExternalSystem, find_adapter
from adapter_service.servicer import AdapterServicer
from chassis.access import ACT_FOR_PARTNER, LIFECYCLE, REQUESTS_WRITE
from chassis.http_client import HttpAnswer, HttpClient
from chassis.rpc_client import RpcClient
from chassis.targets import Target
from chassis.telemetry import Telemetry
from chassis.testing import TestKeys
from chassis.tokens import JwksSource, ServiceToken, TokenVerifier
from chassis.tracing import Tracing
from gateway.app import build_app
from gateway.intake_client import IntakeClient as GatewayIntakeClient
from gateway.readiness import Readiness
from integrationhub.adapter.v1 import adapter_pb2
from integrationhub.intake.v1 import intake_pb2, lifecycle_pb2
from orchestrator_service.capacity import Place, TargetCapacity
from orchestrator_service.clients import AdapterClient, IntakeClient
from orchestrator_service.process import Processor

BATCH = 50
PAYLOAD = '{"orderId":"ORD-2024-001","customer":"Empresa ABC","amount":15000.00}'
BODY = f'{{"externalId":"E-1","sourceSystem":"SAP","targetSystem":"TotvsProtheus","payload":{PAYLOAD}}}'.encode()
TARGET = Target(name="TotvsProtheus", adapter="totvs_protheus", base_url="http://127.0.0.1:1", concurrency=BATCH)
REQUEST = intake_pb2.IntegrationRequest(
    id="01a2201b-7e6e-74ab-83b8-b1ea5437450c",
    partner_id="acme",
    external_id="E-1",
    source_system="SAP",
    target_system=TARGET.name,
    payload_json=PAYLOAD,
    correlation_id="c-1",
    status=intake_pb2.INTEGRATION_REQUEST_STATUS_RECEIVED,
)

Round = Callable[[], Awaitable[None]]


class AnsweringClient(RpcClient):
    """A client whose calls are answered here, at once; metadata and tokens are made as for a real call."""

    def __init__(self, keys: TestKeys, service: str, scopes: list[str], answer: Callable[[Any], Any]) -> None:
        token = ServiceToken(keys.signer, service=service, scopes=scopes)
        super().__init__("127.0.0.1:1", token, timeout_seconds=5)
        self._answer = answer

    async def unary(self, method: Any, request: Any, *, timeout_seconds: float | None = None) -> Any:
        """Answer."""
        del method, timeout_seconds
        self.metadata()
        return self._answer(request)

    async def stream(self, method: Any, request: Any, *, timeout_seconds: float) -> AsyncIterator[Any]:
        """Answer with one message."""
        del method, timeout_seconds
        self.metadata()
        yield self._answer(request)

    async def reachable(self, *, timeout_seconds: float) -> bool:
        """A connection stands."""
        del timeout_seconds
        return True


def gateway(keys: TestKeys) -> Round:
    """Partners' creates that arrive together, from the parsed HTTP request to the answer."""
    stored = intake_pb2.BatchCreateResult(integration_request=REQUEST)

    def create(request: Any) -> Any:
        return intake_pb2.BatchCreateIntegrationRequestsResponse(results=[stored] * len(request.requests))

    client = AnsweringClient(keys, "gateway", [REQUESTS_WRITE, ACT_FOR_PARTNER], create)
    telemetry = Telemetry("gateway")
    source = JwksSource(str(keys.jwks))
    app = build_app(
        intake=GatewayIntakeClient(client, telemetry, timeout_seconds=5),
        verifier=TokenVerifier(source, issuer="integration-hub", audience="integration-hub"),
        readiness=Readiness(client),
        telemetry=telemetry,
        tracing=Tracing(),
    )
    headers = {
        "host": "127.0.0.1",
        "authorization": f"Bearer {keys.token('acme', REQUESTS_WRITE)}",
        "content-type": "application/json",
        "content-length": str(len(BODY)),
    }
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/integration-requests",
        "raw_path": b"/api/integration-requests",
        "root_path": "",
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
        "state": {},
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    async def one() -> None:
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": BODY, "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await app({**scope}, receive, send)
        assert statuses == [202]

    async def batch() -> None:
        await asyncio.gather(*(one() for _ in range(BATCH)))

    return batch


def orchestrator(keys: TestKeys) -> Round:
    """Leases of one claim, from the lease to the recorded outcome: announced, delivered, reported."""

    def record(request: Any) -> Any:
        accepted = lifecycle_pb2.REPORT_STATUS_ACCEPTED
        return lifecycle_pb2.ReportResponse(
            results=[lifecycle_pb2.ReportResult(status=accepted) for _ in request.reports]
        )

    def deliver(request: Any) -> Any:
        response = adapter_pb2.DeliverResponse(outcome=adapter_pb2.OUTCOME_DELIVERED, response_json="{}")
        return adapter_pb2.DeliverBatchResponse(
            results=[
                adapter_pb2.DeliverBatchResult(integration_request_id=each.integration_request_id, response=response)
                for each in request.deliveries
            ]
        )

    telemetry = Telemetry("orchestrator")
    intake = AnsweringClient(keys, "orchestrator", [LIFECYCLE], record)
    adapter = AnsweringClient(keys, "orchestrator", [LIFECYCLE], deliver)
    processor = Processor(
        targets={TARGET.name: TARGET},
        schemas={},
        intake=IntakeClient(intake, worker_id="w1", telemetry=telemetry),
        adapter=AdapterClient(adapter, telemetry=telemetry),
        telemetry=telemetry,
        tracing=Tracing(),
        chance=lambda: 0.0,
    )
    capacity = TargetCapacity(TARGET)
    capacity.set_share(workers=1, index=0)
    leases = [lifecycle_pb2.Lease(integration_request=REQUEST, token=1) for _ in range(BATCH)]
    for number, lease in enumerate(leases):
        lease.integration_request.id = f"{REQUEST.id[:-3]}{number:03}"
        lease.expires_at.FromSeconds(4_000_000_000)
        lease.claimed_at.FromSeconds(1_750_000_000)

    async def one(lease: lifecycle_pb2.Lease, place: Place) -> None:
        await processor.process(lease, place, TARGET)
        place.leave()

    async def batch() -> None:
        places = capacity.take(BATCH)
        assert len(places) == BATCH
        await asyncio.gather(*map(one, leases, places))

    return batch


class AnsweringHttp(HttpClient):
    """The external system's answer, at once."""

    async def send(self, *_: Any, **__: Any) -> HttpAnswer:
        """Answer as Protheus does when it has stored an order."""
        body = b'{"orderId":"ORD-2024-001","protheusId":"P000000001","status":"created"}'
        return HttpAnswer(status=201, headers={"content-type": "application/json"}, body=body, is_complete=True)


def adapter(folder: Path) -> Round:
    """Deliveries that arrive in one call, from the message to the answer's, without the HTTP call itself."""
    telemetry = Telemetry("adapter")
    http = AnsweringHttp()
    calls = TargetCalls(TARGET.name, http, make_credentials(TARGET, http, folder))
    system = ExternalSystem(target=TARGET, adapter=find_adapter(TARGET)(TARGET, calls), calls=calls, http=http)
    servicer = AdapterServicer({TARGET.name: system}, Attempts(telemetry, Tracing()), telemetry)
    request = adapter_pb2.DeliverBatchRequest(
        deliveries=[
            adapter_pb2.DeliverRequest(
                integration_request_id=f"{REQUEST.id[:-3]}{number:03}",
                external_id="E-1",
                source_system="SAP",
                target_system=TARGET.name,
                payload_json=PAYLOAD,
                correlation_id="c-1",
                attempt=1,
            )
            for number in range(BATCH)
        ]
    )

    async def batch() -> None:
        results = [result async for answer in servicer.DeliverBatch(request, None) for result in answer.results]
        outcomes = {result.response.outcome for result in results}
        assert (len(results), outcomes) == (BATCH, {adapter_pb2.OUTCOME_DELIVERED})

    return batch
