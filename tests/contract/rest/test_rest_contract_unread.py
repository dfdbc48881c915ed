"""Answers that their client does not read: its connection is cut off, also when it is being closed already."""

import asyncio
import os
import socket
from pathlib import Path

import pytest
import uvloop

from chassis.testing import eventually
from gateway.docs import STATIC
from gateway.http_protocol import GatewayProtocol
from tests.fakes import GatewayUnderTest, running_gateway
from tests.raw_http import serving

LARGE = STATIC / "swagger-ui-bundle.js"
GET_LARGE = f"GET /docs/{LARGE.name} HTTP/1.1\r\n"
CALLS = {
    "one": f"{GET_LARGE}\r\n",
    "closing": "GET /openapi.json HTTP/1.1\r\nConnection: close\r\n\r\n",
    "many": f"{GET_LARGE}\r\n" * 100,
    "many small ones": "GET /openapi.json HTTP/1.1\r\n\r\n" * 300,
    "half a call behind": f"{GET_LARGE}\r\nGET /healthz HTT",
}


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[GatewayProtocol]:
    """The connections that are no more; the kernel keeps little for any, so a large answer stays with the server."""
    seen: list[GatewayProtocol] = []

    def make(protocol: GatewayProtocol, transport: asyncio.Transport) -> None:
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection_made(protocol, transport)

    def lose(protocol: GatewayProtocol, exc: Exception | None) -> None:
        seen.append(protocol)
        connection_lost(protocol, exc)

    connection_made, connection_lost = GatewayProtocol.connection_made, GatewayProtocol.connection_lost
    monkeypatch.setattr(GatewayProtocol, "connection_made", make)
    monkeypatch.setattr(GatewayProtocol, "connection_lost", lose)
    return seen


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_a_client_that_does_not_read_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: list[GatewayProtocol], calls: str
) -> None:
    monkeypatch.setattr("gateway.http_protocol.ANSWER_SECONDS", 0.2)

    # uvloop, on which the services run, waits for the client when it closes
    received = uvloop.run(_read_when_lost(tmp_path, calls, lost))

    assert received.startswith(b"HTTP/1.1 200 OK")
    assert len(received) < 20_000


async def _read_when_lost(folder: Path, calls: str, lost: list[GatewayProtocol]) -> bytes:
    async with running_gateway(folder) as hub, serving(hub) as served:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", served.port))
            client.sendall(calls.encode())
            await eventually(lambda: lost)
            return b"".join(iter(lambda: client.recv(65_536), b""))


async def test_a_client_that_reads_in_time_is_not_cut_off(
    hub: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch, lost: list[GatewayProtocol]
) -> None:
    monkeypatch.setattr("gateway.http_protocol.HEAD_SECONDS", 0.2)
    async with serving(hub) as served:
        silent, connection = await served.connect(), await served.connect()
        connection.send(CALLS["one"])
        assert await silent.is_closed()  # so the sweep has come by

        answer = await connection.answer()

        assert answer.body == LARGE.read_bytes()
        assert len(lost) == 1


async def test_a_client_that_reads_slowly_but_steadily_is_not_cut_off(
    hub: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch, lost: list[GatewayProtocol]
) -> None:
    monkeypatch.setattr("gateway.http_protocol.ANSWER_BYTES", 1024)
    monkeypatch.setattr("gateway.http_protocol.ANSWER_SECONDS", 1.5)
    async with serving(hub) as served:
        connection = await served.connect()
        connection.send(CALLS["one"])
        reader, received = connection.reader, 0
        begun = asyncio.get_running_loop().time()
        while received < LARGE.stat().st_size:
            received += len(await reader.read(100_000))
            await asyncio.sleep(0.25)  # a slow line, not a wait for anything

        assert asyncio.get_running_loop().time() - begun > 3
        assert lost == []
