"""The whole orchestrator as its bootstrap builds it, and as a process that is told to stop."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from chassis.access import LIFECYCLE, OPERATIONS
from chassis.errors import (
    ConfigurationError,
    HubError,
    NotFound,
    PermissionDenied,
    StorageUnavailable,
    Unauthenticated,
)
from chassis.rpc_client import RpcClient
from chassis.service import Service
from chassis.settings import HubSettings
from chassis.streams import work_stream
from chassis.testing import eventually, free_port
from chassis.tokens import ServiceToken
from integrationhub.adapter.v1 import adapter_pb2
from integrationhub.adapter.v1.adapter_pb2 import DeliverResponse
from integrationhub.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from integrationhub.orchestrator.v1.orchestrator_pb2 import GetStatusRequest, GetStatusResponse
from orchestrator_service.bootstrap import build, new_worker_id
from tests.orchestrator_fakes import Gate, Surroundings, always, surroundings
from tests.servers import ValkeyServer

TARGETS = """
[targets.Erp]
adapter = "http_json"
base_url = "http://127.0.0.1:1"
timeout_seconds = 5
schemas = { SAP = "order.json" }

[targets.Limited]
adapter = "http_json"
base_url = "http://127.0.0.1:1"
concurrency = 2
rate_per_second = 7.5
"""
ORDER: dict[str, Any] = {"type": "object", "required": ["orderId"]}


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Surroundings]:
    async with surroundings(tmp_path / "keys") as parts:
        yield parts


@pytest.fixture
def variables(parts: Surroundings, valkey: ValkeyServer, tmp_path: Path) -> dict[str, str]:
    """The environment of an orchestrator."""
    (tmp_path / "targets.toml").write_text(TARGETS)
    (tmp_path / "order.json").write_text(json.dumps(ORDER))
    return {
        "state_dir": str(tmp_path),
        "targets": str(tmp_path / "targets.toml"),
        "redis_url": valkey.url,
        "intake_url": parts.intake_address,
        "adapter_url": parts.adapter_address,
        "orchestrator_address": f"127.0.0.1:{free_port()}",
        "orchestrator_metrics_address": f"127.0.0.1:{free_port()}",
        "log_format": "json",
    }


@pytest.fixture
async def service(variables: dict[str, Any], db: Any) -> AsyncIterator[Service]:
    """An orchestrator that starts with an empty Redis: without the pause that an earlier test's target asked for."""
    assert await db.dbsize() == 0
    service = await build(HubSettings(**variables))
    await service.start()
    yield service
    await service.stop()


async def status_of(
    parts: Surroundings, variables: dict[str, str], *scopes: str, target_system: str = ""
) -> GetStatusResponse:
    token = ServiceToken(parts.keys.signer, service="operator", scopes=scopes)
    rpc = RpcClient(variables["orchestrator_address"], token, timeout_seconds=5)
    stub = orchestrator_pb2_grpc.OrchestratorServiceStub(rpc.channel)
    try:
        return await rpc.unary(stub.GetStatus, GetStatusRequest(target_system=target_system))
    finally:
        await rpc.stop()


@pytest.mark.usefixtures("service")
async def test_a_request_goes_from_the_bell_to_completed(parts: Surroundings, db: Any) -> None:
    request_id = parts.intake.add()
    await db.xadd(work_stream("Erp"), {"id": request_id})

    await eventually(lambda: parts.intake.requests[request_id].steps == ["sending", "completed"])


@pytest.mark.usefixtures("service")
async def test_the_schema_of_the_targets_file_is_checked(parts: Surroundings, db: Any) -> None:
    request_id = parts.intake.add(payload_json='{"other":1}')
    await db.xadd(work_stream("Erp"), {"id": request_id})

    await eventually(lambda: parts.intake.requests[request_id].steps == ["failed"])


