"""A worker that is stopped (SIGSTOP) past its lease and resumed: another one has its work, and it does no harm."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chassis.testing import eventually, free_port
from integrationhub.adapter.v1 import adapter_pb2
from integrationhub.adapter.v1.adapter_pb2 import DeliverResponse
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from tests.intake import TARGETS, IntakeUnderTest, running_intake
from tests.orchestrator_fakes import Gate, Surroundings, delivered, surroundings

ROOT = Path(__file__).resolve().parents[2]
#: Longer than a silent worker keeps its leases.
SILENCE_SECONDS = 16


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Surroundings]:
    async with surroundings(tmp_path / "keys") as parts:  # its adapter and its keys; the intake is a real one here
        yield parts


@pytest.fixture
async def hub(parts: Surroundings, sqlite_url: str, redis_url: str) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(sqlite_url, parts.keys, redis_url=redis_url) as hub:
        await hub.relay.start()
        yield hub
        await hub.relay.stop()


@asynccontextmanager
async def worker(
    hub: IntakeUnderTest, parts: Surroundings, redis_url: str, folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """An orchestrator as a process of its own."""
    (folder / "targets.toml").write_text(TARGETS)
    variables = {
        "state_dir": str(folder),
        "targets": str(folder / "targets.toml"),
        "redis_url": redis_url,
        "intake_url": hub.address,
        "adapter_url": parts.adapter_address,
        "orchestrator_address": f"127.0.0.1:{free_port()}",
        "orchestrator_metrics_address": f"127.0.0.1:{free_port()}",
        "log_level": "error",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator_service"),
        env={**inherited, **paths, **{f"HUB_{name.upper()}": value for name, value in variables.items()}},
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        await process.wait()


@pytest.mark.parametrize("heard", ["DELIVERED", "UNAVAILABLE", "REJECTED", "UNKNOWN"])
async def test_a_worker_stopped_past_its_lease_does_no_harm_when_it_goes_on(
    hub: IntakeUnderTest, parts: Surroundings, redis_url: str, tmp_path: Path, heard: str
) -> None:
    gate = Gate(DeliverResponse(outcome=adapter_pb2.Outcome.Value(f"OUTCOME_{heard}"), detail="heard too late"))
    parts.adapter.answer = gate
    async with worker(hub, parts, redis_url, tmp_path) as process:
        created = await hub.create("E-1")
        await eventually(lambda: parts.adapter.deliveries, 20)
        process.send_signal(signal.SIGSTOP)
        hub.clock.advance(SILENCE_SECONDS)
        await hub.due()
        lease = await hub.lease(created.id, "w2")
        process.send_signal(signal.SIGCONT)
        gate.is_open.set()
        parts.adapter.answer = delivered
        another = await hub.create("E-2")
        await eventually(lambda: _is_completed(hub, another.id))
        of_the_next = await hub.report(lease, worker="w2", completed=life.Completed(external_response_json="{}"))
        finished = await hub.get(created.id)

    assert lease.in_doubt  # so w2 has to ask before it posts
    # a success is true whoever says it; any other word of the one that lost its lease is refused
    assert of_the_next == ("STALE" if heard == "DELIVERED" else "ACCEPTED")
    assert (finished.status, finished.attempts) == (pb.INTEGRATION_REQUEST_STATUS_COMPLETED, 1)
    moves = [entry.to_status for entry in await hub.history(created.id) if entry.kind == "transition"]
    assert moves == [1, 2, 3, 4]  # Received, Processing, WaitingExternal, Completed: no gap and nothing twice
    posted: list[Any] = [delivery.external_id for delivery in parts.adapter.deliveries]
    assert posted == ["E-1", "E-2"]


async def _is_completed(hub: IntakeUnderTest, request_id: str) -> bool:
    return (await hub.get(request_id)).status == pb.INTEGRATION_REQUEST_STATUS_COMPLETED
