"""The application: every route, who may call it, how the OpenAPI document describes it.

FastAPI keeps the routes and writes the document. Its dependency machinery and middleware stack are left out: the
endpoints take plain requests, and gateway.edge is the only layer around them.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis.access import ROUTE_SCOPES
from chassis.telemetry import Telemetry
from chassis.tokens import TokenVerifier
from chassis.tracing import Tracing
from gateway.auth import authenticate
from gateway.docs import DocsRoutes
from gateway.edge import ROUTE, Edge
from gateway.intake_client import IntakeClient
from gateway.openapi import components, operation
from gateway.probes import ProbeRoutes
from gateway.problems import COLLECTION
from gateway.readiness import Readiness
from gateway.routes import CALLER, IntegrationRequestRoutes

Endpoint = Callable[[Request], Awaitable[Response]]

DESCRIPTION = (
    "Takes business documents from partners and guarantees that each reaches its external system, or says why not. "
    "Every answer carries `X-Correlation-ID`; every error is a problem document (RFC 9457)."
)
#: FastAPI's own spans and metrics would cost more than the call; the hub has its own (chassis.tracing, .telemetry).
NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}


class GatewayApp(FastAPI):
    """FastAPI with one layer around its router and the schemas of the bodies that are really sent."""

    def __init__(self, telemetry: Telemetry, readiness: Readiness) -> None:
        super().__init__(
            telemetry=NO_TELEMETRY,
            title="Integration Hub",
            version="1",
            description=DESCRIPTION,
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
        )
        self._telemetry_of_calls = telemetry
        self._readiness = readiness

    #: FastAPI's own looks for a root path and for its telemetry before it comes to this.
    __call__ = Starlette.__call__

    def build_middleware_stack(self) -> ASGIApp:
        """Put the edge around the router (FastAPI calls this before the first request)."""
        return Edge(self.router, self.router.routes, self._telemetry_of_calls, self._readiness)

    def openapi(self) -> dict[str, Any]:
        """Give the OpenAPI document, made once."""
        if not self.openapi_schema:
            self.openapi_schema = {**super().openapi(), "components": components()}
        return self.openapi_schema


def build_app(
    *, intake: IntakeClient, verifier: TokenVerifier, readiness: Readiness, telemetry: Telemetry, tracing: Tracing
) -> GatewayApp:
    """Put the application together. Raises: KeyError for a route without scopes or description."""
    app = GatewayApp(telemetry, readiness)
    requests = IntegrationRequestRoutes(intake, tracing)
    probes = ProbeRoutes(readiness)
    docs = DocsRoutes(app.openapi)
    endpoints: dict[str, Endpoint] = {
        f"POST {COLLECTION}": requests.create,
        f"GET {COLLECTION}": requests.list_requests,
        f"GET {COLLECTION}/{{id}}": requests.get,
        f"GET {COLLECTION}/{{id}}/history": requests.list_history,
        "GET /healthz": probes.healthz,
        "GET /readyz": probes.readyz,
        "GET /openapi.json": docs.openapi,
        "GET /docs": docs.page,
        "GET /docs/{asset}": docs.asset,
    }
    for route, endpoint in endpoints.items():
        _add(app, route, endpoint, verifier)
    return app


def _add(app: FastAPI, route: str, endpoint: Endpoint, verifier: TokenVerifier) -> None:
    method, path = route.split(" ")
    described = operation(route)  # with all its media types: FastAPI would add JSON to them
    app.router.add_api_route(
        path, endpoint, methods=[method], response_model=None, response_class=Response, **described
    )
    added = app.router.routes[-1]
    assert isinstance(added, APIRoute)
    added.app = _guarded(endpoint, path, ROUTE_SCOPES[route], verifier)


def _guarded(endpoint: Endpoint, path: str, scopes: frozenset[str] | None, verifier: TokenVerifier) -> ASGIApp:
    """Serve a route behind its scopes; None is open to everybody."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        scope[ROUTE] = path
        if scopes is not None:
            scope[CALLER] = await authenticate(verifier, scope, scopes)
        response = await endpoint(Request(scope, receive))
        await response(scope, receive, send)

    return serve