@pytest.mark.usefixtures("service")
async def test_status_shows_every_target(parts: Surroundings, variables: dict[str, str]) -> None:
    await eventually(lambda: parts.intake.beats)
    status = await status_of(parts, variables, OPERATIONS)

    assert [(target.name, target.concurrency) for target in status.targets] == [("Erp", 8), ("Limited", 2)]
    assert [target.rate_per_second for target in status.targets] == [0, 7.5]
    assert {target.breaker for target in status.targets} == {orchestrator_pb2.BREAKER_STATE_CLOSED}
    assert status.live_workers == 1


@pytest.mark.usefixtures("service")
async def test_status_says_why_a_target_waits(parts: Surroundings, variables: dict[str, str], db: Any) -> None:
    parts.adapter.answer = gate = Gate()
    for _ in range(3):
        await db.xadd(work_stream("Limited"), {"id": parts.intake.add("Limited")})
    # 7.5 a second after a quiet time: one at once, the next 1 / 7.5 s later
    await eventually(lambda: len(parts.adapter.deliveries) == 2)
    [target] = (await status_of(parts, variables, OPERATIONS, target_system="Limited")).targets
    gate.is_open.set()

    assert (target.wait_reason, target.in_flight, target.concurrency_limit) == ("concurrency", 2, 2)
    assert (target.waiting, target.HasField("oldest_waiting_at")) == (1, True)


@pytest.mark.usefixtures("service")
async def test_status_says_until_when_a_target_wants_to_be_left_alone(
    parts: Surroundings, variables: dict[str, str], db: Any
) -> None:
    throttled = DeliverResponse(outcome=adapter_pb2.OUTCOME_THROTTLED)
    throttled.retry_after.FromSeconds(20)
    parts.adapter.answer = always(throttled)
    request_id = parts.intake.add()
    await db.xadd(work_stream("Erp"), {"id": request_id})
    await eventually(lambda: parts.intake.requests[request_id].steps[-1:] == ["retry"])
    [target] = (await status_of(parts, variables, OPERATIONS, target_system="Erp")).targets

    assert target.wait_reason == "retry_after"
    assert 17 < (target.waits_until.ToDatetime(tzinfo=UTC) - datetime.now(UTC)).total_seconds() <= 20
    # saturated: half of its 8 places, and no reason to open the breaker
    assert (target.concurrency_limit, target.breaker) == (4, orchestrator_pb2.BREAKER_STATE_CLOSED)


@pytest.mark.usefixtures("service")
async def test_status_says_that_the_hubs_own_parts_are_away(
    parts: Surroundings, variables: dict[str, str], db: Any
) -> None:
    async def reason() -> str:
        return str((await status_of(parts, variables, OPERATIONS, target_system="Erp")).targets[0].wait_reason)

    await eventually(lambda: parts.intake.beats)
    await parts.adapter_server.stop()
    await db.xadd(work_stream("Erp"), {"id": parts.intake.add()})
    await eventually(lambda: _is(reason, "adapter_away"))
    parts.intake.away = StorageUnavailable("The database is away.")
    await parts.adapter_server.start()
    await db.xadd(work_stream("Erp"), {"id": parts.intake.add()})
    await eventually(lambda: _is(reason, "intake_away"))
    parts.intake.away = None

    await eventually(lambda: _is(reason, ""))


async def test_status_says_that_redis_is_away(
    parts: Surroundings, variables: dict[str, Any], own_valkey: ValkeyServer
) -> None:
    service = await build(HubSettings(**{**variables, "redis_url": own_valkey.url}))
    await service.start()
    await eventually(lambda: parts.intake.beats)
    own_valkey.kill()
    status = await status_of(parts, variables, OPERATIONS)
    await service.stop()

    assert {target.wait_reason for target in status.targets} == {"redis_away"}


async def _is(ask: Callable[[], Awaitable[str]], wanted: str) -> bool:
    return await ask() == wanted


