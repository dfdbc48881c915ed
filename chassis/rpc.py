"""gRPC servers: the one visible list of interceptor stages, health, reflection and a graceful stop.

Clients live in chassis.rpc_client.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from chassis.access import LIFECYCLE, PUBLIC_RPC_PREFIXES, RPC_SCOPES, Caller
from chassis.correlation import (
    METADATA_KEY,
    TRACEPARENT,
    clean_correlation_id,
    clean_traceparent,
    correlation_id_var,
    traceparent_var,
)
from chassis.errors import HubError, InternalError, InvalidRequest, PermissionDenied
from chassis.logs import bind, get_logger
from chassis.message_fields import SHORT_BYTES, has_few_fields
from chassis.status import to_status
from chassis.telemetry import UNMATCHED, Telemetry
from chassis.tokens import TokenVerifier

log = get_logger()

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
SERVER_OPTIONS = [
    ("grpc.so_reuseport", 0),  # else a second process on the port takes half the calls in silence
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.max_metadata_size", 16 * 1024),  # twice a token's limit; a call with more may be refused
    ("grpc.absolute_max_metadata_size", 32 * 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Clients spread anew over the servers there are; the grace is longer than any call.
    ("grpc.max_connection_idle_ms", 30 * 60_000),
    ("grpc.max_connection_age_ms", 60 * 60_000),
    ("grpc.max_connection_age_grace_ms", 10 * 60_000),
]

#: A drain closes the server when no call has come for so long, at the latest after a second: its callers have left.
QUIET_SECONDS = 0.1
LEAVE_SECONDS = 1.0
_WATCH = f"/{health.SERVICE_NAME}/Watch"

#: grpc.aio's context gives the code, its number, or None for a call that nobody has aborted, whatever its hint says.
_CODE_NAMES: dict[Any, str] = {key: code.name for code in grpc.StatusCode for key in (code, code.value[0])}

#: Calls between the hub's services, which know the id, and of batches, which carry one for each item: to send it back
#: would cost a message of its own.
_ANSWERED_WITHOUT_ID = frozenset(
    {method for method, scopes in RPC_SCOPES.items() if scopes == {LIFECYCLE}}
    | {"/integrationhub.intake.v1.IntakeService/BatchCreateIntegrationRequests"}
)

caller_var: ContextVar[Caller] = ContextVar("caller")


class RpcCall(NamedTuple):
    """What the stages know of a call."""

    method: str
    metadata: dict[str, str]
    context: grpc.aio.ServicerContext[Any, Any]


Stages = Callable[[RpcCall], AbstractAsyncContextManager[None]]


def stages(telemetry: Telemetry, verifier: TokenVerifier) -> Stages:
    """Every call passes these, outermost first: correlation, metrics, errors, authentication.

    They are one context manager, since one for each would cost more than what they do.
    """
    measure = _measuring(telemetry)

    @asynccontextmanager
    async def pass_all(call: RpcCall) -> AsyncIterator[None]:
        await _correlate(call)
        started, unset = time.perf_counter(), grpc.StatusCode.CANCELLED
        try:
            try:
                await _authenticate(call, verifier)
                yield
                unset = grpc.StatusCode.OK
                return
            except HubError as raised:
                error = raised
            except grpc.aio.AbortError:
                raise
            except Exception:  # the outermost frame of a call: a foreign exception is a bug of ours and says no more
                log.exception("Call failed", method=call.method)
                error = InternalError()
            await _refuse(call, error)
        finally:
            measure(call, started, unset)

    return pass_all


async def _correlate(call: RpcCall) -> None:
    """Take the caller's ids for this call's task, and send the correlation id back where somebody wants it."""
    correlation_id = clean_correlation_id(call.metadata.get(METADATA_KEY))
    correlation_id_var.set(correlation_id)
    traceparent_var.set(clean_traceparent(call.metadata.get(TRACEPARENT)))
    bind(correlation_id=correlation_id)
    if call.method not in _ANSWERED_WITHOUT_ID:
        await call.context.send_initial_metadata(((METADATA_KEY, correlation_id),))


def _measuring(telemetry: Telemetry) -> Callable[[RpcCall, float, grpc.StatusCode], None]:
    duration = telemetry.histogram("rpc_duration_ms")
    series = cache(lambda method, code: duration.labels(method=method, code=code))

    def measure(call: RpcCall, started: float, unset: grpc.StatusCode) -> None:
        code = _CODE_NAMES.get(call.context.code(), unset.name)
        series(call.method, code).observe((time.perf_counter() - started) * 1000)

    return measure


async def _authenticate(call: RpcCall, verifier: TokenVerifier) -> None:
    if call.method == UNMATCHED:  # nothing to protect; whoever asks is told UNIMPLEMENTED, as gRPC has it
        return
    caller = await verifier.verify_header(call.metadata.get("authorization"))
    scopes = RPC_SCOPES.get(call.method)
    if scopes is None:
        raise PermissionDenied(f"{call.method} is open to nobody.", method=call.method)
    caller.require(scopes)
    caller_var.set(caller)


async def _refuse(call: RpcCall, error: HubError) -> None:
    """Map what went wrong to a status with details."""
    status = rpc_status.to_status(to_status(error))
    await call.context.abort(status.code, status.details, trailing_metadata=status.trailing_metadata)


class _Interceptor(grpc.aio.ServerInterceptor):
    """Puts the stages around every handler that is not public."""

    def __init__(self, pass_all: Stages) -> None:
        self._pass_all = pass_all
        self._last_call = 0.0
        self._is_watched = False
        self._handlers: dict[str, Any] = {}
        self._unknown: Any = grpc.unary_unary_rpc_method_handler(self._unary(_refuse_unknown, bytes, UNMATCHED))

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = str(handler_call_details.method)
        self._last_call = time.monotonic()
        self._is_watched = self._is_watched or method == _WATCH
        if method not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:
                return self._unknown  # and not kept: there is no end of names
            self._handlers[method] = handler if method.startswith(PUBLIC_RPC_PREFIXES) else self._wrap(handler, method)
        return self._handlers[method]

    async def callers_leave(self) -> None:
        """Wait until those who watch this server's health, and are told that it goes, call no more; not for long."""
        if not self._is_watched:
            return
        began = time.monotonic()
        left = QUIET_SECONDS
        while left > 0 and time.monotonic() - began < LEAVE_SECONDS:
            await asyncio.sleep(left)
            left = self._last_call + QUIET_SECONDS - time.monotonic()

    def _wrap(self, handler: Any, method: str) -> Any:
        # the message stays bytes until the stages have let the call in: grpc answers UNKNOWN to what it cannot read
        read, codecs = handler.request_deserializer, {"response_serializer": handler.response_serializer}
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, read, method), **codecs)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._stream(handler.unary_stream, read, method), **codecs)
        raise NotImplementedError(f"{method} streams its requests; no stage is written for that")

    def _unary(self, behaviour: Any, read: Any, method: str) -> Any:
        async def call(message: bytes, context: Any) -> Any:
            async with self._pass_all(RpcCall(method, _metadata(context), context)):
                return await behaviour(_read(read, message), context)

        return call

    def _stream(self, behaviour: Any, read: Any, method: str) -> Any:
        async def call(message: bytes, context: Any) -> AsyncIterator[Any]:
            async with self._pass_all(RpcCall(method, _metadata(context), context)):
                async for response in behaviour(_read(read, message), context):
                    yield response

        return call


