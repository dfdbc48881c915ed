"""`python -m bench --hub`: one hub alone, started as `make run` starts it, and what a partner would see of it.

The hub, the simulator and the load generator share the machine. Figures are the minimum, median and maximum of the
repeats.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence

from bench.figures import quantile, spread
from bench.hub import HUB_PROCESSES, MeasuredHub, started_hub

IDLE_SECONDS = 5.0
PER_SECOND = 50.0
QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


async def measure_hub(arguments: argparse.Namespace) -> int:
    """Run the measurements; the exit code is 1 when a request did not complete."""
    started = time.monotonic()
    async with started_hub(log_level=arguments.log_level) as hub:
        print(f"ready    {time.monotonic() - started:.1f} s after the start")
        await _print_idle(hub)
        lost = await _print_low_load(hub, arguments)
        lost += await _print_full_load(hub, arguments)
        _print_memory("memory after the load", hub.memory_mb())
    print(f"not accepted or not completed  {lost}")
    return 1 if lost else 0


async def _print_idle(hub: MeasuredHub) -> None:
    before = sum(hub.cpu_seconds().values())
    await asyncio.sleep(IDLE_SECONDS)
    used = sum(hub.cpu_seconds().values()) - before
    print(f"idle CPU of the four services  {used / IDLE_SECONDS * 100:.1f} % of a core")
    _print_memory("memory when idle", hub.memory_mb())


def _print_memory(title: str, memory: Mapping[str, float]) -> None:
    each = ", ".join(f"{name} {mb:.0f}" for name, mb in memory.items())
    print(f"{title}  {sum(memory.values()):.0f} MB ({each})")


async def _print_low_load(hub: MeasuredHub, arguments: argparse.Namespace) -> int:
    _, lost = await hub.latencies("warm", per_second=PER_SECOND, seconds=2)
    repeats = []
    for repeat in range(arguments.repeats):
        latencies, without = await hub.latencies(f"low-{repeat}", per_second=PER_SECOND, seconds=arguments.seconds)
        repeats.append(latencies)
        lost += without
    for name, share in QUANTILES.items():
        values = [quantile(latencies, share) for latencies in repeats]
        print(f"202 to Completed at {PER_SECOND:.0f}/s, {name}  {_spread(values)} ms")
    return lost


async def _print_full_load(hub: MeasuredHub, arguments: argparse.Namespace) -> int:
    loads = [await hub.full_load(f"full-{repeat}", seconds=arguments.seconds) for repeat in range(arguments.repeats)]
    for load in loads:
        if load.refused:
            print(f"refused  {load.refused}")
    print(f"accepts/s, 64 connections, while processing  {_spread([load.accepts_per_second for load in loads])}")
    print(f"completions/s until all had ended  {_spread([load.completions_per_second for load in loads])}")
    total = statistics.median(sum(load.cpu_us.values()) for load in loads)
    medians = {name: statistics.median(load.cpu_us[name] for load in loads) for name in HUB_PROCESSES}
    each = ", ".join(f"{name} {us:.0f}" for name, us in medians.items())
    print(f"CPU per request  {total:.0f} us ({each})")
    return sum(load.lost for load in loads)


def _spread(values: Sequence[float]) -> str:
    return str(spread(values, float))
