"""HTTP/1.1 on one connection: uvicorn's protocol with the limits it lacks, and refusals that are problem documents.

uvicorn bounds neither the head of a request nor the time a client may take over it. Limits on the body are in
gateway.request_body, answers in gateway.http_call.
"""

import asyncio
import re
from collections import deque
from collections.abc import Sized
from urllib.parse import unquote

import httptools
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from chassis.correlation import HEADER, clean_correlation_id
from chassis.errors import HubError
from chassis.logs import get_logger
from gateway.headers import raw_headers
from gateway.http_call import Call
from gateway.problems import (
    HeadersTooLarge,
    MalformedRequest,
    MethodNotAllowed,
    SlowRequest,
    problem_headers,
    status_of,
    to_problem,
)

log = get_logger()

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
HEAD_SECONDS = 10.0
REQUEST_SECONDS = 30.0
#: For so many bytes of its answer a client may take so long: 70 kbit/s. Under TLS uvloop tells only what is not
#: encrypted yet: there the time between two calls, and then as much for the close, bound an answer.
ANSWER_SECONDS = 30.0
ANSWER_BYTES = 256 * 1024
#: What is parsed at once: a call is at least 18 bytes, so no more than 228 of a client's wait for their turn.
PIECE_BYTES = 4096
#: With a method that the parser does not know (RFC 9110, 5.6.2 and 9.1), in place of what is no HTTP at all.
_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/1\.[01]\r?\n")


