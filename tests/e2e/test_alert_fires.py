"""A target that fails ends in a fired alert: a real Prometheus scrapes a whole hub by the rules of deploy/."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from chassis.testing import eventually, free_port
from console.testing import HubProcess
from tools.promtool import NotFound, find

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
TARGETS = """
[targets.TotvsProtheus]
adapter = "totvs_protheus"
base_url = "{simulator}"
auth = {{ kind = "bearer", token = "env:PROTHEUS_TOKEN" }}
retry = [0.1]
"""
ORDER = '{"externalId":"%s","sourceSystem":"SAP","targetSystem":"TotvsProtheus","payload":{"orderId":"ORD-1"}}'


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubProcess]:
    process = HubProcess(tmp_path, targets=str(tmp_path / "targets.toml"))
    (tmp_path / "targets.toml").write_text(TARGETS.format(simulator=process.simulator_url))
    async with process:
        yield process


@pytest.fixture
async def prometheus(hub: HubProcess, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Prometheus with the configuration of deploy/, faster, and the hub's own ports."""
    try:
        program = find("prometheus")
    except NotFound as error:
        pytest.fail(str(error), pytrace=False)
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    del config["alerting"]
    for job in config["scrape_configs"]:
        service = job["job_name"].removeprefix("hub-")
        job["static_configs"] = [{"targets": [hub.setting(f"{service}_metrics_address")]}]
    rules = yaml.safe_load((DEPLOY / "hub-alerts.yml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule):
        rule["for"] = "1s"
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    (tmp_path / "hub-alerts.yml").write_text(yaml.safe_dump(rules))
    address = f"127.0.0.1:{free_port()}"
    arguments = [f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    with (tmp_path / "prometheus.log").open("wb") as log:
        arguments.append(f"--web.listen-address={address}")
        process = await asyncio.create_subprocess_exec(program, *arguments, stdout=log, stderr=log)
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}/api/v1", timeout=10) as client:
            yield client
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)


async def ask(prometheus: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """What Prometheus' API answers; nothing while it starts."""
    try:
        data: dict[str, Any] = (await prometheus.get(path)).json()["data"]
    except (httpx.TransportError, ValueError, KeyError):
        return {}
    return data


async def firing(prometheus: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    """The alerts that have fired, by name."""
    alerts = (await ask(prometheus, "/alerts")).get("alerts", [])
    return {each["labels"]["alertname"]: each for each in alerts if each["state"] == "firing"}


async def test_a_failing_target_ends_in_a_fired_alert(hub: HubProcess, prometheus: httpx.AsyncClient) -> None:
    async def scraped() -> bool:
        targets = (await ask(prometheus, "/targets")).get("activeTargets", [])
        return [target["health"] for target in targets] == ["up"] * 4

    await eventually(scraped, 30, every=0.2)
    before = await firing(prometheus)
    async with httpx.AsyncClient() as simulator:
        forever = {"kind": "status", "status": 503, "times": None}
        (await simulator.post(f"{hub.simulator_url}/_sim/faults", json=forever)).raise_for_status()
    headers = {"Authorization": f"Bearer {hub.token('acme')}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=hub.base_url, headers=headers, timeout=20) as partner:
        for number in range(3):
            await partner.post("/api/integration-requests", content=ORDER % f"ALERT-{number}")

    async def fired() -> dict[str, Any] | None:
        return (await firing(prometheus)).get("IntegrationFailureRateHigh")

    alert = await eventually(fired, 40, every=0.5)
    assert "IntegrationFailureRateHigh" not in before
    assert alert["labels"]["severity"] == "page"
    assert alert["annotations"]["runbook_url"] == "docs/runbooks/failure-rate.md"
    assert alert["annotations"]["description"] == "100% of those that ended within 5 minutes have failed."
