"""The one pass around every call: correlation, errors as problems, headers on every answer, the metric.

One plain ASGI layer instead of a middleware each: on the hot path every layer costs as much as the work itself.
"""

import time
from collections.abc import Iterable

from prometheus_client import Histogram
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.correlation import HEADER, clean_correlation_id, clean_traceparent, correlation_id_var, traceparent_var
from chassis.errors import HubError, InternalError
from chassis.logs import bind, get_logger
from chassis.telemetry import UNMATCHED, Telemetry
from gateway.headers import header_text, headers_of, path_of
from gateway.problems import COLLECTION, MethodNotAllowed, RouteNotFound, problem_headers, status_of, to_problem
from gateway.readiness import Readiness
from gateway.request_body import linger, must_close

log = get_logger()

#: Where a route leaves its template for the metric.
ROUTE = "hub.route"
#: As nginx counts a client that went away before the answer.
CLIENT_GONE = 499

_CORRELATION_HEADER = HEADER.lower().encode()
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_PERCENT = ord("%")
_CLOSE = (b"connection", b"close")


class Edge:
    """Wraps the router."""

    def __init__(
        self, router: ASGIApp, routes: Iterable[BaseRoute], telemetry: Telemetry, readiness: Readiness
    ) -> None:
        self._router = router
        self._routes = routes
        #: Routes without a parameter are looked up; the router would try one pattern after the other.
        self._fixed: dict[tuple[str, str], ASGIApp] = {
            (method, route.path): route.app
            for route in routes
            if isinstance(route, Route) and not route.param_convertors
            for method in route.methods or ()
        }
        self._readiness = readiness
        self._duration = telemetry.histogram("http_request_duration_ms")
        telemetry.start_at_zero(
            "http_request_duration_ms", [{"route": COLLECTION, "status": status} for status in ("202", "500", "503")]
        )
        self._series: dict[tuple[str, int], Histogram] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call (ASGI); whatever is not HTTP is none of ours."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        headers = headers_of(scope)
        correlation_id = clean_correlation_id(header_text(headers, _CORRELATION_HEADER))
        correlation_id_var.set(correlation_id)
        traceparent_var.set(clean_traceparent(header_text(headers, b"traceparent")))
        if scope["method"] == "HEAD":  # answered as GET; the server leaves the body out
            scope = {**scope, "method": "GET"}
        answer = _Answer(send, correlation_id, self._readiness.draining)
        # bound for good: a call has a task, and so a context, of its own
        bind(correlation_id=correlation_id)
        try:
            await self._serve(scope, receive, answer)
        finally:
            self._observe(scope.get(ROUTE, UNMATCHED), answer.status, time.perf_counter() - started)

    def _observe(self, route: str, status: int, seconds: float) -> None:
        series = self._series.get((route, status))
        if series is None:
            series = self._series[route, status] = self._duration.labels(route=route, status=str(status))
        series.observe(seconds * 1000)

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        try:
            if _PERCENT in scope["raw_path"]:  # no path of ours needs it; %2F and %00 would be matched decoded
                raise RouteNotFound("There is no such path; /docs lists them.")
            serve = self._fixed.get((scope["method"], scope["path"]), self._router)
            await serve(scope, receive, answer.send)
            return
        except ClientDisconnect:
            log.info("Client went away", route=scope.get(ROUTE, UNMATCHED))
            return
        except HubError as raised:
            error = raised
        except HTTPException as raised:
            error = self._routing_error(raised, scope)
        except Exception:  # the outermost frame of a call
            log.exception("Call failed", route=scope.get(ROUTE, UNMATCHED))
            error = InternalError()
        await self._refuse(error, scope, receive, answer)

    async def _refuse(self, error: HubError, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if answer.status != CLIENT_GONE:
            raise error  # half an answer is out; the server cuts the connection
        status = status_of(error)
        log.warning("Call refused", reason=error.reason, status=status, route=scope.get(ROUTE, UNMATCHED))
        body = to_problem(error, path=path_of(scope), correlation_id=correlation_id_var.get())
        response = Response(body, status, problem_headers(error))
        if not must_close(scope):
            await response(scope, receive, answer.send)
            return
        answer.close = True
        await answer.send({"type": "http.response.start", "status": status, "headers": response.raw_headers})
        await answer.send({"type": "http.response.body", "body": body, "more_body": True})
        await linger(receive)
        await answer.send({"type": "http.response.body", "body": b""})

    def _routing_error(self, raised: HTTPException, scope: Scope) -> HubError:
        if raised.status_code != 405:
            return RouteNotFound("There is no such path; /docs lists them.")
        methods = {
            method
            for route in self._routes
            if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE
            for method in route.methods or ()
        }
        allow = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
        return MethodNotAllowed(f"This path takes {allow}.", allow=allow)


class _Answer:
    """Puts the headers that every answer carries onto it, and keeps its status."""

    __slots__ = ("_correlation_id", "_send", "close", "status")

    def __init__(self, send: Send, correlation_id: str, close: bool) -> None:
        self._send = send
        self._correlation_id = correlation_id
        self.close = close
        self.status = CLIENT_GONE

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"]
            headers.append((_CORRELATION_HEADER, self._correlation_id.encode()))
            headers.append(_NOSNIFF)
            if self.close:
                headers.append(_CLOSE)
        await self._send(message)
