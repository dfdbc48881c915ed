"""What /metrics of the four services of a running hub shows, against the table, and what strangers cannot do to it."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from chassis.metrics import METRICS, PROCESS_METRICS
from chassis.testing import eventually
from console.testing import HubProcess
from tests.observed import SERVICES, metrics_text, sample, samples

ORDER = (
    '{"externalId":"%s","sourceSystem":"%s","targetSystem":"%s",'
    '"payload":{"orderId":"ORD-1","customer":"Empresa ABC","amount":15000.00}}'
)
PATH = "/api/integration-requests"
TARGETS = {"TotvsProtheus", "OrdersApi"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    process = HubProcess(tmp_path_factory.mktemp("metered"))
    asyncio.run(process.start())
    yield process
    assert asyncio.run(process.stop()) == 0


def client(hub: HubProcess, partner: str = "acme") -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {hub.token(partner)}", "Content-Type": "application/json"}
    return httpx.AsyncClient(base_url=hub.base_url, headers=headers, timeout=20)


def families(hub: HubProcess, service: str) -> dict[str, Metric]:
    """What a service exports, by the table's names."""
    found = {}
    for family in text_string_to_metric_families(metrics_text(hub, service)):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = family
    return found


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_exports_the_tables_metrics_and_no_others(hub: HubProcess, service: str) -> None:
    async with client(hub) as partner:
        await partner.post(PATH, content=ORDER % (f"TABLE-{service}", "SAP", "TotvsProtheus"))

    found = families(hub, service)

    table = {metric.name: metric for metric in METRICS if service in metric.services}
    assert found.keys() == {*table, *PROCESS_METRICS}
    assert {name: found[name].type for name in table} == {name: metric.kind for name, metric in table.items()}
    assert {name: found[name].documentation for name in table} == {name: row.text for name, row in table.items()}
    labels = {
        name: {frozenset(each.labels) - {"le"} for each in found[name].samples} - {frozenset[str]()} for name in table
    }
    # a label set that no event has made yet has no series
    assert {name: sets for name, sets in labels.items() if not sets <= {frozenset(table[name].labels)}} == {}


def test_buckets_are_floats_and_hold_the_seeds_limits(hub: HubProcess) -> None:
    limits = re.findall(r'integration_requests_persist_duration_ms_bucket\{le="([^"]+)"\}', metrics_text(hub, "intake"))

    assert {"10.0", "50.0", "100.0", "2000.0", "3000.0", "+Inf"} <= set(limits)
    assert all("." in limit for limit in limits if limit != "+Inf")


def test_no_name_is_doubled_and_nothing_is_stamped_created(hub: HubProcess) -> None:
    text = "".join(metrics_text(hub, service) for service in SERVICES)

    assert re.findall(r"\w*(?:_milliseconds|_total_total|_created|_ms_ms)\b", text) == []


async def test_series_stand_at_zero_before_their_first_event(tmp_path: Path) -> None:
    async with HubProcess(tmp_path) as fresh:
        intake, orchestrator = samples(fresh, "intake"), samples(fresh, "orchestrator")
        adapter, gateway = samples(fresh, "adapter"), samples(fresh, "gateway")

    def labelled(
        found: dict[tuple[str, tuple[tuple[str, str], ...]], float], name: str, label: str
    ) -> dict[str, float]:
        return {dict(labels)[label]: value for (each, labels), value in found.items() if each == name}

    reasons = labelled(intake, "integration_requests_failed_total", "reason")
    assert {"external_unavailable", "validation_failed", "timeout", "poisoned"} <= reasons.keys()
    assert set(reasons.values()) == {0}
    assert labelled(intake, "events_published_total", "type")["IntegrationRequestCreated"] == 0
    assert labelled(intake, "integration_requests_waiting", "target") == dict.fromkeys(TARGETS, 0)
    assert labelled(intake, "dead_letters_open", "target") == dict.fromkeys(TARGETS, 0)
    assert labelled(orchestrator, "integration_validation_failures_total", "field")["orderId"] == 0
    assert labelled(orchestrator, "target_breaker_state", "target") == dict.fromkeys(TARGETS, 0)
    assert labelled(orchestrator, "events_consume_lag_ms_count", "target") == dict.fromkeys(TARGETS, 0)
    assert labelled(adapter, "external_system_call_duration_ms_count", "system") == dict.fromkeys(TARGETS, 0)
    assert labelled(gateway, "http_request_duration_ms_count", "status").keys() >= {"202", "500", "503"}


