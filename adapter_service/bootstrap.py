"""Puts the adapter service together: the only file here that knows every concrete class."""

from adapter_service.attempts import Attempts
from adapter_service.outcome import Absent, Delivered, Found, NotKnown, Rejected, Throttled, Unavailable, Unknown
from adapter_service.registry import build_systems
from adapter_service.servicer import AdapterServicer
from chassis.rpc import RpcServer, Servicer, stages
from chassis.service import Service
from chassis.settings import HubSettings
from chassis.targets import load_targets
from chassis.telemetry import MetricsServer, Telemetry
from chassis.tls import server_tls
from chassis.tokens import JwksSource, TokenVerifier
from chassis.tracing import Tracing
from integrationhub.adapter.v1 import adapter_pb2, adapter_pb2_grpc

SERVICE_NAME = adapter_pb2.DESCRIPTOR.services_by_name["AdapterService"].full_name


async def build(settings: HubSettings) -> Service:
    """Build the service. Raises: ConfigurationError that names the setting, or the target and its key."""
    settings.check_link(settings.adapter_address)
    settings.check_link(settings.adapter_metrics_address, encrypted=False)
    systems = build_systems(load_targets(settings.targets))
    telemetry = Telemetry("adapter")
    telemetry.start_at_zero("external_system_call_duration_ms", [{"system": name} for name in systems])
    outcomes = {"deliver": (Delivered, Rejected, Throttled, Unavailable, Unknown), "lookup": (Found, Absent, NotKnown)}
    telemetry.start_at_zero(
        "external_system_calls_total",
        [
            {"system": name, "operation": operation, "outcome": outcome.__name__}
            for name in systems
            for operation, each in outcomes.items()
            for outcome in each
        ],
    )
    telemetry.start_at_zero("duplicates_in_target_total", [{"target": name} for name in systems])
    tracing = Tracing.from_environment("adapter")
    verifier = TokenVerifier(
        JwksSource(settings.effective_jwks), issuer=settings.jwt_issuer, audience=settings.jwt_audience
    )
    servicer = AdapterServicer(systems, Attempts(telemetry, tracing), telemetry)
    server = RpcServer(
        settings.adapter_address,
        [
            Servicer(
                name=SERVICE_NAME,
                implementation=servicer,
                add=adapter_pb2_grpc.add_AdapterServiceServicer_to_server,
            )
        ],
        stages(telemetry, verifier),
        grace_seconds=settings.grace_seconds,
        credentials=server_tls(settings),
    )
    metrics = MetricsServer(telemetry, settings.adapter_metrics_address)
    return Service("adapter", [tracing, metrics, *systems.values(), server])
