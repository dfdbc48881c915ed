"""HTTP calls to systems outside the hub: one client per system; a call with a body is sent once, never repeated.

Every call ends in one of three ways, told apart with certainty, because an order may hang on it:

    NotSent ──── nothing of it left this process: no address, no connection, no TLS, no time left to connect
    NoAnswer ─── it left, or may have, and no complete answer came: reset, end, timeout
    HttpAnswer ─ an answer, whatever its status; redirects are answers too

The line between the first two is one statement of `_Exchange`: headers and body are given to the connection together,
and before that the exchange notes that it has begun.

aiohttp makes, secures, keeps and parses the connections; its session is left out, which takes a task and twice as much
time for each call to do what no call here wants: cookies, redirects, proxies, repetitions. Through httpx's aiohttp
transport a reset after the order was stored is a ConnectTimeout, as is a refused connection.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import aiohttp
import msgspec
from aiohttp.http import HttpProcessingError
from yarl import URL

from chassis.deadlines import Deadlines

CONNECT_SECONDS = 10.0
#: Below the idle time after which common servers close (gunicorn 2 s, node and uvicorn 5 s): a call on a connection
#: that is being closed ends in NoAnswer although nothing is wrong.
KEEP_ALIVE_SECONDS = 1.9
DNS_CACHE_SECONDS = 10
MAX_BODY_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 8190
MAX_HEADERS = 100
#: A target's documents go to one URL; those of its lookups name a request each.
DESTINATIONS = 16
CONNECT_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
OWN_HEADERS = {"User-Agent": "integration-hub", "Accept": "application/json", "Accept-Encoding": "identity"}


class NotSent(Exception):
    """Nothing was sent, or the system has certainly not applied it; `detail` is a sentence without URL or secret."""

    def __init__(self, detail: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class CertificateNotTrusted(NotSent):
    """The system's certificate is not accepted, so that nothing was sent."""


class NoAnswer(Exception):
    """It was sent, at least in part, and no complete answer came: it may have been applied."""

    def __init__(self, detail: str, *, timed_out: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.timed_out = timed_out


class HttpAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    status: int
    #: Names in any case.
    headers: Mapping[str, str]
    #: Decompressed; at most MAX_BODY_BYTES and a little.
    body: bytes
    #: False when the body is longer than that: the rest was not read.
    is_complete: bool


class HttpClient:
    """Connections to one system; a component. It has no limit on calls at once: that is the caller's."""

    def __init__(self) -> None:
        self._connector: aiohttp.TCPConnector | None = None
        self._deadlines = Deadlines()
        self._destination: Callable[[str], _Destination] = lru_cache(maxsize=DESTINATIONS)(_destination)

    async def start(self) -> None:
        """Make the connection pool; nothing is connected yet."""
        self._connector = aiohttp.TCPConnector(
            limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ttl_dns_cache=DNS_CACHE_SECONDS
        )

    async def stop(self) -> None:
        """Close the connections."""
        if self._connector is not None:
            connector, self._connector = self._connector, None
            await connector.close()

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], deadline: float, body: bytes | None = None
    ) -> HttpAnswer:
        """Make one call and read its answer; `url` is sent as it is, quoted already.

        `headers` stand beside OWN_HEADERS, or instead of them under the same names.
        `deadline` is an instant of the event loop's clock and covers everything, connecting included.
        A call without a body (a GET) may be repeated once, on a connection that turns out to be closed.

        Raises: NotSent, CertificateNotTrusted among it; NoAnswer.
        """
        assert self._connector is not None, "the client was not started"
        exchange = _Exchange(self._connector)
        try:
            with self._deadlines.until(deadline):
                destination = self._destination(url)
                try:
                    return await exchange.make(method, destination, headers, body)
                except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                    if body is not None or not exchange.has_begun:
                        raise
                    return await exchange.make(method, destination, headers, body)
        # TimeoutError is an OSError
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            if not exchange.has_begun:
                raise _not_sent(error) from error
            timed_out = isinstance(error, TimeoutError)
            detail = "no complete answer in time" if timed_out else "the connection ended without a complete answer"
            raise NoAnswer(detail, timed_out=timed_out) from error