async def test_the_stages_of_a_request_are_measured(hub: HubProcess) -> None:
    names = {
        "gateway": ("http_request_duration_ms_count", {"route": PATH, "status": "202"}),
        "intake": ("events_publish_lag_ms_count", {}),
        "orchestrator": ("events_consume_lag_ms_count", {"target": "TotvsProtheus"}),
        "adapter": (
            "external_system_calls_total",
            {"system": "TotvsProtheus", "operation": "deliver", "outcome": "Delivered"},
        ),
    }

    def seen() -> dict[str, float]:
        found = samples(hub, "adapter")
        assert found
        counted = {}
        for service, (name, labels) in names.items():
            counted[service] = sample(hub, service, name, **labels)
        counted["total"] = sample(hub, "intake", "integration_requests_total_duration_ms_count", target="TotvsProtheus")
        return counted

    before = seen()
    async with client(hub) as partner:
        await partner.post(PATH, content=ORDER % ("STAGES", "SAP", "TotvsProtheus"))

    await eventually(lambda: all(now > before[name] for name, now in seen().items()), 15, every=0.2)


async def test_a_waiting_request_is_counted_with_its_age_and_a_failed_one_as_a_dead_letter(hub: HubProcess) -> None:
    async with httpx.AsyncClient() as simulator:
        await simulator.post(f"{hub.simulator_url}/_sim/faults", json={"kind": "slow", "delay_seconds": 12})
        async with client(hub) as partner:
            await partner.post(PATH, content=ORDER % ("WAITS", "SAP", "TotvsProtheus"))
            waiting = ("intake", "integration_requests_waiting")
            await eventually(lambda: sample(hub, *waiting, target="TotvsProtheus") == 1, 15, every=0.2)
            age = sample(hub, "intake", "integration_requests_oldest_waiting_seconds", target="TotvsProtheus")
            in_flight = sample(hub, "orchestrator", "target_in_flight", target="TotvsProtheus")
            limit = sample(hub, "orchestrator", "target_concurrency_limit", target="TotvsProtheus")

            await simulator.post(f"{hub.simulator_url}/_sim/faults", json={"kind": "status", "status": 400})
            await partner.post(PATH, content=ORDER % ("REFUSED", "SAP", "TotvsProtheus"))
    await eventually(lambda: sample(hub, "intake", "dead_letters_open", target="TotvsProtheus") == 1, 15, every=0.2)

    assert 0 <= age < 30
    assert (in_flight, limit) == (1, 8)


async def test_nobody_outside_can_make_a_series(hub: HubProcess) -> None:
    await _be_hostile(hub, "first")
    before = {service: samples(hub, service).keys() for service in SERVICES}

    for attempt in range(5):
        await _be_hostile(hub, f"again-{attempt}")

    await asyncio.sleep(0)
    after = {service: samples(hub, service).keys() for service in SERVICES}
    assert {service: after[service] - before[service] for service in SERVICES} == {
        service: set() for service in SERVICES
    }
    text = "".join(metrics_text(hub, service) for service in SERVICES)
    assert "evil" not in text
    assert sample(hub, "gateway", "http_request_duration_ms_count", route="unmatched", status="404") >= 6
    assert sample(hub, "intake", "rpc_duration_ms_count", method="unmatched", code="UNIMPLEMENTED") >= 6


async def _be_hostile(hub: HubProcess, mark: str) -> None:
    """Everything a partner names, named anew."""
    evil = f"evil-{mark}"
    async with client(hub, f"{evil}-partner") as partner:
        headers = {"X-Correlation-ID": f"{evil}-correlation"}
        await partner.post(PATH, content=ORDER % (f"{evil}-1", f"{evil}-source", "TotvsProtheus"), headers=headers)
        await partner.post(PATH, content=ORDER % (f"{evil}-2", "SAP", f"{evil}-target"), headers=headers)
        invalid = '{"externalId":"%s-3","sourceSystem":"SAP","targetSystem":"TotvsProtheus","payload":{"%s":{"%s":1}}}'
        accepted = await partner.post(PATH, content=invalid % (evil, evil, evil), headers=headers)
        await partner.get(f"/{evil}/path")
        await partner.get(f"{PATH}/{evil}")
        await partner.get(PATH, params={evil: evil})
        await partner.request(f"{evil.upper()}", PATH)

        async def ended() -> bool:
            answer: dict[str, Any] = (await partner.get(accepted.headers["Location"])).json()
            return bool(answer["status"] == "Failed")

        await eventually(ended, 15)
    async with grpc.aio.insecure_channel(hub.setting("intake_address")) as channel:
        for method in (f"/{evil}.Service/Method", f"/integrationhub.intake.v1.IntakeService/{evil}"):
            call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"", timeout=10)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
