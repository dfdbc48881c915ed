"""HTTP calls to systems outside the hub: one client per system; a call with a body is sent once, never repeated.

Every call ends in one of three ways, told apart with certainty, because an order may hang on it:

    NotSent ──── nothing of the body left this process: no address, no connection, no TLS, no time left to connect
    NoAnswer ─── it left, or may have, and no complete answer came: reset, end, timeout
    HttpAnswer ─ an answer, whatever its status; redirects are answers too

The line between the first two is drawn by the body itself: `_OneShotBody` notes that it is being written. aiohttp
coalesces the headers with it, so nothing at all leaves before. aiohttp is used directly: through httpx's aiohttp
transport a reset after the order was stored is a ConnectTimeout, as is a refused connection, and a call costs 3.4
times as much.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

CONNECT_SECONDS = 10.0
#: Below the idle time after which common servers close (gunicorn 2 s, node and uvicorn 5 s): a call on a connection
#: that is being closed ends in NoAnswer although nothing is wrong.
KEEP_ALIVE_SECONDS = 1.9
DNS_CACHE_SECONDS = 10
MAX_BODY_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 8190
MAX_HEADERS = 100


class NotSent(Exception):
    """Nothing was sent, or the system has certainly not applied it; `detail` is a sentence without URL or secret."""

    def __init__(self, detail: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class NoAnswer(Exception):
    """It was sent, at least in part, and no complete answer came: it may have been applied."""

    def __init__(self, detail: str, *, timed_out: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
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
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make the connection pool; nothing is connected yet."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ttl_dns_cache=DNS_CACHE_SECONDS)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "integration-hub", "Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            trust_env=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )

    async def stop(self) -> None:
        """Close the connections."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], deadline: float, body: bytes | None = None
    ) -> HttpAnswer:
        """Make one call and read its answer; `url` is sent as it is, quoted already.

        `deadline` is an instant of the event loop's clock and covers everything, connecting included.
        A call without a body (a GET) may be repeated once, on a connection that turns out to be closed, and ends in
        NotSent only where no connection was made.

        Raises: NotSent; NoAnswer.
        """
        assert self._session is not None, "the client was not started"
        content = None if body is None else _OneShotBody(body)
        try:
            async with (
                asyncio.timeout_at(deadline),
                self._session.request(
                    method, URL(url, encoded=True), headers=headers, data=content, allow_redirects=False
                ) as response,
            ):
                received, is_complete = await _read(response)
                return HttpAnswer(
                    status=response.status, headers=response.headers, body=received, is_complete=is_complete
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            if _is_not_sent(error, content):
                raise NotSent(_why_not_sent(error)) from error
            timed_out = isinstance(error, TimeoutError)
            detail = "no complete answer in time" if timed_out else "the connection ended without a complete answer"
            raise NoAnswer(detail, timed_out=timed_out) from error


class _OneShotBody(aiohttp.payload.Payload):
    """A body that knows whether it was begun, and that aiohttp may not send a second time."""

    _autoclose = True

    def __init__(self, content: bytes) -> None:
        super().__init__(content, content_type="application/json")
        self._size = len(content)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return bytes(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._consumed = True  # aiohttp repeats PUT on a lost connection unless the body is consumed
        await writer.write(self._value)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        del content_length
        await self.write(writer)


async def _read(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            response.close()
            return b"".join(chunks)[:MAX_BODY_BYTES], False
    return chunks[0] if len(chunks) == 1 else b"".join(chunks), True


def _is_not_sent(error: Exception, body: _OneShotBody | None) -> bool:
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return True
    return body is not None and not body.consumed


def _why_not_sent(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate of {error.host}:{error.port} is not accepted: {_reason(error.certificate_error)}"
        case aiohttp.ClientConnectorSSLError():
            return f"no TLS connection to {error.host}:{error.port}: {_reason(error.os_error)}"
        case aiohttp.ClientConnectorDNSError():
            return f"the host {error.host} has no address"
        case aiohttp.ClientConnectorError():
            return f"no connection to {error.host}:{error.port}: {_reason(error.os_error)}"
        case TimeoutError():
            return "no connection in time"
        case _:
            return f"the call could not be made ({type(error).__name__})"


def _reason(error: Exception) -> str:
    for text in (getattr(error, "verify_message", None), getattr(error, "strerror", None)):
        if isinstance(text, str) and text:
            return text
    return type(error).__name__
