"""The seed's logs, spans and metrics of a success, of four 503 and of an invalid payload, by name, in a whole hub."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chassis.testing import eventually
from console.testing import HubProcess
from tests.observed import SERVICES, OtlpReceiver, log_lines, sample

ROOT = Path(__file__).resolve().parents[2]
TARGETS = """
[targets.TotvsProtheus]
adapter = "totvs_protheus"
base_url = "{simulator}"
auth = {{ kind = "bearer", token = "env:PROTHEUS_TOKEN" }}
timeout_seconds = 10
retry = [0.1, 0.2, 0.3]
schemas = {{ SAP = "{schema}" }}
"""
PAYLOAD = '{"orderId":"ORD-2024-001","customer":"Empresa ABC","amount":15000.00}'
#: A partner's own trace, sampled.
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e47"
API, INSERT, PUBLISH = "api.integration-requests.create", "db.insert.integration_requests", "messagebus.publish"
WORK, UPDATE, CALL = "worker.process_integration", "db.update.integration_requests", "http.external.totvs_protheus"
ALL_SPANS = {API, INSERT, PUBLISH, WORK, UPDATE, CALL}


@pytest.fixture(scope="module")
def collector() -> Iterator[OtlpReceiver]:
    receiver = OtlpReceiver()
    yield receiver
    receiver.stop()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, collector: OtlpReceiver) -> Iterator[HubProcess]:
    folder = tmp_path_factory.mktemp("observed")
    process = HubProcess(folder, targets=str(folder / "targets.toml"))
    schema = ROOT / "deploy" / "schemas" / "sap-order.json"
    (folder / "targets.toml").write_text(TARGETS.format(simulator=process.simulator_url, schema=schema))
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        variables.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        asyncio.run(process.start())
        yield process
        assert asyncio.run(process.stop()) == 0


class Story:
    """One request as its partner sent it, and what was seen of it."""

    def __init__(self, hub: HubProcess, name: str) -> None:
        self.hub = hub
        self.name = name
        self.correlation_id = f"story-{name}"
        self.trace_id = TRACE_ID + f"{sum(name.encode()) % 256:02x}"
        self.body: dict[str, Any] = {}

    async def tell(self, payload: str = PAYLOAD, *, seconds: float = 30) -> "Story":
        """Send it and wait for its end."""
        location = await self.send(payload)
        await self.wait(location, seconds)
        return self

    async def send(self, payload: str = PAYLOAD) -> str:
        """Send it; gives where to ask for it."""
        body = f'{{"externalId":"{self.name}","sourceSystem":"SAP","targetSystem":"TotvsProtheus","payload":{payload}}}'
        headers = {
            "Content-Type": "application/json",
            "X-Correlation-ID": self.correlation_id,
            "traceparent": f"00-{self.trace_id}-00f067aa0ba902b7-01",
        }
        async with self._client() as partner:
            answer = await partner.post("/api/integration-requests", content=body, headers=headers)
        assert answer.status_code == 202, answer.text
        self.body = answer.json()
        return answer.headers["Location"]

    async def wait(self, location: str, seconds: float = 30) -> None:
        """Wait for its end."""

        async def look() -> bool:
            async with self._client() as partner:
                self.body = (await partner.get(location)).json()
            return self.body["status"] in ("Completed", "Failed")

        await eventually(look, seconds, every=0.05)

    def lines(self) -> list[dict[str, Any]]:
        """The log lines that carry its correlation id, of all services, in the order of time."""
        mine = [line for line in log_lines(self.hub) if line.get("correlation_id") == self.correlation_id]
        return sorted(mine, key=lambda line: line["timestamp"])

    def said(self, service: str, message: str) -> list[dict[str, Any]]:
        """Its lines with the seed's text."""
        return [line for line in self.lines() if (line["service"], line["message"]) == (service, message)]

    def _client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.hub.token('acme')}"}
        return httpx.AsyncClient(base_url=self.hub.base_url, headers=headers, timeout=20)


async def fault(hub: HubProcess, **fields: Any) -> None:
    async with httpx.AsyncClient() as simulator:
        await simulator.post(f"{hub.simulator_url}/_sim/faults", json=fields)


def seen(hub: HubProcess) -> dict[str, float]:
    """The seed's metrics now."""
    return {
        "received": sample(hub, "intake", "integration_requests_received_total"),
        "persisted": sample(hub, "intake", "integration_requests_persist_duration_ms_count"),
        "published": sample(hub, "intake", "events_published_total", type="IntegrationRequestCreated"),
        "active": sample(hub, "orchestrator", "worker_active_tasks"),
        "invalid": sample(hub, "orchestrator", "integration_validation_failures_total", field="orderId"),
        "called": sample(hub, "adapter", "external_system_call_duration_ms_count", system="TotvsProtheus"),
        "completed": sample(hub, "intake", "integration_requests_completed_total"),
        "unavailable": sample(hub, "intake", "integration_requests_failed_total", reason="external_unavailable"),
        "refused": sample(hub, "intake", "integration_requests_failed_total", reason="validation_failed"),
        "retried": sample(hub, "orchestrator", "delivery_retries_total", target="TotvsProtheus", outcome="UNAVAILABLE"),
    }


