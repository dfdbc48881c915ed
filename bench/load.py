"""The load generator: partners that send orders, at a steady rate or as fast as they are answered.

Its cost is taken from the machine that is measured, so it speaks HTTP over bare connections: about 25 us of CPU per
request, where an HTTP client takes 180.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import cast
from urllib.parse import urlsplit

import msgspec

ORDER = (
    '{{"externalId":"{key}","sourceSystem":"SAP","targetSystem":"{target}",'
    '"payload":{{"orderId":"ORD-2024-001","customer":"Empresa ABC","amount":15000.00}}}}'
)
ANSWER_SECONDS = 60.0
_END = b"\r\n\r\n"


@dataclass(slots=True, kw_only=True)
class Sent:
    """What partners saw: when each accepted request was answered, and how many were not accepted."""

    #: Unix time of each 202, by request id.
    accepted_at: dict[str, float] = field(default_factory=dict)
    accept_seconds: list[float] = field(default_factory=list)
    refused: dict[int, int] = field(default_factory=dict)
    #: Refusals that did not say when to come back.
    without_retry_after: int = 0
    #: Requests whose answer never came, since the connection broke: nobody knows whether they were accepted.
    broken: int = 0


class _Accepted(msgspec.Struct):
    id: str


_accepted = msgspec.json.Decoder(_Accepted)


class _Connection(asyncio.Protocol):
    """One connection that is kept, with at most one request in flight."""

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes, bytes]] | None = None
        self._transport: asyncio.WriteTransport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is none by its type

    async def send(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Gives status, head and body of the answer. Raises: ConnectionError; TimeoutError."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(_END)
        if end < 0:
            return
        head = self._received[:end]
        whole = end + len(_END) + _content_length(head)
        if len(self._received) < whole:
            return
        body, self._received = self._received[end + len(_END) : whole], self._received[whole:]
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((int(head[9:12]), head, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError(str(exc or "closed by the server")))


class Partners:
    """Many partners behind one connection pool."""

    def __init__(
        self, base_url: str, token: str, *, prefix: str, target: str = "TotvsProtheus", connections: int = 64
    ) -> None:
        address = urlsplit(base_url)
        assert address.hostname is not None
        assert address.port is not None
        self._address = (address.hostname, address.port)
        self._head = (
            f"POST /api/integration-requests HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        self._connections = connections
        self._target = target
        self._keys = (f"{prefix}-{number}" for number in count())
        self._idle: deque[_Connection] = deque()
        self._slots = asyncio.Semaphore(connections)

    async def send_steadily(self, *, per_second: float, seconds: float) -> Sent:
        """Send at a fixed rate whatever the answers do (open loop), so that a slow hub cannot slow the load."""
        sent = Sent()
        tasks = []
        start = time.perf_counter()
        for number in range(round(per_second * seconds)):
            await asyncio.sleep(max(0.0, start + number / per_second - time.perf_counter()))
            tasks.append(asyncio.create_task(self._send(sent)))
        await asyncio.gather(*tasks)
        self._close()
        return sent

    async def send_flat_out(self, *, seconds: float) -> Sent:
        """Send over every connection as soon as the answer before it has come (closed loop).

        A sender whose connection breaks stops.
        """
        sent = Sent()
        end = time.perf_counter() + seconds

        async def run() -> None:
            while time.perf_counter() < end and await self._send(sent):
                pass

        await asyncio.gather(*[run() for _ in range(self._connections)])
        self._close()
        return sent

    async def _send(self, sent: Sent) -> bool:
        """Send one order; gives whether it was answered."""
        body = ORDER.format(key=next(self._keys), target=self._target)
        request = f"{self._head}{len(body)}\r\n\r\n{body}".encode()
        async with self._slots:
            started = time.perf_counter()
            try:
                connection = await self._connection()
                async with asyncio.timeout(ANSWER_SECONDS):
                    status, head, answer = await connection.send(request)
            except (OSError, TimeoutError):
                sent.broken += 1
                return False
            now = time.time()
            self._idle.append(connection)
        if status == 202:
            sent.accepted_at[_accepted.decode(answer).id] = now
            sent.accept_seconds.append(time.perf_counter() - started)
        else:
            sent.refused[status] = sent.refused.get(status, 0) + 1
            sent.without_retry_after += b"\r\nretry-after:" not in head.lower()
        return True

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.popleft()
            if connection.is_open:
                return connection
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, *self._address)
        return connection

    def _close(self) -> None:
        while self._idle:
            self._idle.popleft().close()


def _content_length(head: bytes) -> int:
    lower = head.lower()
    start = lower.find(b"\r\ncontent-length:")
    if start < 0:
        raise ValueError("the answer does not say how long it is")
    return int(lower[start + 17 :].split(b"\r\n", 1)[0])
