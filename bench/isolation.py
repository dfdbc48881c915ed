"""`python -m bench.isolation`: whether a target that is down and one that is slow delay a third one.

The third target's latency is measured alone and then beside the other two, in one run.
"""

import argparse
import asyncio

from bench.command import parser, run
from bench.figures import quantile
from bench.hub import MeasuredHub, started_hub
from chassis.testing import free_port
from simulator.testing import SimulatorProcess

PER_SECOND = 30.0
GOAL = 1.5
TARGETS = """
[targets.Down]
adapter = "http_json"
base_url = "http://127.0.0.1:{closed}"
path = "/orders"

[targets.Slow]
adapter = "http_json"
base_url = "{simulator}"
path = "/t/slow/orders"

[targets.Healthy]
adapter = "http_json"
base_url = "{simulator}"
path = "/t/healthy/orders"
"""


async def main(arguments: argparse.Namespace) -> int:
    """Measure; the exit code is 1 when the goal is missed."""
    async with SimulatorProcess() as simulator:
        await simulator.settings("slow", latency_seconds=2.0)
        async with started_hub(TARGETS.format(simulator=simulator.base_url, closed=free_port())) as hub:
            return await _measure(hub, arguments.seconds)


async def _measure(hub: MeasuredHub, seconds: float) -> int:
    await _p95(hub, "warm", 3.0)
    alone = await _p95(hub, "alone", seconds)
    down, slow = hub.partners("down", target="Down"), hub.partners("slow", target="Slow")
    others = [
        asyncio.create_task(down.send_steadily(per_second=20, seconds=seconds + 2)),
        asyncio.create_task(slow.send_steadily(per_second=4, seconds=seconds + 2)),
    ]
    await asyncio.sleep(1)
    beside = await _p95(hub, "beside", seconds)
    await asyncio.gather(*others)
    print(f"p95 of the healthy target at {PER_SECOND:.0f}/s, alone                           {alone:.1f} ms")
    print(f"p95 of the healthy target at {PER_SECOND:.0f}/s, one target down and one slow     {beside:.1f} ms")
    print(f"ratio {beside / alone:.2f} (goal: at most {GOAL})")
    return 0 if beside / alone <= GOAL else 1


async def _p95(hub: MeasuredHub, prefix: str, seconds: float) -> float:
    latencies, lost = await hub.latencies(prefix, per_second=PER_SECOND, seconds=seconds, target="Healthy")
    if lost:
        raise RuntimeError(f"{lost} requests for the healthy target have not completed")
    return quantile(latencies, 0.95)


if __name__ == "__main__":
    options = parser("bench.isolation", "Measure whether a broken target delays another.", seconds=15.0)
    run(main, options.parse_args())
