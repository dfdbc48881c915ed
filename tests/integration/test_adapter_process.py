"""The adapter service as its own process: ready, measured, drained, and refusing a wrong configuration."""

import asyncio
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis.access import LIFECYCLE
from chassis.testing import TestKeys, eventually, free_port
from integrationhub.adapter.v1 import adapter_pb2 as pb
from integrationhub.adapter.v1.adapter_pb2_grpc import AdapterServiceStub
from simulator.testing import SimulatorProcess

ROOT = Path(__file__).resolve().parents[2]
SERVICE = "integrationhub.adapter.v1.AdapterService"
SECRET = "s3cret-token-of-the-process"


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(token=SECRET) as process:
        yield process


class AdapterProcess:
    """`python -m adapter_service` with one target at the simulator."""

    def __init__(self, folder: Path, base_url: str) -> None:
        self.keys = TestKeys(folder / "keys")
        self.address = f"127.0.0.1:{free_port()}"
        self.metrics = f"127.0.0.1:{free_port()}"
        self.targets = folder / "targets.toml"
        self.targets.write_text(
            f'[targets.TotvsProtheus]\nadapter = "totvs_protheus"\nbase_url = "{base_url}"\n'
            'auth = { kind = "bearer", token = "env:PROTHEUS_TOKEN" }\n'
        )
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, **environment: str) -> asyncio.subprocess.Process:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "adapter_service"),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}",
                "HUB_ADAPTER_ADDRESS": self.address,
                "HUB_ADAPTER_METRICS_ADDRESS": self.metrics,
                "HUB_TARGETS": str(self.targets),
                "HUB_JWT_JWKS": str(self.keys.jwks),
                **environment,
            },
        )
        return self.process

    async def end(self) -> tuple[int, str]:
        """Wait for the end and return exit status and output."""
        assert self.process is not None
        output, _ = await asyncio.wait_for(self.process.communicate(), 20)
        assert self.process.returncode is not None
        return self.process.returncode, output.decode()

    async def is_serving(self) -> bool:
        async with grpc.aio.insecure_channel(self.address) as channel:
            try:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=1)
            except grpc.aio.AioRpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def deliver(self) -> pb.DeliverResponse:
        request = pb.DeliverRequest(
            integration_request_id="id-1",
            correlation_id="corr-1",
            source_system="SAP",
            target_system="TotvsProtheus",
            payload_json='{"orderId":"ORD-1","customer":"Empresa ABC"}',
        )
        metadata = (("authorization", f"Bearer {self.keys.token('service:orchestrator', LIFECYCLE)}"),)
        async with grpc.aio.insecure_channel(self.address) as channel:
            response: pb.DeliverResponse = await AdapterServiceStub(channel).Deliver(request, metadata=metadata)
        return response


@pytest.fixture
async def adapter(tmp_path: Path, simulator: SimulatorProcess) -> AsyncIterator[AdapterProcess]:
    await simulator.reset()
    adapter = AdapterProcess(tmp_path, simulator.base_url)
    yield adapter
    if adapter.process is not None and adapter.process.returncode is None:
        adapter.process.kill()
        await adapter.process.communicate()


async def test_it_is_ready_delivers_and_ends_in_good_order(adapter: AdapterProcess) -> None:
    process = await adapter.start(PROTHEUS_TOKEN=SECRET)
    await eventually(adapter.is_serving, 20)

    response = await adapter.deliver()
    process.send_signal(signal.SIGTERM)
    status, output = await adapter.end()

    assert response.outcome == pb.OUTCOME_DELIVERED
    assert (status, "Service stopped" in output) == (0, True)


async def test_a_delivery_in_flight_is_finished_before_the_end(
    adapter: AdapterProcess, simulator: SimulatorProcess
) -> None:
    process = await adapter.start(PROTHEUS_TOKEN=SECRET)
    await eventually(adapter.is_serving, 20)
    await simulator.fault("slow", delay_seconds=0.5)
    delivery = asyncio.create_task(adapter.deliver())
    await eventually(simulator.calls)

    process.send_signal(signal.SIGTERM)

    assert (await delivery).outcome == pb.OUTCOME_DELIVERED
    assert (await adapter.end())[0] == 0


async def test_a_call_is_measured_and_logged_without_payload_and_secret(adapter: AdapterProcess) -> None:
    process = await adapter.start(PROTHEUS_TOKEN=SECRET, HUB_LOG_FORMAT="json")
    await eventually(adapter.is_serving, 20)

    await adapter.deliver()
    with await asyncio.to_thread(urllib.request.urlopen, f"http://{adapter.metrics}/metrics") as page:
        metrics = page.read().decode()
    process.send_signal(signal.SIGTERM)
    _, output = await adapter.end()

    assert 'external_system_call_duration_ms_count{system="TotvsProtheus"} 1.0' in metrics
    for labels in ('operation="deliver",outcome="Unknown"', 'operation="lookup",outcome="Found"'):
        assert f'external_system_calls_total{{{labels},system="TotvsProtheus"}} 0.0' in metrics
    (line,) = [line for line in output.splitlines() if '"message":"External system called"' in line]
    assert '"correlation_id":"corr-1"' in line
    assert '"request_id":"id-1"' in line
    assert "Empresa ABC" not in output
    assert SECRET not in output


async def test_without_its_secret_it_does_not_start_and_says_why(
    adapter: AdapterProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROTHEUS_TOKEN", raising=False)
    await adapter.start()

    status, output = await adapter.end()

    assert status == 1
    assert "targets.TotvsProtheus" in output
    assert "PROTHEUS_TOKEN" in output
