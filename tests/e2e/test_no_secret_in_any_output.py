"""Secrets are sent along every path of a whole hub; then everything that any process has said is searched for them."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from chassis.testing import eventually
from console.testing import HubProcess
from integrationhub.intake.v1 import intake_pb2, intake_pb2_grpc
from tests.observed import SERVICES, OtlpReceiver, all_output, metrics_text

ROOT = Path(__file__).resolve().parents[2]
PAYLOAD_MARK = "PAYLOADSECRET7f3a"
ANSWER_TOKEN = "ANSWERTOKEN91bc"
CREDENTIAL = "PROTHEUSCREDENTIAL5e2d"
CLIENT_SECRET = "CLIENTSECRET44ad"
PATH = "/api/integration-requests"
TARGETS = """
[targets.TotvsProtheus]
adapter = "totvs_protheus"
base_url = "{simulator}"
auth = {{ kind = "bearer", token = "env:PROTHEUS_TOKEN" }}
timeout_seconds = 2
retry = [0.1]
schemas = {{ SAP = "{schema}" }}

[targets.Closed]
adapter = "http_json"
base_url = "{simulator}/t/closed"
auth = {{ kind = "basic", username = "hub", password = "env:PROTHEUS_TOKEN" }}
path = "/orders"

[targets.OAuth]
adapter = "http_json"
base_url = "{simulator}/t/oauth"
path = "/orders"
retry = [0.1]

