"""`python -m bench.overload`: what becomes of a hub that is sent five times what it can do, for a minute.

The target answers in a fixed time with a fixed concurrency, so that the hub's capacity for it is known; the backlog is
bounded far below what arrives, so that the hub must refuse.
"""

import argparse
import time

from bench.command import parser, run
from bench.hub import DRAIN_SECONDS, MeasuredHub, started_hub
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


async def main(arguments: argparse.Namespace) -> int:
    """Measure; the exit code is 1 when a goal is missed."""
    async with SimulatorProcess() as simulator:
        await simulator.settings(latency_seconds=LATENCY_SECONDS)
        targets = TARGETS.format(simulator=simulator.base_url, concurrency=CONCURRENCY)
        async with started_hub(targets, max_backlog=str(BACKLOG)) as hub:
            return await _measure(hub, arguments.seconds)


async def _measure(hub: MeasuredHub, seconds: float) -> int:
    peak, missing = await _rate(hub, per_second=CAPACITY * 1.2, seconds=min(15.0, seconds), prefix="peak")
    before = sum(hub.memory_mb().values())
    started = time.time()
    partners = hub.partners("over", connections=256)
    sent = await partners.send_steadily(per_second=CAPACITY * TIMES, seconds=seconds)
    goodput = _completed_between(hub, started, started + seconds) / seconds
    after = sum(hub.memory_mb().values())
    missing |= await hub.completions.all_of(set(sent.accepted_at), seconds=DRAIN_SECONDS)
    print(f"peak without overload       {peak:.0f} completions/s")
    print(f"sent in {seconds:.0f} s                {round(CAPACITY * TIMES * seconds)}")
    print(f"accepted, refused           {len(sent.accepted_at)}, {sent.refused}")
    print(
        f"goodput under overload      {goodput:.0f} completions/s, {goodput / peak * 100:.0f} % of the peak (goal 90)"
    )
    print(f"refused without Retry-After {sent.without_retry_after}")
    print(f"accepted and not completed  {len(missing)}")
    print(f"connections broken          {sent.broken}")
    print(f"memory before, at the end   {before:.0f} MB, {after:.0f} MB (the four services)")
    is_whole = not missing and not sent.broken and not sent.without_retry_after
    return 0 if goodput >= 0.9 * peak and is_whole else 1


async def _rate(hub: MeasuredHub, *, per_second: float, seconds: float, prefix: str) -> tuple[float, set[str]]:
    """Completions per second while a little more arrives than can be done, and what did not complete of it."""
    started = time.time()
    sent = await hub.partners(prefix).send_steadily(per_second=per_second, seconds=seconds)
    done = _completed_between(hub, started, started + seconds)
    missing = await hub.completions.all_of(set(sent.accepted_at), seconds=60)
    return done / seconds, missing


def _completed_between(hub: MeasuredHub, begin: float, end: float) -> int:
    return sum(1 for at in hub.completions.completed_at.values() if begin <= at <= end)


if __name__ == "__main__":
    options = parser("bench.overload", "Send a hub more than it can do.", seconds=60.0)
    run(main, options.parse_args())