async def rises(hub: HubProcess, before: dict[str, float], **expected: float) -> None:
    """The metrics have risen by exactly `expected`, and by nothing else."""
    wanted = {**dict.fromkeys(before, 0.0), **expected}

    def risen() -> dict[str, float]:
        return {name: value - before[name] for name, value in seen(hub).items()}

    await eventually(lambda: risen() == wanted, 10, every=0.1)


async def test_a_request_is_seen_through_success_four_503_and_an_invalid_payload(
    hub: HubProcess, collector: OtlpReceiver
) -> None:
    await _success(hub, collector)
    await _four_503(hub, collector)
    await _invalid(hub, collector)


async def _success(hub: HubProcess, collector: OtlpReceiver) -> None:
    before = seen(hub)

    story = await Story(hub, "success").tell()

    await rises(hub, before, received=1, persisted=1, published=1, called=1, completed=1)
    await eventually(lambda: story.said("orchestrator", "Integration completed successfully"), 5)
    request_id = story.body["id"]
    (received,) = story.said("gateway", "Integration request received")
    (persisted,) = story.said("intake", "Integration request persisted")
    (published,) = story.said("intake", "Event published to queue")
    (working,) = story.said("orchestrator", "Worker processing integration")
    (called,) = story.said("adapter", "External system called")
    (completed,) = story.said("orchestrator", "Integration completed successfully")
    moves = [(line["old_status"], line["new_status"]) for line in story.said("intake", "Status updated")]
    assert received["external_id"] == "success"
    assert published["event_type"] == "IntegrationRequestCreated"
    assert called["url"].startswith(hub.simulator_url)
    assert called["duration_ms"] > 0
    assert moves == [
        ("Received", "Processing"),
        ("Processing", "WaitingExternal"),
        ("WaitingExternal", "Completed"),
    ]
    assert {line["level"] for line in story.lines()} == {"info"}
    assert {line["request_id"] for line in story.lines() if line["service"] != "gateway"} == {request_id}
    assert {line["partner_id"] for line in (received, persisted, working, completed)} == {"acme"}
    assert {line["trace_id"] for line in story.lines()} == {story.trace_id}

    await eventually(lambda: len(collector.spans(story.trace_id).get(UPDATE, [])) == 3, 10)
    await eventually(lambda: collector.spans(story.trace_id).keys() == ALL_SPANS, 10)
    spans = collector.spans(story.trace_id)
    services = {name: {service for service, _ in found} for name, found in spans.items()}
    assert services == {
        API: {"hub-gateway"},
        INSERT: {"hub-intake"},
        PUBLISH: {"hub-intake"},
        WORK: {"hub-orchestrator"},
        UPDATE: {"hub-intake"},
        CALL: {"hub-adapter"},
    }
    ids = {name: [span.span_id for _, span in found] for name, found in spans.items()}
    parents = {name: {span.parent_span_id for _, span in found} for name, found in spans.items()}
    assert parents[API] == {bytes.fromhex("00f067aa0ba902b7")}
    assert parents[INSERT] == parents[PUBLISH] == set(ids[API])
    assert parents[WORK] == set(ids[PUBLISH])
    assert parents[UPDATE] == parents[CALL] == set(ids[WORK])
    assert (persisted["span_id"], published["span_id"]) == (ids[INSERT][0].hex(), ids[PUBLISH][0].hex())
    assert (working["span_id"], called["span_id"]) == (ids[WORK][0].hex(), ids[CALL][0].hex())
    assert await _traceparent_of_the_post(hub) == f"00-{story.trace_id}-{ids[CALL][0].hex()}-01"


async def _traceparent_of_the_post(hub: HubProcess) -> str:
    async with httpx.AsyncClient() as simulator:
        calls = (await simulator.get(f"{hub.simulator_url}/_sim/calls")).json()["items"]
    (post,) = (call for call in calls if call["method"] == "POST")
    return str(post["traceparent"])


