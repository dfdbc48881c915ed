"""What a long backlog costs: memory of the hub's processes, and the latency of a target that is not behind.

One target answers so slowly that what is sent to it waits; the other one is healthy. See bench.scale.
"""

import tempfile
from pathlib import Path

from bench.completions import Completions
from bench.load import Partners
from bench.processes import proportional_memory_mb
from console.testing import HubProcess
from simulator.testing import SimulatorProcess

HUB_PROCESSES = ("gateway", "intake", "orchestrator", "adapter")
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
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name:
        folder = Path(name)
        async with SimulatorProcess() as simulator:
            await simulator.settings("stuck", latency_seconds=60.0)
            (folder / "targets.toml").write_text(TARGETS.format(simulator=simulator.base_url))
            hub = HubProcess(folder, targets=str(folder / "targets.toml"), partner_rate_per_minute="0")
            async with hub, Completions(hub.redis_url) as completions:
                return await _measure(hub, completions, waiting)


async def _measure(hub: HubProcess, completions: Completions, waiting: int) -> int:
    pids = hub.child_pids()
    # as much traffic as will come: what a process keeps once it has been busy is not the backlog's
    for number in range(2):
        warm = Partners(hub.base_url, hub.token("bench"), prefix=f"warm{number}", target="Healthy")
        await completions.all_of(set((await warm.send_flat_out(seconds=WARM_SECONDS)).accepted_at), seconds=60)
    await _print_latencies(hub, completions, 0)
    before = _print_memory(pids, 0)
    stuck = Partners(hub.base_url, hub.token("bench"), prefix="stuck", target="Stuck")
    count, after = 0, before
    for goal in (waiting // 4, waiting // 2, waiting):
        while count < goal:
            count += len((await stuck.send_flat_out(seconds=1.0)).accepted_at)
        after = _print_memory(pids, count)
    await _print_latencies(hub, completions, count)
    print(f"memory ratio {after / before:.2f} (goal: at most {1 + GOAL_PERCENT / 100:.2f})")
    return 0 if after <= before * (1 + GOAL_PERCENT / 100) else 1


async def _print_latencies(hub: HubProcess, completions: Completions, waiting: int) -> None:
    """Measure the healthy target. Raises: RuntimeError when one of its requests has not ended."""
    partners = Partners(hub.base_url, hub.token("bench"), prefix=f"beside-{waiting}", target="Healthy")
    sent = await partners.send_steadily(per_second=PER_SECOND, seconds=LATENCY_SECONDS)
    if missing := await completions.all_of(set(sent.accepted_at), seconds=60):
        raise RuntimeError(f"{len(missing)} requests for the healthy target have not ended")
    each = sorted((completions.ended_at[i] - at) * 1000 for i, at in sent.accepted_at.items())
    p50, p95 = each[len(each) // 2], each[int(0.95 * (len(each) - 1))]
    print(f"{waiting:>7} waiting  202 to Completed of the healthy target at 50/s: p50 {p50:.2f}, p95 {p95:.2f} ms")


def _print_memory(pids: dict[str, int], waiting: int) -> float:
    """Print what the processes hold; gives the hub's own, in MB."""
    memory = {process: proportional_memory_mb(pid) for process, pid in pids.items()}
    hub = sum(memory[process] for process in HUB_PROCESSES)
    each = ", ".join(f"{process} {memory[process]:.0f}" for process in HUB_PROCESSES)
    print(f"{waiting:>7} waiting  hub {hub:.0f} MB ({each}); Valkey {memory['valkey']:.0f} MB", flush=True)
    return hub
