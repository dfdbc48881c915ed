"""gRPC clients between the hub's services: deadline, token, correlation and error translation on every call."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import grpc

from chassis.correlation import METADATA_KEY, TRACEPARENT, correlation_id_var, traceparent_var
from chassis.settings import HubSettings, split_address
from chassis.status import from_rpc_error
from chassis.tls import ReloadingChannel, TlsFiles, tls_files
from chassis.tokens import ServiceToken

Response = TypeVar("Response")

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),  # answers come from our own services
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # it is for the way out of a network, and would not let loopback through
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Without a retry policy the channel repeats only what the server's application has certainly not seen, as a
    # draining server's refused streams (gRFC A6, transparent retries); every other repetition is the caller's.
    ("grpc.enable_retries", 1),
    # A server that says it drains is called no more, before it closes (gRFC A17).
    ("grpc.service_config", '{"healthCheckConfig": {"serviceName": ""}}'),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """How a client checks the server and shows itself."""

    files: TlsFiles
    #: The name in the servers' certificates; empty = the host that is called.
    server_name: str = ""

    def options(self, address: str) -> list[tuple[str, str]]:
        """The name is said, since that of a channel to several addresses would be none of theirs."""
        return [("grpc.ssl_target_name_override", self.server_name or split_address(address)[0])]


class RpcClient:
    """A channel to one service, spread over its addresses when there are several; a component."""

    def __init__(
        self, url: str, token: ServiceToken, *, timeout_seconds: float, tls: "ClientTls | None" = None
    ) -> None:
        target, first = channel_target(url)
        options = [*CHANNEL_OPTIONS, ("grpc.lb_policy_name", "round_robin")]
        self.channel = _channel(target, options, None if tls is None else (tls, first))
        self._token = token
        self._timeout_seconds = timeout_seconds

    async def unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Any, Response],
        request: Any,
        *,
        timeout_seconds: float | None = None,
    ) -> Response:
        """Call a unary method of a stub made on `channel`. Raises: HubError, rebuilt from the answer's status."""
        try:
            return await method(request, timeout=timeout_seconds or self._timeout_seconds, metadata=self.metadata())
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Any, Response],
        request: Any,
        *,
        timeout_seconds: float,
    ) -> AsyncIterator[Response]:
        """Call a method that answers with a stream. Raises: HubError, as `unary`."""
        try:
            async for response in method(request, timeout=timeout_seconds, metadata=self.metadata()):
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        pairs = [("authorization", self._token.header())]
        if correlation_id := correlation_id_var.get():
            pairs.append((METADATA_KEY, correlation_id))
        if traceparent := traceparent_var.get():
            pairs.append((TRACEPARENT, traceparent))
        return tuple(pairs)

    async def reachable(self, *, timeout_seconds: float) -> bool:
        """Whether a connection stands, waiting that long for one."""
        if self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return True
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.channel.channel_ready()
        except TimeoutError:
            return False
        return True

    async def start(self) -> None:
        """Do nothing: the channel connects by itself when it is used."""

    async def stop(self) -> None:
        """Close the channel."""
        await self.channel.close()


def channel_target(url: str) -> tuple[str, str]:
    """What gRPC connects to for host:port, or for several IPv4:port with commas between; and the first of them."""
    addresses = [address.strip() for address in url.split(",")]
    return addresses[0] if len(addresses) == 1 else "ipv4:" + ",".join(addresses), addresses[0]


def client_tls(settings: HubSettings) -> ClientTls | None:
    """What the settings say of encryption; None = plain text. Raises: ConfigurationError."""
    files = tls_files(settings)
    return None if files is None else ClientTls(files=files, server_name=settings.tls_server_name)


def _channel(target: str, options: list[tuple[str, Any]], secured: tuple[ClientTls, str] | None) -> grpc.aio.Channel:
    if secured is None:
        return grpc.aio.insecure_channel(target, options=options)
    tls, address = secured
    connect = partial(_secure, target, [*options, *tls.options(address)])
    return cast(grpc.aio.Channel, ReloadingChannel(tls.files, connect))


def _secure(target: str, options: list[tuple[str, Any]], credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(target, credentials, options=options)
