"""What it costs to see everything: the same load against a hub with all telemetry on, and with all that can be off.

On: log lines at level info, metrics read every 5 s, 10 % of the traces to an OTLP sink of its own process. Off: log
level error, no traces, nobody reads metrics. The two take turns, each time with a fresh hub, so that a machine that
slows down slows both.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from bench.completions import Completions
from bench.load import Partners
from bench.processes import cpu_seconds
from console.testing import HubProcess

HUB_PROCESSES = ("gateway", "intake", "orchestrator", "adapter")
GOAL_PERCENT = 15.0
WARM_SECONDS = 1.0
#: Three times as often as deploy/prometheus does.
SCRAPE_SECONDS = 5.0
TARGETS = """
[targets.TotvsProtheus]
adapter = "totvs_protheus"
base_url = "{simulator}"
auth = {{ kind = "bearer", token = "env:PROTHEUS_TOKEN" }}
concurrency = 256
timeout_seconds = 10
"""


async def compare(arguments: argparse.Namespace) -> int:
    """Measure and print; the exit code is 1 when telemetry costs more than the goal, or a request was lost."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    costs: dict[bool, list[float]] = {False: [], True: []}
    missing = 0
    async with _sink() as endpoint:
        for _ in range(arguments.repeats):
            for is_on in (False, True):
                rate, cost, lost = await _measure(arguments.seconds, endpoint if is_on else "")
                rates[is_on].append(rate)
                costs[is_on].append(cost)
                missing += lost
    for is_on, name in ((False, "off"), (True, "on ")):
        each = ", ".join(f"{rate:.0f}" for rate in rates[is_on])
        print(
            f"telemetry {name}  {statistics.median(rates[is_on]):.0f} completions/s ({each}), "
            f"{statistics.median(costs[is_on]):.0f} us of CPU per request"
        )
    price = (1 - statistics.median(rates[True]) / statistics.median(rates[False])) * 100
    print(f"telemetry costs {price:.1f} % of completions/s (goal: at most {GOAL_PERCENT:.0f} %); {missing} missing")
    return 1 if missing or price > GOAL_PERCENT else 0


async def _measure(seconds: float, endpoint: str) -> tuple[float, float, int]:
    """Gives completions per second, microseconds of CPU per request, and how many did not complete."""
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name, _traces_to(endpoint):
        folder = Path(name)
        hub = HubProcess(
            folder,
            targets=str(folder / "targets.toml"),
            log_level="info" if endpoint else "error",
            partner_rate_per_minute="0",
        )
        (folder / "targets.toml").write_text(TARGETS.format(simulator=hub.simulator_url))
        async with hub, Completions(hub.redis_url) as completions, _scraping(hub if endpoint else None):
            pids = [pid for process, pid in hub.child_pids().items() if process in HUB_PROCESSES]
            warm = await Partners(hub.base_url, hub.token("bench"), prefix="warm").send_flat_out(seconds=WARM_SECONDS)
            await completions.all_of(set(warm.accepted_at), seconds=60)
            before = sum(map(cpu_seconds, pids))
            started = time.time()
            sent = await Partners(hub.base_url, hub.token("bench"), prefix="full").send_flat_out(seconds=seconds)
            missing = await completions.all_of(set(sent.accepted_at), seconds=120)
            last = max(completions.ended_at.get(each, started) for each in sent.accepted_at)
            count = len(sent.accepted_at)
            return count / (last - started), (sum(map(cpu_seconds, pids)) - before) / count * 1e6, len(missing)


@contextlib.asynccontextmanager
async def _sink() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.otlp_sink", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = (await process.stdout.readline()).decode().strip()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


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
async def _scraping(hub: HubProcess | None) -> AsyncIterator[None]:
    """Read every service's metrics regularly, as Prometheus does."""
    if hub is None:
        yield
        return
    addresses = [hub.setting(f"{name}_metrics_address") for name in HUB_PROCESSES]

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
