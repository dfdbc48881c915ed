"""`python -m gateway` as a process: how it starts, shows its metrics, refuses to start, and ends."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from chassis.rpc import RpcServer, Servicer, stages
from chassis.telemetry import Telemetry
from chassis.testing import TestKeys, eventually, free_port
from chassis.tokens import JwksSource, TokenVerifier
from gateway.readiness import INTAKE_SERVICE
from integrationhub.intake.v1.intake_pb2_grpc import add_IntakeServiceServicer_to_server
from tests.fakes import AUDIENCE, ISSUER, FakeIntake, IntakeServicer
from tests.rest import PATH, SEED_BODY

ROOT = Path(__file__).resolve().parents[3]


def settings(folder: Path, **changes: str) -> dict[str, str]:
    return {
        "HUB_STATE_DIR": str(folder),
        "HUB_GATEWAY_ADDRESS": f"127.0.0.1:{free_port()}",
        "HUB_GATEWAY_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
        "HUB_INTAKE_ADDRESS": f"127.0.0.1:{free_port()}",
        "HUB_LOG_FORMAT": "json",
        **changes,
    }


@asynccontextmanager
async def process(environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "gen")])
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "gateway"),
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def next_line(child: asyncio.subprocess.Process) -> dict[str, Any]:
    assert child.stdout is not None
    line: dict[str, Any] = json.loads(await asyncio.wait_for(child.stdout.readline(), 20))
    return line


async def last_line(child: asyncio.subprocess.Process) -> dict[str, Any]:
    assert child.stdout is not None
    line: dict[str, Any] = json.loads((await asyncio.wait_for(child.stdout.read(), 20)).splitlines()[-1])
    return line


@pytest.fixture
def keys(tmp_path: Path) -> TestKeys:
    """The keys in the state folder, where `hub up` makes them."""
    return TestKeys(tmp_path / "keys")


async def test_a_process_serves_shows_its_metrics_and_ends_with_0(tmp_path: Path, keys: TestKeys) -> None:
    environment = settings(tmp_path)
    base_url = f"http://{environment['HUB_GATEWAY_ADDRESS']}"
    verifier = TokenVerifier(JwksSource(str(keys.jwks)), issuer=ISSUER, audience=AUDIENCE)
    servicer = Servicer(
        name=INTAKE_SERVICE, implementation=IntakeServicer(FakeIntake()), add=add_IntakeServiceServicer_to_server
    )
    intake = RpcServer(
        environment["HUB_INTAKE_ADDRESS"], [servicer], stages(Telemetry("intake"), verifier), grace_seconds=0.1
    )
    await intake.start()

    async with process(environment) as child, httpx.AsyncClient() as client:
        assert (await next_line(child))["message"] == "Service ready"
        header = {
            **keys.header("acme", "requests:write"),
            "Content-Type": "application/json",
            "X-Correlation-ID": "c-1",
        }
        created = await client.post(f"{base_url}{PATH}", content=SEED_BODY, headers=header)
        received = await next_line(child)
        metrics = await client.get(f"http://{environment['HUB_GATEWAY_METRICS_ADDRESS']}/metrics")
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), 20) == 0
    await intake.stop()

    assert created.status_code == 202
    assert (received["message"], received["correlation_id"]) == ("Integration request received", "c-1")
    assert f'http_request_duration_ms_count{{route="{PATH}",status="202"}} 1.0' in metrics.text


async def test_a_process_starts_without_intake_and_says_that_it_is_not_ready(tmp_path: Path, keys: TestKeys) -> None:
    assert keys.jwks.exists()
    environment = settings(tmp_path)
    async with process(environment) as child, httpx.AsyncClient() as client:
        assert (await next_line(child))["message"] == "Service ready"
        base_url = f"http://{environment['HUB_GATEWAY_ADDRESS']}"

        assert (await client.get(f"{base_url}/healthz")).status_code == 200
        assert await eventually(lambda: is_unready(client, base_url))


async def is_unready(client: httpx.AsyncClient, base_url: str) -> bool:
    return (await client.get(f"{base_url}/readyz")).status_code == 503


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"HUB_JWT_JWKS": "nowhere.json"}, "The key set nowhere.json cannot be read"),
        ({"HUB_SERVICE_KEY": "nowhere.json"}, "The signing key nowhere.json cannot be read"),
        ({"HUB_GATEWAY_ADDRESS": "0.0.0.0:8080"}, "0.0.0.0:8080 is not a loopback address"),
        ({"HUB_INTAKE_URL": "127.0.0.1:1,intake.example:50051"}, "intake.example:50051 is not a loopback address"),
        ({"HUB_GATEWAY_ADDRESS": "127.0.0.1"}, "is not an address; write host:port"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_process_that_cannot_serve_says_why_and_ends_with_1(
    tmp_path: Path, keys: TestKeys, changes: dict[str, str], detail: str
) -> None:
    assert keys.jwks.exists()
    async with process(settings(tmp_path, **changes)) as child:
        line = await last_line(child)

        assert await asyncio.wait_for(child.wait(), 20) == 1
    assert (line["message"], line["level"]) == ("Service cannot start", "error")
    assert detail in line["detail"]


async def test_a_taken_port_is_named(tmp_path: Path, keys: TestKeys) -> None:
    assert keys.jwks.exists()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with process(settings(tmp_path, HUB_GATEWAY_ADDRESS=address)) as child:
            line = await last_line(child)

            assert await asyncio.wait_for(child.wait(), 20) == 1
    assert line["detail"].startswith(f"The port of {address} is taken")
