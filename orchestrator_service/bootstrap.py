"""Builds the orchestrator: the one file that knows every concrete class of it."""

import json
import os
import secrets
import socket
import time

from chassis.access import LIFECYCLE
from chassis.errors import ConfigurationError
from chassis.rpc import RpcServer, Servicer, stages
from chassis.rpc_client import RpcClient, client_tls
from chassis.service import Service
from chassis.settings import HubSettings
from chassis.streams import Streams
from chassis.targets import Targets, load_targets
from chassis.telemetry import MetricsServer, Telemetry
from chassis.tls import server_tls
from chassis.tokens import JwksSource, ServiceToken, TokenSigner, TokenVerifier
from chassis.tracing import Tracing
from integrationhub.orchestrator.v1 import orchestrator_pb2_grpc
from orchestrator_service.capacity import TargetCapacity
from orchestrator_service.clients import AdapterClient, IntakeClient
from orchestrator_service.consumer import Consumer, TargetReader, WorkInHand
from orchestrator_service.heartbeat import Heartbeat
from orchestrator_service.process import Processor
from orchestrator_service.servicer import OrchestratorServicer
from orchestrator_service.validation import BadSchema, PayloadSchema

NAME = "orchestrator"
SERVICE = "integrationhub.orchestrator.v1.OrchestratorService"


async def build(settings: HubSettings) -> Service:
    """Build the service, stopped. Raises: ConfigurationError when a setting, target or schema is wrong."""
    settings.check_link(settings.address_of(NAME))
    settings.check_link(settings.metrics_address_of(NAME), encrypted=False)
    settings.check_redis()
    targets = load_targets(settings.targets)
    schemas = load_schemas(targets)
    telemetry = Telemetry(NAME)
    tracing = Tracing.from_environment(NAME)
    token = _service_token(settings)
    worker_id = new_worker_id()
    streams = Streams(settings.effective_redis_url)
    intake = IntakeClient(_rpc_client(settings, "intake", token), worker_id=worker_id, telemetry=telemetry)
    adapter = AdapterClient(_rpc_client(settings, "adapter", token), telemetry=telemetry)
    processor = Processor(
        targets=targets.by_name, schemas=schemas, intake=intake, adapter=adapter, telemetry=telemetry, tracing=tracing
    )
    in_hand = WorkInHand()
    readers = [
        TargetReader(
            target,
            capacity=TargetCapacity(target),
            streams=streams,
            intake=intake,
            adapter=adapter,
            processor=processor,
            in_hand=in_hand,
            telemetry=telemetry,
        )
        for target in targets.by_name.values()
    ]
    heartbeat = Heartbeat(intake, [reader.capacity for reader in readers])
    consumer = Consumer(readers, in_hand, grace_seconds=settings.grace_seconds)
    servicer = OrchestratorServicer(
        worker_id=worker_id,
        targets=targets.by_name,
        capacities={reader.target.name: reader.capacity for reader in readers},
        heartbeat=heartbeat,
        streams=streams,
    )
    metrics = MetricsServer(telemetry, settings.metrics_address_of(NAME))
    server = _server(settings, servicer, telemetry)
    return Service(NAME, [metrics, tracing, streams, intake, adapter, heartbeat, consumer, server])


def load_schemas(targets: Targets) -> dict[tuple[str, str], PayloadSchema]:
    """Read and compile every schema, by (target, source system).

    Raises: ConfigurationError that names the target and the source.
    """
    schemas = {}
    for target in targets.by_name.values():
        for source, path in target.schemas.items():
            place = f"targets.{target.name}: the schema {path} for {source}"
            try:
                schemas[target.name, source] = PayloadSchema(json.loads((targets.folder / path).read_text()))
            except OSError as error:
                raise ConfigurationError(f"{place} cannot be read; its path starts at the targets file") from error
            except BadSchema as error:
                raise ConfigurationError(f"{place} cannot be used: {error}") from error
            except ValueError as error:
                raise ConfigurationError(f"{place} is not JSON: {error}") from error
    return schemas


def new_worker_id() -> str:
    """Make an id that is unique per process start and says where the worker runs.

    In the order of their starts, as workers are counted: whoever has the one place of a target keeps it.
    """
    return f"{int(time.time()):x}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def _service_token(settings: HubSettings) -> ServiceToken:
    signer = TokenSigner(settings.effective_service_key, issuer=settings.jwt_issuer, audience=settings.jwt_audience)
    return ServiceToken(signer, service=NAME, scopes=[LIFECYCLE])


def _rpc_client(settings: HubSettings, service: str, token: ServiceToken) -> RpcClient:
    for address in settings.url_of(service).split(","):
        settings.check_link(address.strip())
    return RpcClient(
        settings.url_of(service), token, timeout_seconds=settings.rpc_timeout_seconds, tls=client_tls(settings)
    )


def _server(settings: HubSettings, servicer: OrchestratorServicer, telemetry: Telemetry) -> RpcServer:
    verifier = TokenVerifier(
        JwksSource(settings.effective_jwks), issuer=settings.jwt_issuer, audience=settings.jwt_audience
    )
    service = Servicer(
        name=SERVICE,
        implementation=servicer,
        add=orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server,
    )
    return RpcServer(
        settings.address_of(NAME),
        [service],
        stages(telemetry, verifier),
        grace_seconds=settings.grace_seconds,
        credentials=server_tls(settings),
    )
