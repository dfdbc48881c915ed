"""`python -m intake_service` as the tests run it: a process of its own, set by HUB_*, in a temporary folder."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis.access import LIFECYCLE, REQUESTS_READ, REQUESTS_WRITE
from chassis.testing import TestKeys, eventually, free_port
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from integrationhub.intake.v1.intake_pb2_grpc import IntakeServiceStub
from integrationhub.intake.v1.lifecycle_pb2_grpc import LifecycleServiceStub
from tests.intake import TARGETS, Metadata, new_request

ROOT = Path(__file__).resolve().parents[1]


class IntakeProcess:
    """One intake; `start` after its end runs it again on the same state."""

    def __init__(self, folder: Path, keys: TestKeys, *, database_url: str = "", redis_url: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.keys = keys
        self.address = f"127.0.0.1:{free_port()}"
        self.metrics_address = f"127.0.0.1:{free_port()}"
        targets = folder / "targets.toml"
        targets.write_text(TARGETS, encoding="utf-8")
        self.environment = {
            "HUB_STATE_DIR": str(folder / "state"),
            "HUB_DATABASE_URL": database_url,
            "HUB_REDIS_URL": redis_url,
            "HUB_TARGETS": str(targets),
            "HUB_INTAKE_ADDRESS": self.address,
            "HUB_INTAKE_METRICS_ADDRESS": self.metrics_address,
            "HUB_JWT_JWKS": str(keys.jwks),
            "HUB_PARTNER_RATE_PER_MINUTE": "0",
            "HUB_LOG_FORMAT": "json",
        }
        self._process: asyncio.subprocess.Process | None = None
        self._output = folder / "output.txt"
        self._errors = folder / "errors.txt"

    @property
    def pid(self) -> int:
        """The running process'."""
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything written since the last start, by libraries too."""
        return self._output.read_text(encoding="utf-8") + self._errors.read_text(encoding="utf-8")

    def lines(self) -> list[dict[str, Any]]:
        """The log: each line of standard output must be one JSON object."""
        return [json.loads(line) for line in self._output.read_text(encoding="utf-8").splitlines()]

    def line(self, message: str) -> dict[str, Any]:
        """The first line with that message."""
        return next(line for line in self.lines() if line["message"] == message)

    async def launch(self, **environment: str) -> None:
        """Start it and do not wait for anything."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
        paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"}
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "intake_service"),
                cwd=self.folder,
                stdout=output,
                stderr=errors,
                env={**inherited, **paths, **self.environment, **environment},
            )

    async def start(self, **environment: str) -> "IntakeProcess":
        """Start it and wait until it serves."""
        await self.launch(**environment)
        await eventually(self._serves_or_ended, 20)
        assert self._process is not None
        assert self._process.returncode is None, self.output
        return self

    async def kill(self) -> None:
        """End it as a crash does."""
        await self._signal(signal.SIGKILL)

    async def stop(self) -> int:
        """Ask it to drain; gives its exit code. Harmless when it has ended."""
        return await self._signal(signal.SIGTERM)

    def send_signal(self, signum: signal.Signals) -> None:
        """Send a signal and do not wait."""
        assert self._process is not None
        self._process.send_signal(signum)

    async def ended(self, seconds: float = 20) -> int:
        """Wait for its end; gives its exit code."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), seconds)

    async def health(self, service: str = "") -> str:
        """What its health says of a service, NO_ANSWER when it says nothing."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=1)
            except grpc.aio.AioRpcError:
                return "NO_ANSWER"
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def metadata(self) -> Metadata:
        """The metadata of a partner's call."""
        token = self.keys.token("acme", REQUESTS_WRITE, REQUESTS_READ)
        return (("authorization", f"Bearer {token}"),)

    async def create(self, external_id: str, **fields: Any) -> pb.IntegrationRequest:
        """Have a good request accepted."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            answer = await IntakeServiceStub(channel).CreateIntegrationRequest(
                new_request(external_id, **fields), metadata=self.metadata(), timeout=10
            )
            return answer.integration_request

    async def beat(self) -> None:
        """Give a worker's sign of life, as each does every few seconds."""
        token = self.keys.token("orchestrator", LIFECYCLE)
        async with grpc.aio.insecure_channel(self.address) as channel:
            await LifecycleServiceStub(channel).Heartbeat(
                life.HeartbeatRequest(worker_id="w1"), metadata=(("authorization", f"Bearer {token}"),), timeout=10
            )

    async def stored(self) -> set[str]:
        """The external ids of everything that is stored."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            answer = await IntakeServiceStub(channel).ListIntegrationRequests(
                pb.ListIntegrationRequestsRequest(page_size=250), metadata=self.metadata(), timeout=10
            )
            return {each.external_id for each in answer.integration_requests}

    async def _serves_or_ended(self) -> bool:
        assert self._process is not None
        return self._process.returncode is not None or await self.health() == "SERVING"

    async def _signal(self, signum: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signum)
        return await self.ended()
