"""The life of a process' parts: started in order, stopped in reverse, none forgotten."""

import asyncio

import pytest

from chassis.metrics import METRICS
from chassis.service import Loop, Service
from chassis.telemetry import MetricsServer, Telemetry
from chassis.testing import eventually, free_port


class Part:
    """Writes down what happens to it."""

    def __init__(self, name: str, story: list[str], *, fails_to: str = "") -> None:
        self._name = name
        self._story = story
        self._fails_to = fails_to

    async def start(self) -> None:
        self._story.append(f"start {self._name}")
        if self._fails_to == "start":
            raise OSError("no")

    async def stop(self) -> None:
        self._story.append(f"stop {self._name}")
        if self._fails_to == "stop":
            raise RuntimeError("no")


async def test_parts_start_in_order_and_stop_in_reverse() -> None:
    story: list[str] = []
    service = Service("test", [Part(name, story) for name in "abc"])

    await service.start()
    await service.stop()

    assert story == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


async def test_when_one_fails_to_start_those_that_run_are_stopped() -> None:
    story: list[str] = []
    service = Service("test", [Part("a", story), Part("b", story, fails_to="start"), Part("c", story)])

    with pytest.raises(OSError, match="no"):
        await service.start()

    assert story == ["start a", "start b", "stop b", "stop a"]


async def test_one_that_fails_to_stop_keeps_no_other_from_stopping() -> None:
    story: list[str] = []
    service = Service("test", [Part("a", story), Part("b", story, fails_to="stop")])
    await service.start()

    await service.stop()

    assert story[-2:] == ["stop b", "stop a"]


async def test_a_service_may_be_stopped_twice_or_before_it_was_started() -> None:
    story: list[str] = []
    service = Service("test", [Part("a", story)])
    await service.stop()
    await service.start()

    await service.stop()
    await service.stop()

    assert story == ["start a", "stop a"]


async def test_a_loop_goes_on_after_an_error() -> None:
    steps = 0

    async def step() -> None:
        nonlocal steps
        steps += 1
        if steps < 3:
            raise ValueError("once more")
        await asyncio.sleep(0)

    loop = Loop(step, name="test", pause_after_error_seconds=0)
    await loop.start()
    await eventually(lambda: steps > 5, 2)

    await loop.stop()
    seen = steps
    await asyncio.sleep(0)
    assert steps == seen


async def test_a_loop_may_be_stopped_before_it_was_started_and_twice() -> None:
    async def step() -> None:
        await asyncio.sleep(0)

    loop = Loop(step, name="test")
    await loop.stop()
    loop = Loop(step, name="test")
    await loop.start()
    await loop.stop()
    await loop.stop()


async def test_a_taken_metrics_port_is_named() -> None:
    address = f"127.0.0.1:{free_port()}"
    first, second = MetricsServer(Telemetry("intake"), address), MetricsServer(Telemetry("intake"), address)
    await first.start()

    try:
        with pytest.raises(OSError, match=address):
            await second.start()
    finally:
        await second.stop()
        await first.stop()
        await first.stop()


@pytest.mark.parametrize("service", ["gateway", "intake", "orchestrator", "adapter"])
def test_a_service_has_the_metrics_of_the_table_that_are_its_own(service: str) -> None:
    telemetry = Telemetry(service)
    described = {family.name for family in telemetry.registry.collect()}

    assert described == {metric.name.removesuffix("_total") for metric in METRICS if service in metric.services}


#: The seed's names, exactly, and the service that exports each.
SEED = {
    "integration_requests_received_total": "intake",
    "integration_requests_persist_duration_ms": "intake",
    "events_published_total": "intake",
    "worker_active_tasks": "orchestrator",
    "integration_validation_failures_total": "orchestrator",
    "external_system_call_duration_ms": "adapter",
    "integration_requests_completed_total": "intake",
    "integration_requests_failed_total": "intake",
}


def test_the_seeds_metrics_are_in_the_table() -> None:
    table = {metric.name: metric for metric in METRICS}

    assert {name: table[name].services for name in SEED} == {name: (service,) for name, service in SEED.items()}
    assert table["events_published_total"].labels == ("type",)
    assert table["integration_validation_failures_total"].labels == ("field",)
    assert table["external_system_call_duration_ms"].labels == ("system",)
    assert table["integration_requests_failed_total"].labels == ("reason",)


def test_a_metric_of_another_service_is_refused_at_start() -> None:
    with pytest.raises(KeyError):
        Telemetry("gateway").counter("integration_requests_received_total")
