"""What partners call: create, get, list, history. Each is one read, one call to intake, one answer.

Who may call is settled before (gateway.app, chassis.access); bodies and queries are read in gateway.mapping and
gateway.list_query; errors become problems in gateway.edge.
Journey 1/5. Before: a partner's call. After: intake_service/commands.py.
"""

from functools import partial
from typing import Any

import msgspec
from opentelemetry.trace import SpanKind
from starlette.requests import Request
from starlette.responses import Response

from chassis.access import Caller
from chassis.correlation import correlation_id_var, traceparent_var
from chassis.json_text import LONG_BYTES
from chassis.logs import bind, get_logger
from chassis.tracing import Tracing, trace_fields
from gateway.headers import header_text, headers_of, raw_headers
from gateway.intake_client import IntakeClient
from gateway.list_query import read_list_query
from gateway.mapping import (
    etag_matches,
    read_create_body,
    read_id,
    to_accepted_body,
    to_body,
    to_create_request,
    to_etag,
    to_history_body,
    to_list_body,
)
from gateway.problems import COLLECTION, rate_headers
from gateway.request_body import read_json_body
from integrationhub.intake.v1.intake_pb2 import CreateIntegrationRequestRequest

log = get_logger()

#: Where the route's guard leaves the verified caller.
CALLER = "hub.caller"

_NO_STORE = (b"cache-control", b"no-store")
_JSON = (b"content-type", b"application/json")
#: A partner's own copy, asked for again each time: If-None-Match makes that cheap.
_REVALIDATE = {"Cache-Control": "private, no-cache"}


class IntegrationRequestRoutes:
    """The endpoints under /api/integration-requests."""

    def __init__(self, intake: IntakeClient, tracing: Tracing) -> None:
        self._intake = intake
        self._tracing = tracing

    async def create(self, request: Request) -> Response:
        """Answer 202 once the request is durable."""
        caller = _caller(request)
        with self._tracing.span(
            "api.integration-requests.create", traceparent_var.get(), SpanKind.SERVER
        ) as traceparent:
            text = await read_json_body(request.scope, request.receive)
            if len(text) < LONG_BYTES:
                created = await self._intake.create(_to_request(text, caller, traceparent))
            else:
                prepare = partial(_to_request, text, caller, traceparent)
                created = await self._intake.create_in_turn(prepare, size=len(text))
        stored = created.integration_request
        headers = [(b"location", f"{COLLECTION}/{stored.id}".encode()), _NO_STORE]
        if created.HasField("rate"):
            rate = created.rate
            headers += raw_headers(
                rate_headers(limit=rate.limit, remaining=rate.remaining, reset_seconds=rate.reset_seconds)
            )
        return _JsonResponse(to_accepted_body(stored), headers, 202)

    async def get(self, request: Request) -> Response:
        """Answer one request of the caller's partner, or 304 when the caller's copy is current."""
        request_id = read_id(request.path_params["id"])
        stored = await self._intake.get(request_id, _caller(request))
        headers = {"ETag": to_etag(stored), **_REVALIDATE}
        if etag_matches(header_text(headers_of(request.scope), b"if-none-match"), headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return _JsonResponse(to_body(stored), raw_headers(headers))

    async def list_requests(self, request: Request) -> Response:
        """Answer one page of the requests of the caller's partner."""
        caller = _caller(request)
        query = read_list_query(request.scope["query_string"], partner_id=caller.partner_id, limits=caller.limits)
        return _JsonResponse(to_list_body(await self._intake.list_requests(query)), [_NO_STORE])

    async def list_history(self, request: Request) -> Response:
        """Answer everything that happened to one request of the caller's partner."""
        request_id = read_id(request.path_params["id"])
        story = await self._intake.list_history(request_id, _caller(request))
        return _JsonResponse(to_history_body(story), [_NO_STORE])


def _to_request(text: bytes, caller: Caller, traceparent: str) -> CreateIntegrationRequestRequest:
    """Read a create. Raises: MalformedRequest; InvalidRequest."""
    body = read_create_body(text)
    # bound for good: the call has a context of its own
    bind(partner_id=caller.partner_id, **trace_fields(traceparent))
    log.info("Integration request received", external_id=body.external_id)
    return to_create_request(
        body,
        partner_id=caller.partner_id,
        limits=caller.limits,
        correlation_id=correlation_id_var.get(),
        traceparent=traceparent,
    )


def _caller(request: Request) -> Caller:
    caller: Any = request.scope[CALLER]
    assert isinstance(caller, Caller)
    return caller


class _JsonResponse(Response):
    """A JSON body whose headers are bytes already; Starlette's own encodes each anew for every answer."""

    def __init__(self, body: msgspec.Struct, headers: list[tuple[bytes, bytes]], status: int = 200) -> None:
        self.status_code = status
        self.background = None
        self.body = msgspec.json.encode(body)
        self.raw_headers = [*headers, (b"content-length", b"%d" % len(self.body)), _JSON]
