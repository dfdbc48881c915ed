"""What a long backlog costs: memory of the hub's processes, and the latency of a target that is not behind.

One target answers so slowly that what is sent to it waits; the other one is healthy. See bench.scale.
"""

from bench.figures import quantile
from bench.hub import MeasuredHub, started_hub
from bench.load import Partners
from bench.processes import proportional_memory_mb
from simulator.testing import SimulatorProcess

GOAL_PERCENT = 10.0
WARM_SECONDS = 5.0
PER_SECOND = 50.0
LATENCY_SECONDS = 8.0
#: One call at a time that takes a minute: next to nothing of what waits is worked off.
TARGETS = """
[targets.Stuck]
adapter = "http_json"
base_url = "{simulator}"
path = "/t/stuck/orders"
concurrency = 1
timeout_seconds = 120

[targets.Healthy]
adapter = "http_json"
base_url = "{simulator}"
path = "/t/healthy/orders"
concurrency = 64
"""


async def measure(waiting: int) -> int:
    """Measure and print; the exit code is 1 when the hub's memory has grown by more than the goal."""
    async with SimulatorProcess() as simulator:
        await simulator.settings("stuck", latency_seconds=60.0)
        async with started_hub(TARGETS.format(simulator=simulator.base_url)) as hub:
            return await _measure(hub, waiting)


async def _measure(hub: MeasuredHub, waiting: int) -> int:
    # as much traffic as will come: what a process keeps once it has been busy is not the backlog's
    for number in range(2):
        await hub.full_load(f"warm{number}", seconds=WARM_SECONDS, target="Healthy")
    await _print_latencies(hub, 0)
    before = _print_memory(hub, 0)
    stuck = hub.partners("stuck", target="Stuck")
    count, after = 0, before
    for goal in (waiting // 4, waiting // 2, waiting):
        count += await pile_up(stuck, goal - count)
        after = _print_memory(hub, count)
    await _print_latencies(hub, count)
    print(f"memory ratio {after / before:.2f} (goal: at most {1 + GOAL_PERCENT / 100:.2f})")
    return 0 if after <= before * (1 + GOAL_PERCENT / 100) else 1


async def pile_up(partners: Partners, least: int) -> int:
    """Send until so many are accepted; gives how many are. Raises: RuntimeError when none is for a second."""
    count = 0
    while count < least:
        sent = await partners.send_flat_out(seconds=1.0)
        if not sent.accepted_at:
            raise RuntimeError(f"{count} of {least} are accepted, and no more: refused {sent.refused}")
        count += len(sent.accepted_at)
    return count


async def _print_latencies(hub: MeasuredHub, waiting: int) -> None:
    """Measure the healthy target. Raises: RuntimeError when one of its requests has not completed."""
    each, lost = await hub.latencies(
        f"beside-{waiting}", per_second=PER_SECOND, seconds=LATENCY_SECONDS, target="Healthy"
    )
    if lost:
        raise RuntimeError(f"{lost} requests for the healthy target have not completed")
    p50, p95 = quantile(each, 0.50), quantile(each, 0.95)
    print(f"{waiting:>7} waiting  202 to Completed of the healthy target at 50/s: p50 {p50:.2f}, p95 {p95:.2f} ms")


def _print_memory(hub: MeasuredHub, waiting: int) -> float:
    """Print what the processes hold; gives the hub's own, in MB."""
    memory = hub.memory_mb()
    total, valkey = sum(memory.values()), proportional_memory_mb(hub.pids["valkey"])
    each = ", ".join(f"{process} {mb:.0f}" for process, mb in memory.items())
    print(f"{waiting:>7} waiting  hub {total:.0f} MB ({each}); Valkey {valkey:.0f} MB", flush=True)
    return total