class _Destination(NamedTuple):
    """Where a URL leads."""

    #: Names the origin to aiohttp's connector; it is never sent.
    origin: aiohttp.ClientRequest
    path: str
    #: The headers that are the same in every call.
    headers: Mapping[str, str]


class _Exchange:
    """One call on one connection."""

    __slots__ = ("_connector", "has_begun")

    def __init__(self, connector: aiohttp.TCPConnector) -> None:
        self._connector = connector
        #: Whether a byte may have left this process.
        self.has_begun = False

    async def make(self, method: str, to: _Destination, headers: Mapping[str, str], body: bytes | None) -> HttpAnswer:
        """Write the call and read its answer. Raises: what aiohttp raises, and ValueError for a header."""
        self.has_begun = False
        connection = await self._connector.connect(to.origin, [], CONNECT_TIMEOUT)
        is_done = False
        try:
            protocol = connection.protocol
            assert protocol is not None
            transport = protocol.transport
            if transport is None or transport.is_closing() or protocol.should_close:
                # or it spoke while nobody had asked: what it said would pass for the answer to this call
                raise aiohttp.ClientConnectionError
            protocol.set_response_params(
                read_until_eof=True,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
                max_headers=MAX_HEADERS,
            )
            call = _render(method, to, headers, body)
            self.has_begun = True
            # and not drained: a system may answer, and refuse, before it has taken the whole body
            transport.write(call)
            message, payload = await protocol.read()
            while message.code < 200 and message.code != 101:
                message, payload = await protocol.read()
            content, is_complete = await _read(payload)
            # a connection that has not taken the whole body cannot carry another call
            is_done = is_complete and not (protocol.transport and protocol.transport.get_write_buffer_size())
            return HttpAnswer(status=message.code, headers=message.headers, body=content, is_complete=is_complete)
        finally:
            if is_done:
                connection.release()
            else:
                connection.close()


def _destination(url: str) -> _Destination:
    """Raises: ValueError when it is no URL with a host, or one that would break a call."""
    parsed = URL(url, encoded=True)
    if not parsed.raw_path_qs.isprintable():
        raise ValueError
    origin = aiohttp.ClientRequest("GET", parsed, loop=asyncio.get_running_loop())
    return _Destination(origin, parsed.raw_path_qs, {"Host": origin.headers["Host"], **OWN_HEADERS})


def _render(method: str, to: _Destination, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """Raises: ValueError for a header that would break the call."""
    if not "".join([*headers, *headers.values()]).isprintable():
        raise ValueError
    sent = {**to.headers, **headers}
    if body is not None:
        sent["Content-Length"] = str(len(body))
    lines = "".join([f"{name}: {value}\r\n" for name, value in sent.items()])
    return f"{method} {to.path} HTTP/1.1\r\n{lines}\r\n".encode() + (body or b"")


async def _read(payload: aiohttp.StreamReader) -> tuple[bytes, bool]:
    chunk = await payload.readany()
    if payload.at_eof() and len(chunk) <= MAX_BODY_BYTES:
        return chunk, True
    chunks: list[bytes] = []
    size = 0
    while chunk:
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            return b"".join(chunks)[:MAX_BODY_BYTES], False
        chunk = await payload.readany()
    return b"".join(chunks), True


def _not_sent(error: Exception) -> NotSent:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            reason = _reason(error.certificate_error)
            return CertificateNotTrusted(f"the certificate of {error.host}:{error.port} is not accepted: {reason}")
        case aiohttp.ClientConnectorSSLError():
            return NotSent(f"no TLS connection to {error.host}:{error.port}: {_reason(error.os_error)}")
        case aiohttp.ClientConnectorDNSError():
            return NotSent(f"the host {error.host} has no address")
        case aiohttp.ClientConnectorError():
            return NotSent(f"no connection to {error.host}:{error.port}: {_reason(error.os_error)}")
        case TimeoutError():
            return NotSent("no connection in time")
        case _:
            return NotSent(f"the call could not be made ({type(error).__name__})")


def _reason(error: Exception) -> str:
    for text in (getattr(error, "verify_message", None), getattr(error, "strerror", None)):
        if isinstance(text, str) and text:
            return text
    return type(error).__name__