class _Flow(FlowControl):
    """Reads nothing while a call waits for its turn, whoever asks: uvicorn reads on when it gives a call its body."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if self.read_paused and not self._waiting:
            super().resume_reading()


class GatewayProtocol(HttpToolsProtocol):
    """One connection of a partner."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start to wait for the first request (asyncio callback)."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        #: Read, and not parsed while a call waits for its turn.
        self._unparsed = bytearray()
        self.headers = []
        self._refusal: HubError | None = None
        #: Calls without their answer, in order: a client may send the next before it has read the last (pipelining).
        self._unanswered: deque[Call] = deque()
        #: Between requests too: what comes next is a head.
        self._in_head = True
        #: What came since the last of a body or the end of a call: a head, a chunk's extensions, trailers.
        self._head_bytes = 0
        #: Loop time of the last answer.
        self._answered_at = 0.0
        #: So many bytes, since that loop time, are unread whenever the sweep comes by; None while nothing is.
        self._unread: tuple[int, float] | None = None
        #: Loop time since which the client owes us the rest of a request; None while it owes nothing.
        self._waits_since: float | None = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Parse, a long read in pieces (asyncio callback)."""
        if self.pipeline or len(data) > PIECE_BYTES:
            self._unparsed += data
            self._take_pieces()
        else:
            self._take(data)

    def on_message_begin(self) -> None:
        """Begin a request (parser callback); uvicorn makes half a scope here."""
        if self._waits_since is None:
            self._waits_since = self.loop.time()
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """Hand the request to the application (parser callback); an error raised here ends the connection."""
        is_long = self._head_bytes > MAX_HEAD_BYTES  # the bytes may hold some of the body: then count
        if len(self.headers) > MAX_HEADERS or (is_long and self._count_head_bytes() > MAX_HEAD_BYTES):
            self._refusal = _headers_too_large()
            raise ValueError("the request's head is over its limits")
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("no tunnel is opened")
            return  # this head is parsed again, without the offer
        call = self._new_call()  # raises for a target that is none; it is no call then
        self._in_head = False
        self._head_bytes = 0
        self._unanswered.append(call)
        before: RequestResponseCycle | None = self.cycle  # None before the first request, whatever uvicorn's hints say
        self.cycle = call
        if before is None or before.response_complete:
            self._start_asgi_task(call, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((call, self.app))

    def on_response_complete(self) -> None:
        """Begin the next call if it is here (the call's own callback); uvicorn sets a timer for the wait for each."""
        self.server_state.total_requests += 1
        self._unanswered.popleft()
        self._answered_at = self.loop.time()
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            if self._waits_since is not None:
                self._waits_since = self._answered_at  # until now it was we who did not read
            self._take_pieces()
        self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every call that nobody reads its answer (asyncio callback); uvicorn tells only the last one."""
        super().connection_lost(exc)
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body (parser callback)."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the client has sent all it announced (parser callback)."""
        if self.parser.should_upgrade():
            return
        self._in_head = True
        self._head_bytes = 0
        self._waits_since = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's text is replaced by a problem
        """Refuse what the parser did not take."""
        self._refuse(self._refusal or _malformed())

    def cut_off_if_slow(self) -> None:
        """End the connection when the client takes too long: to send, to read, between calls; called once a second."""
        now = self.loop.time()
        if self._leaves_unread(now):
            log.info("Client did not read its answer")
            self.transport.abort()  # close() would wait for the client
        if self.transport.is_closing() or self.pipeline:
            return
        if self._waits_since is None:
            if self.cycle.response_complete and now - self._answered_at >= self.timeout_keep_alive:
                self.transport.close()
            return
        if now - self._waits_since < (HEAD_SECONDS if self._in_head else REQUEST_SECONDS):
            return
        if self._head_bytes == 0 and not isinstance(self.cycle, Call):
            self.transport.close()  # it never said a word
        else:
            self._refuse(SlowRequest("The request did not arrive in time; send it again, faster."))

    def _leaves_unread(self, now: float) -> bool:
        """Whether an answer, or the last of a connection that closes, waits too long for the client to read it."""
        size = self.transport.get_write_buffer_size()
        if not size and not self.transport.is_closing():
            self._unread = None
            return False
        if self._unread is None or size <= self._unread[0] - ANSWER_BYTES:
            self._unread = size, now
        _, since = self._unread
        return now - max(since, self._answered_at) >= ANSWER_SECONDS

    def _take_pieces(self) -> None:
        """Parse what was read until a call has to wait."""
        while self._unparsed and not self.pipeline and not self.transport.is_closing():
            piece = bytes(self._unparsed[:PIECE_BYTES])
            del self._unparsed[:PIECE_BYTES]
            self._take(piece)

    def _take(self, data: bytes) -> None:
        """Parse, and refuse a head that does not end."""
        self._head_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserInvalidMethodError:
            self._refuse(_unknown_method() if _REQUEST_LINE.match(data) else _malformed())
        except httptools.HttpParserError:
            self.send_400_response("")
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(_headers_too_large())

    def _parse(self, data: bytes) -> None:
        """Parse; an offer to upgrade is passed over, as a server may do (RFC 9110, 7.8). Raises: HttpParserError.

        Java's HttpClient offers h2c with every plain call. The parser takes a call with an offer to end with its head,
        and what follows to be of another protocol: a new parser is given that head without the offer, then the rest.
        """
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as pause:
                rest = memoryview(rest)[pause.args[0] :]
            head = self._head_without_offer()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            self.parser.feed_data(head)

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _refuse(self, error: HubError) -> None:
        """Answer with a problem and close, unless an answer is out or still to come."""
        at_fault: RequestResponseCycle | None = None if self._in_head else self.cycle  # None: it is no call yet
        before = next((call for call in reversed(self._unanswered) if call is not at_fault), None)
        if before is not None:
            # What is sent now would be taken for the answer to the call before: that one ends the connection.
            before.keep_alive = False
            return
        if at_fault is not None and at_fault.response_started:
            self.transport.close()  # the request at fault has its answer already
            return
        sent = next((value for name, value in self.headers if name == HEADER.lower().encode()), b"")
        correlation_id = clean_correlation_id(str(sent, "latin-1"))
        log.warning(
            "Call refused",
            reason=error.reason,
            status=status_of(error),
            route="unmatched",
            correlation_id=correlation_id,
        )
        self.transport.write(self._refusal_bytes(error, correlation_id))
        self.transport.close()

    def _new_call(self) -> Call:
        version = self.parser.get_http_version()
        target = httptools.parse_url(self.url)
        raw_path = target.path or b"/"  # none in http://hub (RFC 9112, 3.2.2)
        path = raw_path.decode("ascii")
        scope: HTTPScope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "method": self.parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": target.query or b"",
            # the parser adds trailers to its list: no call may be changed by them (RFC 9110, 6.5.1)
            "headers": self.headers.copy(),
        }
        return Call(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )

    def _count_head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _refusal_bytes(self, error: HubError, correlation_id: str) -> bytes:
        body = to_problem(error, path="", correlation_id=correlation_id)
        headers = [
            *self.server_state.default_headers,
            *raw_headers({**problem_headers(error), HEADER: correlation_id, "X-Content-Type-Options": "nosniff"}),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        return STATUS_LINE[status_of(error)] + lines + b"\r\n" + body


def _malformed() -> MalformedRequest:
    return MalformedRequest("This is not a valid HTTP/1.1 request; check the client.")


def _unknown_method() -> MethodNotAllowed:
    return MethodNotAllowed("The hub knows no such method; /docs lists what each path takes.", allow="GET, HEAD, POST")


def _headers_too_large() -> HeadersTooLarge:
    return HeadersTooLarge(
        f"The request's head is over {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} headers; send fewer or shorter ones."
    )
