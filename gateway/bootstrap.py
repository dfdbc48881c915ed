"""The gateway's parts and how they are put together; the only file that knows every concrete class."""

from chassis.access import ACT_FOR_PARTNER, REQUESTS_READ, REQUESTS_WRITE
from chassis.rpc_client import RpcClient, client_tls
from chassis.service import Service
from chassis.settings import HubSettings
from chassis.telemetry import MetricsServer, Telemetry
from chassis.tls import gateway_tls_files
from chassis.tokens import JwksSource, ServiceToken, TokenSigner, TokenVerifier
from chassis.tracing import Tracing
from gateway.app import build_app
from gateway.intake_client import IntakeClient
from gateway.readiness import Readiness
from gateway.server import HttpServer

SERVICE = "gateway"


async def build(settings: HubSettings) -> Service:
    """Build the service.

    Raises: ConfigurationError for a link that is not allowed, a signing key or a key set that cannot be read.
    """
    intake_url = settings.url_of("intake")
    for address in intake_url.split(","):
        settings.check_link(address.strip())
    https = gateway_tls_files(settings)
    settings.check_link(settings.address_of(SERVICE), encrypted=https is not None)
    settings.check_link(settings.metrics_address_of(SERVICE), encrypted=False)
    issuer, audience = settings.jwt_issuer, settings.jwt_audience
    keys = JwksSource(settings.effective_jwks)
    await keys.keys(refresh=False)  # a gateway that can check nobody's token must say so at its start
    signer = TokenSigner(settings.effective_service_key, issuer=issuer, audience=audience)
    token = ServiceToken(signer, service=SERVICE, scopes=(REQUESTS_WRITE, REQUESTS_READ, ACT_FOR_PARTNER))

    telemetry = Telemetry(SERVICE)
    tracing = Tracing.from_environment(SERVICE)
    client = RpcClient(intake_url, token, timeout_seconds=settings.rpc_timeout_seconds, tls=client_tls(settings))
    intake = IntakeClient(client, telemetry, timeout_seconds=settings.rpc_timeout_seconds)
    readiness = Readiness(client)
    app = build_app(
        intake=intake,
        verifier=TokenVerifier(keys, issuer=issuer, audience=audience),
        readiness=readiness,
        telemetry=telemetry,
        tracing=tracing,
    )
    metrics = MetricsServer(telemetry, settings.metrics_address_of(SERVICE))
    server = HttpServer(app, settings.address_of(SERVICE), readiness, grace_seconds=settings.grace_seconds, tls=https)
    return Service(SERVICE, [tracing, metrics, client, intake, server])
