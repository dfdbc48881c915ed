"""An answer goes out as one piece where it can, and as uvicorn sends it where it cannot."""

import asyncio
import logging
from typing import Any, cast

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from gateway.http_call import Call


class _Wire:
    """What a call writes to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True


class _Answered:
    """A call whose answer is sent by the test."""

    def __init__(self, *, method: str = "POST", keep_alive: bool = True, dated: bool = True) -> None:
        self.wire = _Wire()
        self.ended = 0
        transport = cast(asyncio.Transport, self.wire)
        self.call = Call(
            scope=cast(Any, {"type": "http", "method": method}),
            transport=transport,
            flow=FlowControl(transport),
            logger=logging.getLogger("uvicorn.error"),
            access_logger=logging.getLogger("uvicorn.access"),
            access_log=False,
            default_headers=[(b"date", b"now")] if dated else [],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self._end,
        )

    def _end(self) -> None:
        self.ended += 1

    async def send(self, *bodies: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
        start: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": headers}
        await self.call.send(cast(Any, start))
        for number, body in enumerate(bodies, start=1):
            part = {"type": "http.response.body", "body": body, "more_body": number < len(bodies)}
            await self.call.send(cast(Any, part))
        return b"".join(self.wire.written)


async def test_head_and_body_are_one_write() -> None:
    answered = _Answered()

    sent = await answered.send(b"{}", headers=[(b"content-length", b"2"), (b"x", b"y")])

    assert sent == b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\nx: y\r\n\r\n{}"
    assert len(answered.wire.written) == 1
    assert (answered.ended, answered.call.response_complete, answered.wire.is_closed) == (1, True, False)


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\x00", b"a\x7f"])
async def test_a_header_that_would_begin_another_is_not_sent(value: bytes) -> None:
    answered = _Answered()

    with pytest.raises(RuntimeError, match="header value"):
        await answered.send(b"{}", headers=[(b"content-length", b"2"), (b"x", value)])

    assert answered.wire.written == []


async def test_a_body_of_another_length_is_not_sent() -> None:
    answered = _Answered()

    with pytest.raises(RuntimeError, match="longer than Content-Length"):
        await answered.send(b"{}!", headers=[(b"content-length", b"2")])

    assert answered.ended == 0


async def test_parts_of_a_body_are_sent_as_they_come() -> None:
    answered = _Answered()

    sent = await answered.send(b"{", b"}", headers=[(b"content-length", b"2")])

    assert sent.endswith(b"content-length: 2\r\n\r\n{}")
    assert answered.ended == 1


async def test_a_body_of_unknown_length_is_chunked() -> None:
    sent = await _Answered().send(b"{}", headers=[])

    assert sent.endswith(b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")


async def test_head_is_answered_without_the_body() -> None:
    sent = await _Answered(method="HEAD").send(b"{}", headers=[(b"content-length", b"2")])

    assert sent.endswith(b"content-length: 2\r\n\r\n")


@pytest.mark.parametrize(("keep_alive", "headers"), [(False, []), (True, [(b"connection", b"close")])])
async def test_the_last_answer_of_a_connection_says_so(keep_alive: bool, headers: list[tuple[bytes, bytes]]) -> None:
    answered = _Answered(keep_alive=keep_alive)

    sent = await answered.send(b"{}", headers=[(b"content-length", b"2"), *headers])

    assert sent.count(b"connection: close") == 1
    assert answered.wire.is_closed


async def test_it_says_so_in_the_first_header_too() -> None:
    answered = _Answered(dated=False)

    await answered.send(b"{}", headers=[(b"connection", b"close"), (b"content-length", b"2")])

    assert answered.wire.is_closed


async def test_nobody_is_answered_who_has_left() -> None:
    answered = _Answered()
    answered.call.disconnected = True

    assert await answered.send(b"{}", headers=[(b"content-length", b"2")]) == b""
