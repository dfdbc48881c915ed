"""`python -m bench.overload`: what becomes of a hub that is sent five times what it can do, for a minute.

The target answers in a fixed time with a fixed concurrency, so that the hub's capacity for it is known; the backlog is
bounded far below what arrives, so that the hub must refuse.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from bench.completions import Completions
from bench.load import Partners
from bench.processes import machine, proportional_memory_mb
from console.testing import HubProcess
from simulator.testing import SimulatorProcess

#: 8 calls at once of 50 ms each are 160/s.
CONCURRENCY, LATENCY_SECONDS = 8, 0.05
CAPACITY = CONCURRENCY / LATENCY_SECONDS
TIMES = 5
BACKLOG = 1500
TARGETS = """
[targets.TotvsProtheus]
adapter = "http_json"
base_url = "{simulator}"
path = "/orders"
concurrency = {concurrency}
"""


async def main() -> int:
    """Measure; the exit code is 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description="Send a hub more than it can do.")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the overload (default 60)")
    seconds = parser.parse_args().seconds
    print(f"machine  {machine()}")
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name:
        folder = Path(name)
        async with SimulatorProcess() as simulator:
            await simulator.settings(latency_seconds=LATENCY_SECONDS)
            text = TARGETS.format(simulator=simulator.base_url, concurrency=CONCURRENCY)
            (folder / "targets.toml").write_text(text)
            settings = {"targets": str(folder / "targets.toml"), "partner_rate_per_minute": "0"}
            async with HubProcess(folder, **settings, max_backlog=str(BACKLOG)) as hub:
                return await _measure(hub, seconds)


async def _measure(hub: HubProcess, seconds: float) -> int:
    pids = hub.child_pids()
    async with Completions(hub.redis_url) as completions:
        peak = await _rate(hub, completions, per_second=CAPACITY * 1.2, seconds=min(15.0, seconds), prefix="peak")
        before = sum(proportional_memory_mb(pid) for pid in pids.values())
        partners = Partners(hub.base_url, hub.token("bench"), prefix="over", connections=256)
        started = time.time()
        sent = await partners.send_steadily(per_second=CAPACITY * TIMES, seconds=seconds)
        in_time = sum(1 for at in completions.ended_at.values() if started <= at <= started + seconds)
        after = sum(proportional_memory_mb(pid) for pid in pids.values())
        missing = await completions.all_of(set(sent.accepted_at), seconds=120)
    goodput = in_time / seconds
    print(f"peak without overload       {peak:.0f} completions/s")
    print(f"sent in {seconds:.0f} s                {round(CAPACITY * TIMES * seconds)}")
    print(f"accepted, refused           {len(sent.accepted_at)}, {sent.refused}")
    print(
        f"goodput under overload      {goodput:.0f} completions/s, {goodput / peak * 100:.0f} % of the peak (goal 90)"
    )
    print(f"refused without Retry-After {sent.without_retry_after}")
    print(f"accepted and not completed  {len(missing)}")
    print(f"memory before, at the end   {before:.0f} MB, {after:.0f} MB")
    return 0 if goodput >= 0.9 * peak and not missing and not sent.without_retry_after else 1


async def _rate(hub: HubProcess, completions: Completions, *, per_second: float, seconds: float, prefix: str) -> float:
    """Completions per second while a little more arrives than can be done."""
    partners = Partners(hub.base_url, hub.token("bench"), prefix=prefix)
    started = time.time()
    sent = await partners.send_steadily(per_second=per_second, seconds=seconds)
    done = sum(1 for at in completions.ended_at.values() if started <= at <= started + seconds)
    await completions.all_of(set(sent.accepted_at), seconds=60)
    return done / seconds


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