def _metadata(context: Any) -> dict[str, str]:
    return {key: value if isinstance(value, str) else "" for key, value in context.invocation_metadata() or ()}


async def _refuse_unknown(_: bytes, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


def _read(read: Any, message: bytes) -> Any:
    """Parse by a generated class's `FromString`. Raises: InvalidRequest."""
    if len(message) > SHORT_BYTES and not has_few_fields(message, read.__self__.DESCRIPTOR):
        raise InvalidRequest("The message is malformed, or holds more items than any call takes; send fewer.")
    try:
        return read(message)
    except DecodeError as error:
        raise InvalidRequest("The message is not the one of this method; check the contract's version.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Servicer:
    """One gRPC service to serve: its full name, its implementation and the generated function that adds it."""

    name: str
    implementation: object
    add: Callable[[Any, grpc.aio.Server], None]


class _ByName:
    """Adds services to a server whose methods it looks up by their names, through the interceptor.

    Generated code registers each method with grpc's core as well. The server then waits for one task per method and
    begins to wait anew for all of them at every call, which costs a call of twenty methods' server a tenth.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add them."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Leave them out: the generic handler has the same methods."""


class _Health(health.aio.HealthServicer):
    """The standard service, whose watches end when the server closes: grpc would wait for them as for any call."""

    def __init__(self) -> None:
        super().__init__()
        self._closes = asyncio.Event()

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - gRPC's name
        """Tell each change (gRPC), until nothing can change any more."""
        ends = [asyncio.create_task(super().Watch(request, context)), asyncio.create_task(self._closes.wait())]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                end.result()
        finally:
            for end in ends:
                end.cancel()

    def close(self) -> None:
        """End every watch."""
        self._closes.set()


class Part:
    """Something that may be away while its server serves all the rest: health tells of it under its own name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_there = True
        self._health: _Health | None = None

    @property
    def is_there(self) -> bool:
        """What was said last."""
        return self._is_there

    async def join(self, health: _Health) -> None:
        """Be told of by a server's health from now on."""
        self._health = health
        await self._say()

    async def tell(self, *, is_there: bool) -> None:
        """Say whether it is there."""
        if is_there != self._is_there:
            self._is_there = is_there
            await self._say()

    async def _say(self) -> None:
        if self._health is not None:
            statuses = health_pb2.HealthCheckResponse
            await self._health.set(self._name, statuses.SERVING if self._is_there else statuses.NOT_SERVING)


class RpcServer:
    """A gRPC server as a component: ready after `start`, drained by `stop`."""

    def __init__(
        self,
        address: str,
        servicers: Sequence[Servicer],
        pass_all: Stages,
        *,
        grace_seconds: float,
        credentials: grpc.ServerCredentials | None = None,
        parts: Sequence[Part] = (),
    ) -> None:
        """`credentials` encrypt the link (chassis.tls); None = plain text. Health tells of `parts` too."""
        self._parts = parts
        self._credentials = credentials
        self._address = address
        self._servicers = servicers
        self._pass_all = pass_all
        self._grace_seconds = grace_seconds
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen and say SERVING. Raises: OSError when the port is taken."""
        self._interceptor = _Interceptor(self._pass_all)
        server = grpc.aio.server(interceptors=[self._interceptor], options=SERVER_OPTIONS)
        self._health = _Health()
        by_name: Any = _ByName(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, by_name)
        for servicer in self._servicers:
            servicer.add(servicer.implementation, by_name)
        names = [servicer.name for servicer in self._servicers]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], by_name)
        try:
            if self._credentials is None:
                server.add_insecure_port(self._address)
            else:
                server.add_secure_port(self._address, self._credentials)
        except RuntimeError as error:
            raise OSError(
                f"The port of {self._address} is taken or not allowed; free it or set another address"
            ) from error
        await server.start()
        self._server = server
        for name in ["", *names]:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        for part in self._parts:
            await part.join(self._health)

    async def stop(self) -> None:
        """Say NOT_SERVING, let callers leave, refuse new calls, finish those in flight within the grace.

        A call that the closing meets before its handler has begun ends as CANCELLED, and nothing says that it was not
        begun; so who follows the health (gRFC A17) is to be gone by then.
        """
        if self._server is None:
            return
        server, self._server = self._server, None
        await self._health.enter_graceful_shutdown()
        await self._interceptor.callers_leave()
        self._health.close()
        await server.stop(self._grace_seconds)