async def _four_503(hub: HubProcess, collector: OtlpReceiver) -> None:
    before = seen(hub)
    await fault(hub, kind="status", status=503, times=4)

    story = await Story(hub, "unavailable").tell()

    await rises(hub, before, received=1, persisted=1, published=1, called=4, unavailable=1, retried=3)
    (error,) = await eventually(lambda: story.said("orchestrator", "Max retries exceeded"), 5)
    assert (error["level"], error["system"]) == ("error", "TotvsProtheus")
    assert [line for line in story.lines() if line["level"] == "error"] == [error]
    waits = story.said("orchestrator", "External system unavailable, will retry")
    assert [line["level"] for line in waits] == ["warning"] * 3
    assert len(story.said("adapter", "External system called")) == 4
    assert story.body["failureReason"] == "external_unavailable"

    await eventually(lambda: len(collector.spans(story.trace_id).get(WORK, [])) == 4, 10)
    await eventually(lambda: len(collector.spans(story.trace_id).get(CALL, [])) == 4, 10)
    spans = collector.spans(story.trace_id)
    work = [span for _, span in spans[WORK]]
    links = [[link.span_id for link in span.links] for span in work]
    assert links == [[], [work[0].span_id], [work[1].span_id], [work[2].span_id]]
    assert [span.parent_span_id for _, span in spans[CALL]] == [span.span_id for span in work]
    assert len(spans[API]) == len(spans[INSERT]) == len(spans[PUBLISH]) == 1


async def _invalid(hub: HubProcess, collector: OtlpReceiver) -> None:
    before = seen(hub)

    story = await Story(hub, "invalid").tell('{"customer":"Empresa ABC","amount":15000.00}')

    await rises(hub, before, received=1, persisted=1, published=1, invalid=1, refused=1)
    (found,) = await eventually(lambda: story.said("orchestrator", "Validation failed"), 5)
    (ended,) = story.said("orchestrator", "Payload validation failed")
    assert (found["level"], found["field"]) == ("warning", "orderId")
    assert (ended["level"], ended["field"]) == ("warning", "orderId")
    assert [line for line in story.lines() if line["level"] == "error"] == []
    moves = [(line["old_status"], line["new_status"]) for line in story.said("intake", "Status updated")]
    assert moves == [("Received", "Processing"), ("Processing", "Failed")]

    await eventually(lambda: len(collector.spans(story.trace_id).get(UPDATE, [])) == 2, 10)
    await eventually(lambda: collector.spans(story.trace_id).keys() == ALL_SPANS - {CALL}, 10)


async def test_a_redriven_request_goes_on_in_its_trace_and_links_to_what_it_repeats(
    hub: HubProcess, collector: OtlpReceiver
) -> None:
    await fault(hub, kind="status", status=400)
    story = await Story(hub, "redriven").tell()

    command = ["-m", "console", "dead-letters", "redrive", story.body["id"], "--yes", "--reason", "corrected there"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=hub.environment, stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0

    def both() -> list[Any]:
        return [span for _, span in collector.spans(story.trace_id).get(WORK, [])]

    await eventually(lambda: len(both()) == 2, 20)
    # another service's spans come with its own export
    await eventually(lambda: len(collector.spans(story.trace_id)[PUBLISH]) >= 2, 20)
    first, again = both()
    assert first.span_id in [link.span_id for link in again.links]
    assert len(collector.spans(story.trace_id)[PUBLISH]) == 2


async def test_a_retry_after_the_orchestrator_was_killed_carries_the_correlation_id_in_every_service(
    hub: HubProcess,
) -> None:
    story = Story(hub, "killed")
    await fault(hub, kind="hang")
    location = await story.send()
    await eventually(lambda: story.said("orchestrator", "Worker processing integration"), 10)
    async with httpx.AsyncClient() as simulator:

        async def hangs() -> bool:
            calls = (await simulator.get(f"{hub.simulator_url}/_sim/calls")).json()["items"]
            return any(call["status"] is None for call in calls)

        await eventually(hangs, 10)

    os.kill(hub.child_pids()["orchestrator"], signal.SIGKILL)
    await story.wait(location, 90)
    await eventually(lambda: story.said("orchestrator", "Integration completed successfully"), 5)

    request_id = story.body["id"]
    about = [line for line in log_lines(hub) if line.get("request_id") == request_id]
    assert story.body["status"] == "Completed"
    assert {line.get("correlation_id") for line in about} == {story.correlation_id}
    assert {line["service"] for line in story.lines()} == set(SERVICES)
    assert len(story.said("orchestrator", "Worker processing integration")) >= 2
    assert {line["trace_id"] for line in story.lines()} == {story.trace_id}


def test_every_line_of_every_service_has_one_form(hub: HubProcess) -> None:
    lines = log_lines(hub)

    assert {line["service"] for line in lines} == set(SERVICES)
    assert [line for line in lines if not {"message", "level", "timestamp", "service"} <= line.keys()] == []
