"""gRPC clients between the hub's services: deadline, token, correlation and error translation on every call."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc

from chassis.correlation import METADATA_KEY, TRACEPARENT, correlation_id_var, traceparent_var
from chassis.status import from_rpc_error
from chassis.tokens import ServiceToken

Response = TypeVar("Response")

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),  # answers come from our own services
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Without a retry policy the channel repeats only what the server's application has certainly not seen, as a
    # draining server's refused streams (gRFC A6, transparent retries); every other repetition is the caller's.
    ("grpc.enable_retries", 1),
]


class RpcClient:
    """A channel to one service, spread over its addresses when there are several; a component."""

    def __init__(self, url: str, token: ServiceToken, *, timeout_seconds: float) -> None:
        addresses = [address.strip() for address in url.split(",")]
        target = addresses[0] if len(addresses) == 1 else "ipv4:" + ",".join(addresses)
        options = [*CHANNEL_OPTIONS, ("grpc.lb_policy_name", "round_robin")]
        self.channel = grpc.aio.insecure_channel(target, options=options)
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