[targets.OAuth.auth]
kind = "oauth2"
token_url = "{simulator}/t/oauth/oauth2/token"
client_id = "hub"
client_secret = "env:OAUTH_SECRET"
"""
TELLING = {"code": 101, "message": f"token {ANSWER_TOKEN}", "detailedMessage": f"Bearer {ANSWER_TOKEN} {PAYLOAD_MARK}"}


@pytest.fixture(scope="module")
def collector() -> Iterator[OtlpReceiver]:
    receiver = OtlpReceiver()
    yield receiver
    receiver.stop()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, collector: OtlpReceiver) -> Iterator[HubProcess]:
    folder = tmp_path_factory.mktemp("secret")
    process = HubProcess(folder, targets=str(folder / "targets.toml"), log_level="debug")
    schema = ROOT / "deploy" / "schemas" / "sap-order.json"
    (folder / "targets.toml").write_text(TARGETS.format(simulator=process.simulator_url, schema=schema))
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("PROTHEUS_TOKEN", CREDENTIAL)
        variables.setenv("OAUTH_SECRET", CLIENT_SECRET)
        variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        variables.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        asyncio.run(process.start())
        yield process
        assert asyncio.run(process.stop()) == 0


def order(external_id: str, *, target: str = "TotvsProtheus", payload: str | None = None) -> str:
    document = payload or f'{{"orderId":"{PAYLOAD_MARK}","customer":"{PAYLOAD_MARK}","amount":1.00}}'
    return f'{{"externalId":"{external_id}","sourceSystem":"SAP","targetSystem":"{target}","payload":{document}}}'


async def test_no_token_payload_or_credential_is_in_any_output(hub: HubProcess, collector: OtlpReceiver) -> None:
    token = hub.token("acme")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=hub.base_url, headers=headers, timeout=20) as partner:
        locations = await _walk_the_good_and_the_failing_paths(hub, partner)
        await _be_refused(hub, partner, token)
        await _end(partner, locations)
    await _call_over_grpc(hub, token)
    await asyncio.to_thread(_operate, hub)

    said = all_output(hub)
    spans = collector.raw().decode(errors="replace")
    metrics = "".join(metrics_text(hub, service) for service in SERVICES)
    # it was said that these things happened
    assert "External system called" in said
    assert "Payload validation failed" in said
    assert "Call refused" in said
    assert "Dead letter redriven" in said
    assert "Credentials refused" in said
    assert "worker.process_integration" in spans
    secrets = {
        "the partner's token": token,
        "the signature of a token": token.rpartition(".")[2],
        "a payload": PAYLOAD_MARK,
        "a target's credential": CREDENTIAL,
        "a client secret": CLIENT_SECRET,
        "a token in a target's answer": ANSWER_TOKEN,
        "any signed token": "eyJ",
    }
    places = {"a log": said, "a span": spans, "a metric": metrics}
    found = [
        f"{what} in {where}" for what, secret in secrets.items() for where, text in places.items() if secret in text
    ]
    assert found == []


async def _walk_the_good_and_the_failing_paths(hub: HubProcess, partner: httpx.AsyncClient) -> list[str]:
    faults: list[dict[str, Any]] = [
        {},
        {"kind": "status", "status": 400, "body": TELLING},
        {"kind": "status", "status": 503, "body": TELLING, "times": 2},
        {"kind": "error_200"},
        {"kind": "html"},
        {"kind": "reset_after"},
        {"kind": "broken_json"},
        {"kind": "slow", "delay_seconds": 3},
    ]
    locations = []
    async with httpx.AsyncClient() as simulator:
        for number, fault in enumerate(faults):
            if fault:
                await simulator.post(f"{hub.simulator_url}/_sim/faults", json=fault)
            answer = await partner.post(PATH, content=order(f"S-{number}"))
            locations.append(answer.headers["Location"])
            await eventually(partial(_is_called, simulator, hub, number + 1), 20)
        refusing = {"kind": "status", "target": "closed", "status": 401, "body": TELLING, "times": 2}
        await simulator.post(f"{hub.simulator_url}/_sim/faults", json=refusing)
        for kind in ({"status": 401, "body": TELLING}, {"status": 200, "body": {"access_token": ""}}):
            wanted = {"kind": "status", "target": "oauth", "match": "token", **kind}
            await simulator.post(f"{hub.simulator_url}/_sim/faults", json=wanted)
    for number, payload in enumerate((f'{{"customer":"{PAYLOAD_MARK}"}}', f'{{"{PAYLOAD_MARK}":1,"orderId":[]}}')):
        answer = await partner.post(PATH, content=order(f"INVALID-{number}", payload=payload))
        locations.append(answer.headers["Location"])
    for target in ("OAuth", "Closed"):
        await partner.post(PATH, content=order(f"{target}-1", target=target))
    return locations


async def _is_called(simulator: httpx.AsyncClient, hub: HubProcess, count: int) -> bool:
    calls = (await simulator.get(f"{hub.simulator_url}/_sim/calls", params={"target": "default"})).json()["items"]
    return len([call for call in calls if call["method"] == "POST"]) >= count


async def _be_refused(hub: HubProcess, partner: httpx.AsyncClient, token: str) -> None:
    """Every way to be refused, with something secret in it."""
    bodies = [
        order("S-1"),
        "{" + PAYLOAD_MARK,
        f'{{"externalId":"{PAYLOAD_MARK} !","payload":"{PAYLOAD_MARK}"}}',
        order("BIG", payload='{"x":"' + PAYLOAD_MARK * 100_000 + '"}'),
        order("UNKNOWN", target=PAYLOAD_MARK),
    ]
    for body in bodies:
        assert (await partner.post(PATH, content=body)).status_code >= 400
    broken = {"Authorization": f"Bearer {token[:-6]}AAAAAA"}
    assert (await partner.post(PATH, content=order("X"), headers=broken)).status_code == 401
    assert (await partner.post(PATH, content=order("X"), headers={"Authorization": token})).status_code == 401
    assert (await partner.get(f"/{PAYLOAD_MARK}?access_token={token}")).status_code == 404
    assert (await partner.get(PATH, params={"status": PAYLOAD_MARK})).status_code >= 400
    reader, writer = await asyncio.open_connection(*hub.setting("gateway_address").split(":"))
    writer.write(f"{PAYLOAD_MARK} nonsense {token}\r\n\r\n".encode())
    await reader.read()
    writer.close()
    await writer.wait_closed()


async def _end(partner: httpx.AsyncClient, locations: list[str]) -> None:
    async def ended() -> bool:
        bodies = [(await partner.get(location)).json() for location in locations]
        return all(body["status"] in ("Completed", "Failed") for body in bodies)

    await eventually(ended, 120, every=0.3)  # one that is posted again may be in doubt twice, 30 s each time


async def _call_over_grpc(hub: HubProcess, token: str) -> None:
    async with grpc.aio.insecure_channel(hub.setting("intake_address")) as channel:
        stub = intake_pb2_grpc.IntakeServiceStub(channel)
        for secret, payload in ((token, f'{{"{PAYLOAD_MARK}'), (f"{token}x", "{}"), (token, f'"{PAYLOAD_MARK}"')):
            request = intake_pb2.CreateIntegrationRequestRequest(
                external_id="G-1", source_system="SAP", target_system="TotvsProtheus", payload_json=payload
            )
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.CreateIntegrationRequest(
                    request, metadata=(("authorization", f"Bearer {secret}"),), timeout=10
                )
        garbled = channel.unary_unary(
            "/integrationhub.intake.v1.IntakeService/CreateIntegrationRequest",
            request_serializer=bytes,
            response_deserializer=bytes,
        )
        with pytest.raises(grpc.aio.AioRpcError):
            await garbled(PAYLOAD_MARK.encode(), metadata=(("authorization", f"Bearer {token}"),), timeout=10)


def _operate(hub: HubProcess) -> None:
    """Redrive one with a corrected payload and discard the others, as an operator."""

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "console", "dead-letters", *arguments]
        done = subprocess.run(command, env=hub.environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    letters = json.loads(run("list", "--json"))["items"]
    corrected = hub.folder / "corrected.json"
    corrected.write_text(f'{{"orderId":"{PAYLOAD_MARK}","customer":"{PAYLOAD_MARK}","amount":2.00}}')
    run("redrive", letters[0]["requestId"], "--payload", str(corrected), "--reason", "corrected", "--yes")
    run("discard", "--all", "--reason", "not wanted", "--yes")
