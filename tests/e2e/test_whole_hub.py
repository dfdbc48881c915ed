"""One hub as `make run` starts it, used as partners, internal systems and operators use it."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from chassis.testing import eventually
from console.testing import HubProcess
from integrationhub.intake.v1 import intake_pb2, intake_pb2_grpc

SEED_ORDER = (
    '{"externalId":"PARTNER-12345","sourceSystem":"SAP","targetSystem":"TotvsProtheus",'
    '"payload":{"orderId":"ORD-2024-001","customer":"Empresa ABC","amount":15000.00,"items":9007199254740993}}'
)
TERMINAL = ("Completed", "Failed")
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubProcess]:
    async with HubProcess(tmp_path) as running:
        yield running


@pytest.fixture
async def partner(hub: HubProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with client(hub) as connected:
        yield connected


def client(hub: HubProcess, partner_id: str = "acme") -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=hub.base_url, headers={"Authorization": f"Bearer {hub.token(partner_id)}"}, timeout=20
    )


def order(external_id: str) -> str:
    return SEED_ORDER.replace("PARTNER-12345", external_id)


async def ended(partner: httpx.AsyncClient, location: str, seconds: float = 30) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        body: dict[str, Any] = (await partner.get(location)).json()
        return body if body["status"] in TERMINAL else None

    result: dict[str, Any] = await eventually(look, seconds)
    return result


async def simulator_orders(hub: HubProcess) -> list[dict[str, Any]]:
    async with httpx.AsyncClient() as simulator:
        answer = await simulator.get(f"{hub.simulator_url}/_sim/orders", params={"limit": 10000})
        orders: list[dict[str, Any]] = answer.json()["items"]
        return orders


async def test_the_seeds_order_gets_the_seeds_answers_and_reaches_protheus_digit_for_digit(
    hub: HubProcess, partner: httpx.AsyncClient
) -> None:
    correlation_id = "550e8400-e29b-41d4-a716-446655440000"

    accepted = await partner.post(
        "/api/integration-requests", content=SEED_ORDER, headers={**JSON, "X-Correlation-ID": correlation_id}
    )
    body = accepted.json()
    finished = await ended(partner, accepted.headers["Location"])
    again = await partner.post("/api/integration-requests", content=SEED_ORDER, headers=JSON)
    (stored,) = await simulator_orders(hub)

    assert accepted.status_code == 202
    assert accepted.headers["Location"] == f"/api/integration-requests/{body['id']}"
    assert accepted.headers["X-Correlation-ID"] == correlation_id
    assert list(body) == ["id", "externalId", "status", "correlationId", "createdAt"]
    assert body["status"] == "Received"
    assert body["correlationId"] == correlation_id
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", body["createdAt"])
    assert finished["status"] == "Completed"
    assert finished["externalResponse"]["protheusOrderId"] == stored["protheusOrderId"]
    assert again.status_code == 409
    assert again.headers["Location"] == accepted.headers["Location"]
    assert again.json()["existing"] == {
        "id": body["id"],
        "status": "Completed",
        "href": accepted.headers["Location"],
    }
    assert stored["correlationId"] == correlation_id
    assert '"amount":15000.00' in stored["body"]
    assert '"items":9007199254740993' in stored["body"]
    assert '"originSystem":"SAP"' in stored["body"]


async def test_200_posts_of_one_external_id_at_once_make_one_request(
    hub: HubProcess, partner: httpx.AsyncClient
) -> None:
    posts = [partner.post("/api/integration-requests", content=order("ONCE"), headers=JSON) for _ in range(200)]

    answers = await asyncio.gather(*posts)
    await ended(partner, answers[0].headers["Location"])

    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(202), statuses.count(409)) == (1, 199)
    assert len({answer.headers["Location"] for answer in answers}) == 1
    assert len(await simulator_orders(hub)) == 1


async def test_the_history_tells_every_transition_and_the_attempt(partner: httpx.AsyncClient) -> None:
    accepted = await partner.post("/api/integration-requests", content=order("STORY-1"), headers=JSON)
    await ended(partner, accepted.headers["Location"])

    items = (await partner.get(accepted.headers["Location"] + "/history")).json()["items"]

    moves = [(item.get("fromStatus"), item["toStatus"]) for item in items if item["kind"] == "transition"]
    assert moves == [
        (None, "Received"),
        ("Received", "Processing"),
        ("Processing", "WaitingExternal"),
        ("WaitingExternal", "Completed"),
    ]
    assert [item["outcome"] for item in items if item["kind"] == "attempt"] == ["DELIVERED"]


async def test_an_invalid_payload_fails_without_a_call_to_protheus(hub: HubProcess, partner: httpx.AsyncClient) -> None:
    body = order("INVALID-1").replace('"orderId":"ORD-2024-001",', "")

    accepted = await partner.post("/api/integration-requests", content=body, headers=JSON)
    finished = await ended(partner, accepted.headers["Location"])

    assert (finished["status"], finished["failureReason"]) == ("Failed", "validation_failed")
    assert "orderId" in finished["failureDetail"]
    assert await simulator_orders(hub) == []


async def test_four_503_end_failed_after_the_seeds_waits_and_an_operator_redrives_it(
    hub: HubProcess, partner: httpx.AsyncClient
) -> None:
    async with httpx.AsyncClient() as simulator:
        await simulator.post(f"{hub.simulator_url}/_sim/faults", json={"kind": "status", "status": 503, "times": 4})
    accepted = await partner.post("/api/integration-requests", content=order("DOWN-1"), headers=JSON)

    failed = await ended(partner, accepted.headers["Location"], seconds=40)
    items = (await partner.get(accepted.headers["Location"] + "/history")).json()["items"]
    listed = run_hub(hub, "dead-letters", "list", "--json")
    redriven = run_hub(hub, "dead-letters", "redrive", failed["id"], "--yes", "--reason", "Protheus is back")
    finished = await eventually(lambda: completed(partner, accepted.headers["Location"]), 30)

    attempts = [item for item in items if item["kind"] == "attempt"]
    assert (failed["status"], failed["failureReason"], failed["attempts"]) == ("Failed", "external_unavailable", 4)
    assert [item["outcome"] for item in attempts] == ["UNAVAILABLE"] * 4
    at = [datetime.fromisoformat(item["at"]) for item in attempts]
    waits = [(later - earlier).total_seconds() for earlier, later in pairwise(at)]
    assert [wait >= least for wait, least in zip(waits, (2, 4, 8), strict=True)] == [True] * 3, waits
    assert failed["id"] in listed.stdout
    assert redriven.returncode == 0, redriven.stderr
    assert finished["attempts"] == 5
    assert len(await simulator_orders(hub)) == 1


async def completed(partner: httpx.AsyncClient, location: str) -> dict[str, Any] | None:
    body: dict[str, Any] = (await partner.get(location)).json()
    return body if body["status"] == "Completed" else None


async def test_an_internal_system_sends_and_reads_over_grpc(hub: HubProcess) -> None:
    metadata = (("authorization", f"Bearer {hub.token('billing')}"), ("x-correlation-id", "from-billing"))
    request = intake_pb2.CreateIntegrationRequestRequest(
        external_id="B-1",
        source_system="Billing",
        target_system="OrdersApi",
        payload_json='{"total": 15000.00}',
    )
    async with grpc.aio.insecure_channel(hub.setting("intake_address")) as channel:
        stub = intake_pb2_grpc.IntakeServiceStub(channel)
        created = await stub.CreateIntegrationRequest(request, metadata=metadata, timeout=10)
        wanted = intake_pb2.GetIntegrationRequestRequest(id=created.integration_request.id)

        async def look() -> intake_pb2.IntegrationRequest | None:
            answer = await stub.GetIntegrationRequest(wanted, metadata=metadata, timeout=10)
            found = answer.integration_request
            return found if found.status == intake_pb2.INTEGRATION_REQUEST_STATUS_COMPLETED else None

        found = await eventually(look, 20)

    assert found.correlation_id == "from-billing"
    assert found.payload_json == '{"total": 15000.00}'
    assert found.attempts == 1


async def test_a_hub_stopped_in_mid_work_and_bereft_of_valkeys_files_carries_on(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path)
    async with hub:
        async with httpx.AsyncClient() as simulator:
            await simulator.post(f"{hub.simulator_url}/_sim/settings", json={"latency_seconds": 0.3})
        async with client(hub) as partner:
            answers = await asyncio.gather(
                *[
                    partner.post("/api/integration-requests", content=order(f"MID-{number}"), headers=JSON)
                    for number in range(60)
                ]
            )
    locations = [answer.headers["Location"] for answer in answers]
    for path in (tmp_path / "state" / "valkey").rglob("*"):
        if path.is_file() and path.suffix != ".conf":
            path.unlink()

    async with hub, client(hub) as partner:
        bodies = [await ended(partner, location, seconds=60) for location in locations]
        orders = await simulator_orders(hub)

    assert [answer.status_code for answer in answers] == [202] * 60
    assert {body["status"] for body in bodies} == {"Completed"}
    assert sorted(stored["integrationId"] for stored in orders) == sorted(body["id"] for body in bodies)


async def test_a_killed_supervisor_takes_every_process_with_it(tmp_path: Path) -> None:
    hub = await HubProcess(tmp_path).start()
    pids = list(hub.child_pids().values())

    await hub.kill()

    assert len(pids) == 6
    await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 20)


def run_hub(hub: HubProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "console", *arguments],
        env=hub.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def test_the_operators_commands_show_targets_and_settings(hub: HubProcess) -> None:
    targets = await asyncio.to_thread(run_hub, hub, "targets", "--json")
    config = await asyncio.to_thread(run_hub, hub, "config", "--json")

    assert targets.returncode == 0, targets.stderr
    assert "TotvsProtheus" in targets.stdout
    json.loads(targets.stdout)
    assert config.returncode == 0, config.stderr
    assert json.loads(config.stdout)
