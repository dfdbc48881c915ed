"""An HTTP proxy in the environment stands for the way out of a network; the hub's own links do not lead through it."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from chassis.rpc_client import RpcClient
from chassis.settings import HubSettings
from chassis.testing import TestKeys
from chassis.tokens import ServiceToken
from console.watch import take_snapshot
from tests.bad_server import Server, answering

HEALTH = Path(__file__).resolve().parents[2] / "tools" / "health.py"
METRICS = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nConnection: close\r\n\r\nup_now 1.0\n"


@pytest.fixture(autouse=True)
def proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def service() -> AsyncIterator[str]:
    """The address of a gRPC server that says SERVING."""
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def check(target: str) -> int:
    """What a container's health check says."""
    run = partial(subprocess.run, [sys.executable, str(HEALTH), target], check=False, timeout=30)
    return (await asyncio.to_thread(run)).returncode


async def test_the_live_table_sees_the_services() -> None:
    server = Server()
    async with server.run(answering(server, METRICS)):
        settings = HubSettings(gateway_metrics_address=f"127.0.0.1:{server.port}")
        snapshot = await asyncio.to_thread(take_snapshot, settings)

    assert "gateway" in snapshot.answering


async def test_a_containers_health_check_asks_its_own_service(service: str) -> None:
    server = Server()
    async with server.run(answering(server, METRICS)):
        over_http = await check(f"http://127.0.0.1:{server.port}/readyz")

    assert (over_http, await check(service)) == (0, 0)


async def test_the_services_reach_each_other(service: str, keys: TestKeys) -> None:
    token = ServiceToken(keys.signer, service="orchestrator", scopes=())
    client = RpcClient(service, token, timeout_seconds=5)
    try:
        stub: Any = health_pb2_grpc.HealthStub(client.channel)
        answer = await client.unary(stub.Check, health_pb2.HealthCheckRequest())
    finally:
        await client.stop()

    assert answer.status == health_pb2.HealthCheckResponse.SERVING
