"""A20 to A23: what a hostile or broken external system answers, and what is told of it; bad configuration."""

import json
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from console.testing import HubProcess
from integrationhub.adapter.v1.adapter_pb2 import DeliverRequest, DeliverResponse
from integrationhub.adapter.v1.adapter_pb2_grpc import AdapterServiceStub
from tests.security.attack import Forge

CAPTURED_BYTES = 64 * 1024
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
SECRET = "s3cret-9f8e7d6c5b4a"

HOSTILE: dict[str, dict[str, Any]] = {
    "huge": {"kind": "huge_body", "mebibytes": 64},
    "redirect_inwards": {"kind": "redirect", "location": "http://127.0.0.1:6390/"},
    "redirect_to_metadata": {"kind": "redirect", "location": "http://169.254.169.254/latest/meta-data"},
    "redirect_to_a_file": {"kind": "redirect", "location": "file:///etc/passwd"},
    "html": {"kind": "html", "status": 500},
    "html_that_says_200": {"kind": "html", "status": 200},
    "cp1252": {"kind": "cp1252"},
    "error_in_200": {"kind": "error_200"},
    "half_of_json": {"kind": "broken_json"},
    "half_of_json_before": {"kind": "broken_json_before"},
    "cut_off": {"kind": "cut_body"},
    "reset": {"kind": "reset_after"},
    "json_100_000_deep": {"kind": "status", "status": 200, "body": "[" * 100_000},
    "json_with_nul": {
        "kind": "status",
        "status": 400,
        "body": '{"code":"1","message":"a\\u0000b","detailedMessage":"x"}',
    },
    "json_with_a_lone_surrogate": {"kind": "status", "status": 400, "body": '{"message":"\\ud800"}'},
    "json_of_wrong_types": {"kind": "status", "status": 400, "body": {"code": [], "message": {}, "detailedMessage": 1}},
    "json_list": {"kind": "status", "status": 200, "body": []},
    "number_without_end": {"kind": "status", "status": 200, "body": '{"protheusOrderId":' + "9" * 50_000 + "}"},
    "wrong_content_type": {"kind": "status", "status": 200, "body": "hello", "content_type": "image/png"},
    "empty_200": {"kind": "status", "status": 200, "body": ""},
    "status_of_nobody": {"kind": "status", "status": 599},
    "retry_after_a_thousand_years": {"kind": "status", "status": 429, "retry_after": "31536000000"},
    "retry_after_no_number": {"kind": "status", "status": 503, "retry_after": "-1e9"},
    "escape_codes": {"kind": "status", "status": 400, "body": '{"message":"\\u001b[2J<script>alert(1)</script>"}'},
}


@pytest.fixture
async def simulator(hub: HubProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=hub.simulator_url, timeout=20) as client:
        yield client


async def deliver(
    adapter: grpc.aio.Channel, forge: Forge, simulator: httpx.AsyncClient, fault: dict[str, Any]
) -> DeliverResponse:
    """Have the adapter make one attempt that is answered so, as the orchestrator would."""
    order_id = f"ORD-{uuid.uuid4()}"
    added = await simulator.post("/_sim/faults", json={**fault, "external_order_id": order_id})
    assert added.status_code < 300, added.text
    request = DeliverRequest(
        integration_request_id=str(uuid.uuid4()),
        external_id="E",
        source_system="SAP",
        target_system="TotvsProtheus",
        payload_json=json.dumps({"orderId": order_id, "customer": "A", "amount": 1}),
        attempt=1,
    )
    metadata = (("authorization", f"Bearer {forge.good(sub='service:orchestrator', scope='lifecycle')}"),)
    answer: DeliverResponse = await AdapterServiceStub(adapter).Deliver(request, metadata=metadata, timeout=60)
    return answer


@pytest.fixture
async def adapter(hub: HubProcess) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(hub.setting("adapter_address")) as channel:
        yield channel


