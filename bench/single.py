"""`python -m bench --hub`: one hub alone, started as `make run` starts it, and what a partner would see of it.

The hub, the simulator and the load generator share the machine. Figures are the minimum, median and maximum of the
repeats.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bench.completions import Completions
from bench.load import Partners
from bench.processes import cpu_seconds, proportional_memory_mb
from console.testing import HubProcess

HUB_PROCESSES = ("gateway", "intake", "orchestrator", "adapter")
TARGETS = """
[targets.TotvsProtheus]
adapter = "totvs_protheus"
base_url = "{simulator}"
auth = {{ kind = "bearer", token = "env:PROTHEUS_TOKEN" }}
concurrency = 256
timeout_seconds = 10
"""


async def measure_hub(arguments: argparse.Namespace) -> int:
    """Run the measurements; the exit code is 1 when a request did not complete."""
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as folder:
        hub = HubProcess(
            Path(folder),
            targets=str(Path(folder) / "targets.toml"),
            log_level=arguments.log_level,
            partner_rate_per_minute="0",
        )
        (Path(folder) / "targets.toml").write_text(TARGETS.format(simulator=hub.simulator_url))
        started = time.monotonic()
        async with hub:
            print(f"ready    {time.monotonic() - started:.1f} s after the start")
            return await _measure(hub, arguments)


async def _measure(hub: HubProcess, arguments: argparse.Namespace) -> int:
    pids = {name: pid for name, pid in hub.child_pids().items() if name in HUB_PROCESSES}
    await _print_idle(pids)
    async with Completions(hub.redis_url) as completions:
        missing = await _print_low_load(hub, completions, arguments)
        missing += await _print_full_load(hub, completions, arguments, pids)
        failed = completions.failed
    _print_memory("memory after the load", pids)
    print(f"accepted and not completed  {missing} missing, {failed} failed")
    return 1 if missing or failed else 0


async def _print_idle(pids: Mapping[str, int]) -> None:
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    await asyncio.sleep(5)
    used = sum(cpu_seconds(pid) - before[name] for name, pid in pids.items())
    print(f"idle CPU of the four services  {used / 5 * 100:.1f} % of a core")
    _print_memory("memory when idle", pids)


def _print_memory(title: str, pids: Mapping[str, int]) -> None:
    memory = {name: proportional_memory_mb(pid) for name, pid in pids.items()}
    each = ", ".join(f"{name} {mb:.0f}" for name, mb in memory.items())
    print(f"{title}  {sum(memory.values()):.0f} MB ({each})")


async def _print_low_load(hub: HubProcess, completions: Completions, arguments: argparse.Namespace) -> int:
    missing = 0
    figures: dict[str, list[float]] = {"p50": [], "p95": [], "p99": []}
    token = hub.token("bench")
    await Partners(hub.base_url, token, prefix="warm").send_steadily(per_second=50, seconds=2)
    for repeat in range(arguments.repeats):
        partners = Partners(hub.base_url, token, prefix=f"low-{repeat}")
        sent = await partners.send_steadily(per_second=50, seconds=arguments.seconds)
        missing += len(await completions.all_of(set(sent.accepted_at), seconds=30))
        ended = completions.ended_at
        latencies = sorted((ended[i] - at) * 1000 for i, at in sent.accepted_at.items() if i in ended)
        for name, quantile in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
            figures[name].append(latencies[int(quantile * (len(latencies) - 1))])
    for name, values in figures.items():
        print(f"202 to Completed at 50/s, {name}  {_spread(values)} ms")
    return missing


async def _print_full_load(
    hub: HubProcess, completions: Completions, arguments: argparse.Namespace, pids: Mapping[str, int]
) -> int:
    missing = 0
    accepts, completed, costs = [], [], []
    for repeat in range(arguments.repeats):
        partners = Partners(hub.base_url, hub.token("bench"), prefix=f"full-{repeat}")
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        started = time.time()
        sent = await partners.send_flat_out(seconds=arguments.seconds)
        accepts.append(len(sent.accepted_at) / arguments.seconds)
        missing += len(await completions.all_of(set(sent.accepted_at), seconds=120))
        last = max(completions.ended_at.get(i, started) for i in sent.accepted_at)
        completed.append(len(sent.accepted_at) / (last - started))
        costs.append({n: (cpu_seconds(p) - before[n]) / len(sent.accepted_at) * 1e6 for n, p in pids.items()})
        if sent.refused:
            print(f"refused  {sent.refused}")
    print(f"accepts/s, 64 connections, while processing  {_spread(accepts)}")
    print(f"completions/s until all had ended  {_spread(completed)}")
    each = ", ".join(f"{name} {statistics.median(cost[name] for cost in costs):.0f}" for name in pids)
    print(f"CPU per request  {statistics.median(sum(c.values()) for c in costs):.0f} us ({each})")
    return missing


def _spread(values: list[float]) -> str:
    digits = 0 if min(values) >= 100 else 1
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{low} / {middle} / {high}"
