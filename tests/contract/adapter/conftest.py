"""The adapter service as a whole, over gRPC, in front of the real simulator.

The systems under test are the entries of deploy/targets.toml, each at a place of its own in the simulator: an entry
added there is tested by every test of this folder.
"""

import contextlib
import json
import tomllib
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest

from adapter_service.attempts import Attempts
from adapter_service.registry import build_systems
from adapter_service.servicer import AdapterServicer
from chassis.access import LIFECYCLE
from chassis.rpc import RpcServer, Servicer, stages
from chassis.service import Service
from chassis.targets import load_targets
from chassis.telemetry import Telemetry
from chassis.testing import TestKeys, free_port
from chassis.tokens import JwksSource, TokenVerifier
from chassis.tracing import Tracing
from integrationhub.adapter.v1 import adapter_pb2 as pb
from integrationhub.adapter.v1.adapter_pb2_grpc import AdapterServiceStub, add_AdapterServiceServicer_to_server
from simulator.testing import SimulatorProcess

TARGETS_FILE = Path(__file__).resolve().parents[3] / "deploy" / "targets.toml"
TOKEN = "simulator-token-of-the-contract"
ORDER = '{"orderId":"ORD-2024-001","customer":"Empresa ABC","amount":15000.00}'
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CORRELATION_ID = "550e8400-e29b-41d4-a716-446655440000"


def configured() -> dict[str, dict[str, Any]]:
    """The entries of deploy/targets.toml."""
    tables: dict[str, dict[str, Any]] = tomllib.loads(TARGETS_FILE.read_text())["targets"]
    return {name: {key: value for key, value in table.items() if key != "schemas"} for name, table in tables.items()}


class Stub(Protocol):
    """The generated stub on an asyncio channel, as far as its types can say it."""

    Deliver: Any
    DeliverBatch: Any
    Lookup: Any
    ListTargets: Any


@dataclass
class Adapter:
    """The service under test, as an authorised caller sees it."""

    stub: Stub
    metadata: tuple[tuple[str, str], ...]

    async def deliver(self, target: str, **fields: Any) -> pb.DeliverResponse:
        response: pb.DeliverResponse = await self.stub.Deliver(delivery(target, **fields), metadata=self.metadata)
        return response

    async def lookup(self, target: str, request_id: str) -> pb.LookupResponse:
        request = pb.LookupRequest(
            integration_request_id=request_id, correlation_id=CORRELATION_ID, target_system=target
        )
        response: pb.LookupResponse = await self.stub.Lookup(request, metadata=self.metadata)
        return response


class Serve(Protocol):
    """Start an adapter service with these tables as its targets."""

    async def __call__(self, targets: dict[str, dict[str, Any]]) -> Adapter: ...


def delivery(target: str, **fields: Any) -> pb.DeliverRequest:
    """A delivery as the orchestrator sends it; `fields` replace."""
    wanted = {
        "integration_request_id": str(uuid.uuid4()),
        "external_id": "PARTNER-12345",
        "correlation_id": CORRELATION_ID,
        "traceparent": TRACEPARENT,
        "source_system": "SAP",
        "payload_json": ORDER,
        "attempt": 1,
    }
    return pb.DeliverRequest(**{**wanted, "target_system": target, **fields})


@pytest.fixture(scope="session")
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(token=TOKEN) as process:
        yield process


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> TestKeys:
    return TestKeys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
async def serve(tmp_path: Path, keys: TestKeys, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(targets: dict[str, dict[str, Any]]) -> Adapter:
            for name in secret_names(targets):
                monkeypatch.setenv(name, TOKEN)
            file = tmp_path / "targets.toml"
            file.write_text("\n".join(f"[targets.{name}]\n{toml_table(table)}" for name, table in targets.items()))
            address = f"127.0.0.1:{free_port()}"
            service = adapter_service(file, address, keys)
            await service.start()
            stack.push_async_callback(service.stop)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            token = keys.token("service:orchestrator", LIFECYCLE)
            return Adapter(stub=AdapterServiceStub(channel), metadata=(("authorization", f"Bearer {token}"),))

        yield start


def adapter_service(targets: Path, address: str, keys: TestKeys) -> Service:
    """The service as bootstrap.py builds it, but for the metrics port, whose end takes half a second."""
    systems = build_systems(load_targets(targets))
    telemetry = Telemetry("adapter")
    servicer = AdapterServicer(systems, Attempts(telemetry, Tracing()), telemetry)
    name = pb.DESCRIPTOR.services_by_name["AdapterService"].full_name
    served = Servicer(name=name, implementation=servicer, add=add_AdapterServiceServicer_to_server)
    verifier = TokenVerifier(JwksSource(str(keys.jwks)), issuer="integration-hub", audience="integration-hub")
    server = RpcServer(address, [served], stages(telemetry, verifier), grace_seconds=0.2)
    return Service("adapter", [*systems.values(), server])


@dataclass
class System:
    """One configured target at a place of its own in the simulator, and the service in front of it."""

    name: str
    place: str
    table: dict[str, Any]
    simulator: SimulatorProcess
    serve: Serve
    adapter: Adapter | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    async def deliver(self, **fields: Any) -> pb.DeliverResponse:
        return await (await self.started()).deliver(self.name, **fields)

    async def lookup(self, request_id: str) -> pb.LookupResponse:
        return await (await self.started()).lookup(self.name, request_id)

    async def started(self) -> Adapter:
        if self.adapter is None:
            self.adapter = await self.serve({self.name: {**self.table, **self.extra}})
        return self.adapter

    async def fault(self, kind: str, **fields: Any) -> None:
        await self.simulator.fault(kind, target=self.place, **fields)

    async def settings(self, **changes: Any) -> None:
        await self.simulator.settings(self.place, **changes)

    async def orders(self) -> list[dict[str, Any]]:
        return await self.simulator.orders(self.place)

    async def calls(self) -> list[dict[str, Any]]:
        return await self.simulator.calls(self.place)

    async def posts(self) -> list[dict[str, Any]]:
        return [call for call in await self.calls() if call["method"] == "POST" and "token" not in call["path"]]

    async def token_calls(self) -> list[dict[str, Any]]:
        return [call for call in await self.calls() if "token" in call["path"]]


@pytest.fixture(params=sorted(configured()))
def system(request: pytest.FixtureRequest, simulator: SimulatorProcess, serve: Serve) -> System:
    """Each configured system in turn."""
    return place_system(request.param, simulator, serve)


@pytest.fixture
def protheus(simulator: SimulatorProcess, serve: Serve) -> System:
    return place_system("TotvsProtheus", simulator, serve)


@pytest.fixture
def orders_api(simulator: SimulatorProcess, serve: Serve) -> System:
    return place_system("OrdersApi", simulator, serve)


def place_system(name: str, simulator: SimulatorProcess, serve: Serve) -> System:
    place = uuid.uuid4().hex
    table = {**configured()[name], "base_url": f"{simulator.base_url}/t/{place}"}
    return System(name=name, place=place, table=table, simulator=simulator, serve=serve)


def secret_names(targets: dict[str, dict[str, Any]]) -> list[str]:
    values = [value for table in targets.values() for value in table.get("auth", {}).values()]
    return [value.removeprefix("env:") for value in values if value.startswith("env:") and value != "env:WRONG"]


def toml_table(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in table.items())


def toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml_value(member)}" for key, member in value.items()) + " }"
    return json.dumps(value)
