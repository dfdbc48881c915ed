"""A gateway on a real socket and a client that says exactly what a test wants said, byte for byte."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from chassis.testing import free_port
from gateway.server import HttpServer
from tests.fakes import GatewayUnderTest
from tests.rest import PATH, SEED_BODY

GOOD_HEAD = "Host: hub\r\nContent-Type: application/json\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Connection:
    """A connection that says exactly what a test wants said."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes | str) -> Self:
        self.writer.write(data.encode() if isinstance(data, str) else data)
        return self

    async def answer(self) -> Answer:
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1")
        line, *fields = head.rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        body = await asyncio.wait_for(self.reader.readexactly(int(headers.get("content-length", "0"))), 10)
        return Answer(status=int(line.split()[1]), headers=headers, body=body)

    async def is_closed(self) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(1), 10) == b""
        except ConnectionResetError:
            return True


class Served:
    """A gateway on a port."""

    def __init__(self, hub: GatewayUnderTest, server: HttpServer, port: int) -> None:
        self.hub = hub
        self.server = server
        self.port = port
        self.token = f"Authorization: {hub.header()['Authorization']}\r\n"
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return Connection(reader, writer)

    def create(self, body: bytes = SEED_BODY, head: str = "") -> bytes:
        length = f"Content-Length: {len(body)}\r\n"
        return f"POST {PATH} HTTP/1.1\r\n{GOOD_HEAD}{self.token}{head}{length}\r\n".encode() + body

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                continue
        await self.server.stop()


@asynccontextmanager
async def serving(hub: GatewayUnderTest) -> AsyncIterator[Served]:
    port = free_port()
    server = HttpServer(hub.app, f"127.0.0.1:{port}", hub.readiness, grace_seconds=5, announce_seconds=0)
    await server.start()
    served = Served(hub, server, port)
    try:
        yield served
    finally:
        await served.close()


def assert_raw_problem(answer: Answer, status: int) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.headers["x-correlation-id"]) == 36
    assert answer.headers["x-correlation-id"].encode() in answer.body