@pytest.mark.usefixtures("service")
async def test_status_of_a_target_that_is_none_is_not_found(parts: Surroundings, variables: dict[str, str]) -> None:
    with pytest.raises(NotFound):
        await status_of(parts, variables, OPERATIONS, target_system="Nobody")


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("scope", [LIFECYCLE, "requests:read", ""])
async def test_status_is_for_operators(parts: Surroundings, variables: dict[str, str], scope: str) -> None:
    with pytest.raises(PermissionDenied):
        await status_of(parts, variables, scope)


@pytest.mark.usefixtures("service")
async def test_status_needs_a_token(variables: dict[str, str]) -> None:
    async with grpc.aio.insecure_channel(variables["orchestrator_address"]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await orchestrator_pb2_grpc.OrchestratorServiceStub(channel).GetStatus(GetStatusRequest())

    assert raised.value.code() is Unauthenticated.code


async def test_the_worker_says_goodbye_when_the_service_stops(parts: Surroundings, variables: dict[str, Any]) -> None:
    service = await build(HubSettings(**variables))
    await service.start()
    await eventually(lambda: parts.intake.beats)
    await service.stop()

    assert parts.intake.beats[-1].leaving


async def test_it_starts_before_anything_it_needs(variables: dict[str, Any]) -> None:
    away = {name: f"127.0.0.1:{free_port()}" for name in ("intake_url", "adapter_url")}
    redis_url = f"redis://127.0.0.1:{free_port()}/0"
    service = await build(HubSettings(**{**variables, **away, "redis_url": redis_url}))
    async with asyncio.timeout(5):
        await service.start()
        await service.stop()


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ('{"$ref": "https://example.com/order.json"}', "cannot be used"),
        ('{"type": "nonsense"}', "cannot be used"),
        ("{", "is not JSON"),
        (None, "cannot be read"),
    ],
)
async def test_a_bad_schema_keeps_it_from_starting(
    variables: dict[str, Any], tmp_path: Path, schema: str | None, said: str
) -> None:
    if schema is None:
        (tmp_path / "order.json").unlink()
    else:
        (tmp_path / "order.json").write_text(schema)

    with pytest.raises(ConfigurationError, match=f"targets.Erp: the schema order.json for SAP {said}"):
        await build(HubSettings(**variables))


@pytest.mark.parametrize("name", ["orchestrator_address", "intake_url", "adapter_url"])
async def test_plain_text_beyond_this_machine_keeps_it_from_starting(variables: dict[str, Any], name: str) -> None:
    with pytest.raises(HubError, match="not encrypted"):
        await build(HubSettings(**{**variables, name: "10.0.0.1:50051"}))


def test_worker_ids_are_unique() -> None:
    assert len({new_worker_id() for _ in range(100)}) == 100


def test_worker_ids_are_in_the_order_of_the_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for started_at in (1_795_900_000, 1_795_900_001, 2_500_000_000):
        monkeypatch.setattr(time, "time", lambda at=started_at: at)
        ids.append(new_worker_id())

    assert ids == sorted(ids)


async def test_sigterm_finishes_what_was_sent_and_ends_with_0(
    parts: Surroundings, variables: dict[str, str], db: Any
) -> None:
    parts.adapter.answer = gate = Gate()
    request_id = parts.intake.add()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator_service"),
        env={
            **os.environ,
            **{f"HUB_{name.upper()}": value for name, value in variables.items()},
            "PYTHONPATH": ".:gen",
        },
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        await db.xadd(work_stream("Erp"), {"id": request_id})
        await eventually(lambda: parts.adapter.deliveries, seconds=20)
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.1)  # it must not end before its delivery does
        gate.is_open.set()
        output, _ = await asyncio.wait_for(process.communicate(), timeout=20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert process.returncode == 0
    assert parts.intake.requests[request_id].steps == ["sending", "completed"]
    assert parts.intake.beats[-1].leaving
    messages = [json.loads(line)["message"] for line in output.decode().splitlines()]
    assert messages[0] == "Service ready"
    assert messages[-1] == "Service stopped"
