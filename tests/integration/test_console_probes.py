"""The supervisor's health questions against real servers: gRPC, HTTP and Valkey."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from chassis.testing import free_port
from console.probes import is_healthy
from tests.servers import ValkeyServer

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def grpc_server() -> AsyncIterator[tuple[str, health.aio.HealthServicer]]:
    servicer = health.aio.HealthServicer()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"grpc://127.0.0.1:{port}", servicer
    await server.stop(None)


async def test_a_grpc_server_that_serves_is_healthy(grpc_server: tuple[str, health.aio.HealthServicer]) -> None:
    probe, servicer = grpc_server
    await servicer.set("", SERVING)

    assert await is_healthy(probe)


async def test_a_grpc_server_that_drains_is_not(grpc_server: tuple[str, health.aio.HealthServicer]) -> None:
    probe, servicer = grpc_server
    await servicer.set("", NOT_SERVING)

    assert not await is_healthy(probe)


async def test_a_grpc_server_without_the_health_service_is_not_healthy() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    healthy = await is_healthy(f"grpc://127.0.0.1:{port}")
    await server.stop(None)

    assert not healthy


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path).start()
    yield server
    server.stop()


async def test_a_valkey_that_answers_is_healthy(valkey: ValkeyServer) -> None:
    assert await is_healthy(valkey.url)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"-LOADING Valkey is loading the dataset in memory\r\n", False),
        (b"", False),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "grpc", "redis"])
async def test_only_a_clear_yes_is_taken_for_one(scheme: str, answer: bytes, expected: bool) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        healthy = await is_healthy(f"{scheme}://127.0.0.1:{port}/readyz")

    assert healthy is (expected and scheme == "http")


@pytest.mark.parametrize("scheme", ["http", "grpc", "redis"])
async def test_nobody_there_is_not_healthy(scheme: str) -> None:
    assert not await is_healthy(f"{scheme}://127.0.0.1:{free_port()}/")