@pytest.mark.parametrize("fault", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_answer_is_classified_and_capped(
    adapter: grpc.aio.Channel, forge: Forge, simulator: httpx.AsyncClient, fault: dict[str, Any]
) -> None:
    answer = await deliver(adapter, forge, simulator, fault)

    assert answer.outcome
    assert len(answer.response_json.encode()) <= CAPTURED_BYTES
    assert len(answer.detail) <= 2000
    assert not CONTROL.search(answer.detail)
    assert answer.retry_after.seconds <= 3600
    assert "root:" not in answer.response_json


@pytest.mark.parametrize(
    "body",
    [
        {"message": "no", "access_token": SECRET},
        {"message": "no", "nested": [{"Authorization": f"Bearer {SECRET}"}]},
        {"message": f"login failed: password={SECRET}"},
        {"message": f"GET /token?client_secret={SECRET}&a=b"},
        f"<html>Authorization: Bearer {SECRET}</html>",
    ],
    ids=["member", "nested", "in_a_text", "in_a_query", "in_html"],
)
async def test_a_secret_in_an_answer_is_told_to_nobody(
    hub: HubProcess, adapter: grpc.aio.Channel, forge: Forge, simulator: httpx.AsyncClient, body: object
) -> None:
    answer = await deliver(adapter, forge, simulator, {"kind": "status", "status": 400, "body": body})

    assert SECRET not in str(answer)
    for log in (Path(hub.setting("state_dir")) / "logs").iterdir():
        assert SECRET not in log.read_text(encoding="utf-8", errors="replace"), log.name


TARGET = """
[targets.A]
adapter = "http_json"
base_url = "http://127.0.0.1:1"
"""

BAD_TARGETS = {
    "credentials_in_the_url": TARGET.replace("127.0.0.1:1", "user:hunter2@erp.example"),
    "file_url": TARGET.replace("http://127.0.0.1:1", "file:///etc/passwd"),
    "unix_path": TARGET.replace("http://127.0.0.1:1", "unix:///var/run/docker.sock"),
    "gopher_url": TARGET.replace("http://127.0.0.1:1", "gopher://127.0.0.1:6390/_FLUSHALL"),
    "no_host": TARGET.replace("http://127.0.0.1:1", "http:///path"),
    "line_break_in_the_url": TARGET.replace("http://127.0.0.1:1", "http://a\\r\\nb"),
    "secret_written_out": TARGET + 'auth = { kind = "bearer", token = "hunter2" }',
    "adapter_as_a_path": TARGET.replace("http_json", "../../evil"),
    "adapter_of_another_package": TARGET.replace("http_json", "os"),
    "no_toml": "hunter2 = [",
}


@pytest.mark.parametrize("text", BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_a_bad_targets_file_is_refused_at_the_start(hub: HubProcess, tmp_path: Path, text: str) -> None:
    (tmp_path / "targets.toml").write_text(text)
    environment = {**hub.environment, "HUB_TARGETS": str(tmp_path / "targets.toml")}

    done = subprocess.run(
        [sys.executable, "-P", "-m", "adapter_service"], env=environment, capture_output=True, timeout=60, check=False
    )

    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 1
    assert "hunter2" not in said
    assert "Traceback" not in said
    assert "targets" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HUB_JWT_ISSUER", "a\nb"),
        ("HUB_DATABASE_URL", "mysql://hub:hunter2@db/hub"),
        ("HUB_REDIS_URL", "redis://:hunter2@cache.example:6379/0"),
        ("HUB_INTAKE_ADDRESS", "0.0.0.0:50051"),
        ("HUB_JWT_JWKS", "http://issuer.example/jwks.json"),
    ],
)
def test_a_bad_setting_is_refused_at_the_start(hub: HubProcess, name: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "intake_service"],
        env={**hub.environment, name: value},
        capture_output=True,
        timeout=60,
        check=False,
    )

    said = (done.stdout + done.stderr).decode()
    assert done.returncode != 0
    assert name in said or "intake_address" in said.lower() or "loopback" in said
    assert "hunter2" not in said
