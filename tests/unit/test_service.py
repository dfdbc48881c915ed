"""The life of a process' parts: started in order, stopped in reverse, none forgotten."""

import asyncio

import pytest

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
