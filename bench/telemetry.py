"""What it costs to see everything: the same load against a hub with all telemetry on, and with all that can be off.

On: log lines at level info, metrics read every 5 s, 10 % of the traces to an OTLP sink of its own process. Off: log
level error, no traces, nobody reads metrics. The two take turns, each time with a fresh hub.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence

from bench.hub import HUB_PROCESSES, FullLoad, MeasuredHub, in_turns, started_hub
from bench.servers import started_module

GOAL_PERCENT = 15.0
WARM_SECONDS = 1.0
#: Three times as often as deploy/prometheus does.
SCRAPE_SECONDS = 5.0


async def compare(arguments: argparse.Namespace) -> int:
    """Measure and print; the exit code is 1 when telemetry costs more than the goal, or a request was lost."""
    async with started_module("bench.otlp_sink") as (sink_url, _):
        off, on = await in_turns(
            lambda is_on: _measure(arguments.seconds, sink_url if is_on else ""), repeats=arguments.repeats
        )
    for name, loads in (("off", off), ("on ", on)):
        each = ", ".join(f"{load.completions_per_second:.0f}" for load in loads)
        cpu_us = statistics.median(sum(load.cpu_us.values()) for load in loads)
        print(f"telemetry {name}  {_rate(loads):.0f} completions/s ({each}), {cpu_us:.0f} us of CPU per request")
    price = (1 - _rate(on) / _rate(off)) * 100
    lost = sum(load.lost for load in (*off, *on))
    print(f"telemetry costs {price:.1f} % of completions/s (goal: at most {GOAL_PERCENT:.0f} %); {lost} lost")
    return 1 if lost or price > GOAL_PERCENT else 0


def _rate(loads: Sequence[FullLoad]) -> float:
    return statistics.median(load.completions_per_second for load in loads)


async def _measure(seconds: float, sink_url: str) -> FullLoad:
    with _traces_to(sink_url):
        async with started_hub(log_level="info" if sink_url else "error") as hub, _scraping(hub if sink_url else None):
            await hub.full_load("warm", seconds=WARM_SECONDS)
            return await hub.full_load("full", seconds=seconds)


@contextlib.contextmanager
def _traces_to(endpoint: str) -> Iterator[None]:
    """Set the standard variables for the hub that is started inside."""
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
    }
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


@contextlib.asynccontextmanager
async def _scraping(hub: MeasuredHub | None) -> AsyncIterator[None]:
    """Read every service's metrics regularly, as Prometheus does."""
    if hub is None:
        yield
        return
    addresses = [hub.process.setting(f"{name}_metrics_address") for name in HUB_PROCESSES]

    async def scrape() -> None:
        while True:
            for address in addresses:
                await asyncio.to_thread(_read, address)
            await asyncio.sleep(SCRAPE_SECONDS)

    task = asyncio.create_task(scrape())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _read(address: str) -> None:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        answer.read()
