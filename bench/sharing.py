"""Whether two orchestrators and two adapters share the work: what each of them has counted. See bench.scale."""

import asyncio
import contextlib
import os
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.completions import Completions
from bench.load import Partners
from chassis.testing import eventually, free_port
from console.testing import HubProcess

START_SECONDS = 20.0
#: Each shall have at least a quarter of the work: a half would be fair, and nobody deals it out.
FAIR_PERCENT = 25.0
CLAIMED, CALLED = "events_consume_lag_ms_count", "external_system_call_duration_ms_count"
TARGETS = """
[targets.TotvsProtheus]
adapter = "totvs_protheus"
base_url = "{simulator}"
auth = {{ kind = "bearer", token = "env:PROTHEUS_TOKEN" }}
concurrency = 256
timeout_seconds = 10
"""


async def measure(database_url: str, seconds: float) -> int:
    """Measure and print; the exit code is 1 when a request is missing or one of a pair has too little to do."""
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name:
        folder = Path(name)
        os.environ.setdefault("PROTHEUS_TOKEN", "bench")  # `hub up` would make one up, and the second adapter needs it
        adapters = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        hub = HubProcess(
            folder,
            targets=str(folder / "targets.toml"),
            database_url=database_url,
            partner_rate_per_minute="0",
            adapter_address=adapters[0],
            adapter_url=",".join(adapters),
        )
        (folder / "targets.toml").write_text(TARGETS.format(simulator=hub.simulator_url))
        async with (
            hub,
            _another(hub, "adapter", adapters[1]) as adapter,
            _another(hub, "orchestrator", f"127.0.0.1:{free_port()}") as orchestrator,
            Completions(hub.redis_url) as completions,
        ):
            await asyncio.sleep(6)  # each learns from its next heartbeat, every 5 s, that there are two
            partners = Partners(hub.base_url, hub.token("bench"), prefix="shared")
            sent = await partners.send_flat_out(seconds=seconds)
            missing = await completions.all_of(set(sent.accepted_at), seconds=120)
            shares = [
                await _print_counts("orchestrator", CLAIMED, hub.setting("orchestrator_metrics_address"), orchestrator),
                await _print_counts("adapter", CALLED, hub.setting("adapter_metrics_address"), adapter),
            ]
    print(f"accepted {len(sent.accepted_at)}, not completed {len(missing)}, failed {completions.failed}")
    return 0 if not missing and not completions.failed and min(shares) >= FAIR_PERCENT else 1


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
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError):
        _count(address, "")
        return True
    return False
