"""One HTTP call in hand: its parts, and every way in which an answer can leave, or fail to.

The transport comes from `server.SimulatorProtocol`: a reset cannot be said in ASGI.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from simulator.answers import Answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

TRANSPORT = "simulator.transport"
CALLS_KEPT = 10_000
LINGER_ZERO = struct.pack("ii", 1, 0)  # close() then sends RST instead of FIN
DRIPS = 20
CHUNK_BYTES = 256 * 1024


class Call(msgspec.Struct, kw_only=True, gc=False, rename="camel"):
    """Record a call when it arrives; `status` stays None until an answer starts, and for ever when none does."""

    at: float
    target: str
    method: str
    path: str
    query: str
    correlation_id: str | None
    traceparent: str | None
    idempotency_key: str | None
    status: int | None = None
    fault: str | None = None


Calls = deque[Call]


class Exchange:
    """Carry one call from its headers to the last byte of its answer."""

    __slots__ = ("_receive", "_send", "body", "call", "headers", "scope")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.body = b""
        self.call: Call | None = None
        self._receive = receive
        self._send = send

    def header(self, name: bytes) -> str | None:
        """Read a header (lower-case name) as text."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def read_body(self) -> bool:
        """Read the whole body into `body`; False when the caller went away first."""
        message = await self._receive()
        chunks = []
        while message["type"] == "http.request":
            chunks.append(message["body"])
            if not message["more_body"]:
                self.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                return True
            message = await self._receive()
        return False

    async def answer(self, answer: Answer) -> None:
        """Send an answer whole."""
        await self._start(answer)
        await self._send({"type": "http.response.body", "body": answer.body})

    async def answer_in_chunks(self, answer: Answer) -> None:
        """Send a big answer no faster than it is read."""
        await self._start(answer)
        for offset in range(0, len(answer.body), CHUNK_BYTES):
            await self._send_part(answer.body[offset : offset + CHUNK_BYTES])
        await self._send({"type": "http.response.body"})

    async def drip(self, answer: Answer, seconds: float, pause: Callable[[float], Awaitable[None]]) -> None:
        """Send the headers at once and the body in small pieces spread over `seconds`."""
        await self._start(answer)
        size = max(1, -(-len(answer.body) // DRIPS))
        pieces = [answer.body[offset : offset + size] for offset in range(0, len(answer.body), size)]
        for piece in pieces:
            await pause(seconds / len(pieces))
            await self._send_part(piece)
        await self._send({"type": "http.response.body"})

    async def cut(self, answer: Answer) -> None:
        """Send the headers and half of the body they announce, then close."""
        await self._start(answer)
        await self._send_part(answer.body[: len(answer.body) // 2])
        self.scope["extensions"][TRANSPORT].close()
        await self.wait_for_disconnect()

    async def reset(self) -> None:
        """End the connection with a TCP reset; whatever was not sent is thrown away."""
        transport: asyncio.Transport = self.scope["extensions"][TRANSPORT]
        if not transport.is_closing():
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            transport.abort()
        await self.wait_for_disconnect()

    async def wait_for_disconnect(self) -> None:
        """Keep silent until the connection is gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _start(self, answer: Answer) -> None:
        if self.call is not None:
            self.call.status = answer.status
        length = b"%d" % len(answer.body)
        headers = ((b"content-type", answer.content_type), (b"content-length", length), *answer.headers)
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})

    async def _send_part(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
