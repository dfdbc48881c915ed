"""A20 to A23: what a hostile or broken external system answers, and what is told of it; bad configuration."""

import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chassis.testing import eventually
from console.testing import HubProcess
from tests.security.attack import PATH, assert_safe, create

CAPTURED_BYTES = 64 * 1024
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


async def send(
    mallory: httpx.AsyncClient, simulator: httpx.AsyncClient, fault: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Have an order answered so; gives its location and its history once the answer stands in it."""
    order_id = f"ORD-{uuid.uuid4()}"
    added = await simulator.post("/_sim/faults", json={**fault, "external_order_id": order_id})
    assert added.status_code < 300, added.text
    payload = json.dumps({"orderId": order_id, "customer": "A", "amount": 1})
    accepted = await mallory.post(PATH, content=create(f"E-{uuid.uuid4()}", payload))
    assert accepted.status_code == 202
    location = accepted.headers["Location"]

    async def story() -> dict[str, Any] | None:
        response = await mallory.get(f"{location}/history")
        body: dict[str, Any] = response.json()
        return body if any(item["kind"] == "attempt" for item in body["items"]) else None

    told: dict[str, Any] = await eventually(story, 60, every=0.1)
    return location, told


@pytest.mark.parametrize("fault", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_answer_is_classified_and_capped(
    mallory: httpx.AsyncClient, simulator: httpx.AsyncClient, fault: dict[str, Any]
) -> None:
    location, story = await send(mallory, simulator, fault)

    response = await mallory.get(location)
    assert_safe(response, 200)
    assert response.json()["status"] in ("WaitingExternal", "Completed", "Failed")
    assert all(len(json.dumps(item.get("response", ""))) <= CAPTURED_BYTES * 1.1 for item in story["items"])
    assert "root:" not in json.dumps(story)


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
    hub: HubProcess, mallory: httpx.AsyncClient, simulator: httpx.AsyncClient, body: object
) -> None:
    location, story = await send(mallory, simulator, {"kind": "status", "status": 400, "body": body})

    assert SECRET not in json.dumps(story)
    assert SECRET not in (await mallory.get(location)).text
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
