"""`python -m bench.isolation`: whether a target that is down and one that is slow delay a third one.

The third target's latency is measured alone and then beside the other two, in one run.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from bench.completions import Completions
from bench.load import Partners, Sent
from bench.processes import machine
from chassis.testing import free_port
from console.testing import HubProcess
from simulator.testing import SimulatorProcess

SECONDS = 15.0
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


async def main() -> int:
    """Measure; the exit code is 1 when the goal is missed."""
    print(f"machine  {machine()}")
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name:
        folder = Path(name)
        async with SimulatorProcess() as simulator:
            await simulator.settings("slow", latency_seconds=2.0)
            (folder / "targets.toml").write_text(TARGETS.format(simulator=simulator.base_url, closed=free_port()))
            settings = {"targets": str(folder / "targets.toml"), "partner_rate_per_minute": "0"}
            async with HubProcess(folder, **settings) as hub:
                return await _measure(hub)


async def _measure(hub: HubProcess) -> int:
    async with Completions(hub.redis_url) as completions:
        await _p95(hub, completions, "warm", 3.0)
        alone = await _p95(hub, completions, "alone", SECONDS)
        others = [
            asyncio.create_task(_send(hub, "Down", per_second=20, seconds=SECONDS + 2)),
            asyncio.create_task(_send(hub, "Slow", per_second=4, seconds=SECONDS + 2)),
        ]
        await asyncio.sleep(1)
        beside = await _p95(hub, completions, "beside", SECONDS)
        await asyncio.gather(*others)
    print(f"p95 of the healthy target at {PER_SECOND:.0f}/s, alone                           {alone:.1f} ms")
    print(f"p95 of the healthy target at {PER_SECOND:.0f}/s, one target down and one slow     {beside:.1f} ms")
    print(f"ratio {beside / alone:.2f} (goal: at most {GOAL})")
    return 0 if beside / alone <= GOAL else 1


async def _p95(hub: HubProcess, completions: Completions, prefix: str, seconds: float) -> float:
    sent = await _send(hub, "Healthy", prefix=prefix, per_second=PER_SECOND, seconds=seconds)
    if missing := await completions.all_of(set(sent.accepted_at), seconds=30):
        raise RuntimeError(f"{len(missing)} requests for the healthy target have not ended")
    latencies = sorted((completions.ended_at[i] - at) * 1000 for i, at in sent.accepted_at.items())
    return latencies[int(0.95 * (len(latencies) - 1))]


async def _send(hub: HubProcess, target: str, *, per_second: float, seconds: float, prefix: str = "load") -> Sent:
    partners = Partners(hub.base_url, hub.token("bench"), prefix=f"{target}-{prefix}", target=target)
    return await partners.send_steadily(per_second=per_second, seconds=seconds)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
