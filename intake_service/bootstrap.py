"""Builds the intake service; the only file of it that knows every concrete class."""

from chassis.clock import Clock
from chassis.database import Database, Store
from chassis.rate_limit import RateLimit
from chassis.rpc import Part, RpcServer, Servicer, stages
from chassis.service import Service
from chassis.settings import HubSettings
from chassis.streams import Streams
from chassis.telemetry import MetricsServer, Telemetry
from chassis.tls import server_tls
from chassis.tokens import JwksSource, TokenVerifier
from chassis.tracing import Tracing
from intake_service.aftermath import Aftermath
from intake_service.backlog import Backlog
from intake_service.commands import Commands
from intake_service.gauges import Gauges
from intake_service.outbox import Relay
from intake_service.queries import Queries
from intake_service.retention import Sweeper
from intake_service.scheduler import Scheduler
from intake_service.servicer import DeadLetterServicer, IntakeServicer, LifecycleServicer
from intake_service.settings import load_settings
from intake_service.settling import Settling
from intake_service.storage import StorageProbe
from intake_service.store.payloads import payload_option
from integrationhub.intake.v1 import dead_letters_pb2_grpc, intake_pb2_grpc, lifecycle_pb2_grpc


def prepare(hub: HubSettings) -> None:
    """Check the settings and bring the database to the newest schema, in a process that ends with it."""
    from intake_service.migrations import migrate  # alembic takes 8 MB, and the service itself needs none of it

    load_settings(hub)
    migrate(hub.effective_database_url)


async def build(hub: HubSettings, clock: Clock | None = None) -> Service:
    """Build everything; nothing runs yet. What is due is decided by `clock`, the database's own when there is none."""
    settings = load_settings(hub)
    telemetry = Telemetry("intake")
    tracing = Tracing.from_environment("intake")
    batch_items = telemetry.histogram("batch_items")
    aftermath: list[Aftermath] = []
    database = Database(hub.effective_database_url, clock=clock)
    if settings.payload_keys is not None:
        database.set_options(**payload_option(settings.payload_keys))
    store = Store(
        database,
        on_batch=batch_items.labels(batch="commit").observe,
        on_commit=lambda results, begun_ns: aftermath[0].committed(results, begun_ns),  # noqa: PLW0108 - built later
    )
    streams = Streams(hub.effective_redis_url, event_age_seconds=hub.event_hours * 3600)
    relay = Relay(store, streams, telemetry, tracing)
    backlog = Backlog(store, maximum=hub.max_backlog, maximum_per_partner=hub.max_backlog_per_partner)
    aftermath.append(Aftermath(relay, backlog, telemetry, tracing))
    rate_limit = RateLimit(hub.effective_redis_url, telemetry.counter("rate_limit_open_total"))
    storage = Part("storage")
    commands = Commands(
        store, backlog, settings.targets, telemetry, rate_limit, storage, rate_per_minute=hub.partner_rate_per_minute
    )
    queries = Queries(store)
    keys = JwksSource(hub.effective_jwks)
    verifier = TokenVerifier(keys, issuer=hub.jwt_issuer, audience=hub.jwt_audience)
    server = RpcServer(
        hub.intake_address,
        [
            Servicer(
                name="integrationhub.intake.v1.IntakeService",
                implementation=IntakeServicer(commands, queries),
                add=intake_pb2_grpc.add_IntakeServiceServicer_to_server,
            ),
            Servicer(
                name="integrationhub.intake.v1.LifecycleService",
                implementation=LifecycleServicer(commands),
                add=lifecycle_pb2_grpc.add_LifecycleServiceServicer_to_server,
            ),
            Servicer(
                name="integrationhub.intake.v1.DeadLetterService",
                implementation=DeadLetterServicer(queries, Settling(commands, queries)),
                add=dead_letters_pb2_grpc.add_DeadLetterServiceServicer_to_server,
            ),
        ],
        stages(telemetry, verifier),
        grace_seconds=hub.grace_seconds,
        credentials=server_tls(hub),
        parts=[storage],
    )
    metrics = MetricsServer(telemetry, hub.intake_metrics_address)
    scheduler = Scheduler(store, streams, relay, telemetry)
    by_target = [{"target": name} for name in settings.targets.by_name]
    for name in ("due_rings_total", "integration_requests_total_duration_ms"):
        telemetry.start_at_zero(name, by_target)
    gauges = Gauges(store, telemetry, settings.targets.by_name)
    sweeper = Sweeper(store, telemetry, days=hub.retention_days)
    probe = StorageProbe(store, storage)
    return Service(
        "intake",
        [tracing, metrics, keys, store, streams, rate_limit, backlog, gauges, relay, scheduler, sweeper, probe, server],
    )
