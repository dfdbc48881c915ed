"""Whether two orchestrators and two adapters share the work: what each of them has counted. See bench.scale."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator

from bench.hub import started_hub
from bench.profile import samples
from chassis.testing import eventually, free_port
from console.testing import HubProcess

START_SECONDS = 20.0
HEARTBEAT_SECONDS = 5.0
#: Each shall have at least a quarter of the work: a half would be fair, and nobody deals it out.
FAIR_PERCENT = 25.0
CLAIMED, CALLED = "events_consume_lag_ms_count", "external_system_call_duration_ms_count"


async def measure(database_url: str, seconds: float) -> int:
    """Measure and print; the exit code is 1 when a request was lost or one of a pair has too little to do."""
    os.environ.setdefault("PROTHEUS_TOKEN", "bench")  # `hub up` would make one up, and the second adapter needs it
    adapters = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    addresses = {"adapter_address": adapters[0], "adapter_url": ",".join(adapters)}
    async with (
        started_hub(database_url=database_url, **addresses) as hub,
        _another(hub.process, "adapter", adapters[1]) as adapter,
        _another(hub.process, "orchestrator", f"127.0.0.1:{free_port()}") as orchestrator,
    ):
        await asyncio.sleep(HEARTBEAT_SECONDS + 1)  # each learns from its next heartbeat that there are two
        load = await hub.full_load("shared", seconds=seconds)
        own_orchestrator, own_adapter = (
            hub.process.setting(f"{name}_metrics_address") for name in ("orchestrator", "adapter")
        )
        shares = [
            await _print_counts("orchestrator", CLAIMED, own_orchestrator, orchestrator),
            await _print_counts("adapter", CALLED, own_adapter, adapter),
        ]
    print(f"accepted {load.accepted}, lost {load.lost}")
    return 0 if not load.lost and min(shares) >= FAIR_PERCENT else 1


@contextlib.asynccontextmanager
async def _another(hub: HubProcess, service: str, address: str) -> AsyncIterator[str]:
    """A second process of a service beside the hub's own; gives the address of its metrics."""
    metrics = f"127.0.0.1:{free_port()}"
    name = service.upper()
    environment = {**hub.environment, f"HUB_{name}_ADDRESS": address, f"HUB_{name}_METRICS_ADDRESS": metrics}
    with (hub.folder / f"{service}-2.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"{service}_service"), env=environment, stdout=log, stderr=log
        )
    try:
        await eventually(lambda: _answers(metrics), START_SECONDS)
        yield metrics
    finally:
        process.terminate()
        await process.wait()


async def _print_counts(service: str, metric: str, *addresses: str) -> float:
    """Print what the two processes have counted; gives the smaller one's percentage."""
    counts = [await asyncio.to_thread(_count, address, metric) for address in addresses]
    total = sum(counts)
    for number, count in enumerate(counts, start=1):
        print(f"{service} {number}  {metric} {count:.0f} ({count / total * 100:.0f} %)")
    return min(counts) / total * 100


def _count(address: str, name: str) -> float:
    return sum(float(sample.value) for sample in samples(address) if sample.name == name)


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError):
        _count(address, "")
        return True
    return False
