"""What it costs to seal payloads at rest: `python -m bench.sealing`, the same load with a key ring and without.

The two take turns, each time with a fresh hub, so that a machine that slows down slows both.
"""

import argparse
import asyncio
import base64
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.completions import Completions
from bench.load import Partners
from bench.processes import cpu_seconds, machine
from console.testing import HubProcess
from intake_service.store.payloads import PayloadKeys

WARM_SECONDS = 1.0
SIZES = (100, 10_000, 1_000_000)
TARGETS = """
[targets.TotvsProtheus]
adapter = "totvs_protheus"
base_url = "{simulator}"
auth = {{ kind = "bearer", token = "env:PROTHEUS_TOKEN" }}
concurrency = 256
timeout_seconds = 10
"""


async def main() -> int:
    """Measure and print; the exit code is 1 when a request did not complete."""
    parser = argparse.ArgumentParser(prog="python -m bench.sealing", description="Measure what sealed payloads cost.")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement (default 5)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each measurement (default 3)")
    arguments = parser.parse_args()
    print(f"machine  {machine()}")
    for size in SIZES:
        print(f"seal and open {size} bytes  {_microseconds(size):.0f} us")
    rates: dict[bool, list[float]] = {False: [], True: []}
    costs: dict[bool, list[float]] = {False: [], True: []}
    missing = 0
    for _ in range(arguments.repeats):
        for is_sealed in (False, True):
            rate, cost, lost = await _measure(arguments.seconds, is_sealed=is_sealed)
            rates[is_sealed].append(rate)
            costs[is_sealed].append(cost)
            missing += lost
    for is_sealed, name in ((False, "plain "), (True, "sealed")):
        each = ", ".join(f"{rate:.0f}" for rate in rates[is_sealed])
        print(
            f"payloads {name}  {statistics.median(rates[is_sealed]):.0f} completions/s ({each}), "
            f"{statistics.median(costs[is_sealed]):.0f} us of intake's CPU per request"
        )
    print(f"missing  {missing}")
    return 1 if missing else 0


async def _measure(seconds: float, *, is_sealed: bool) -> tuple[float, float, int]:
    """Gives completions per second, microseconds of intake's CPU per request, and how many did not complete."""
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name:
        folder = Path(name)
        sealing = {"payload_keys": f"file:{_ring(folder)}"} if is_sealed else {}
        hub = HubProcess(folder, targets=str(folder / "targets.toml"), partner_rate_per_minute="0", **sealing)
        (folder / "targets.toml").write_text(TARGETS.format(simulator=hub.simulator_url))
        async with hub, Completions(hub.redis_url) as completions:
            intake = hub.child_pids()["intake"]
            warm = await Partners(hub.base_url, hub.token("bench"), prefix="warm").send_flat_out(seconds=WARM_SECONDS)
            await completions.all_of(set(warm.accepted_at), seconds=60)
            before = cpu_seconds(intake)
            started = time.time()
            sent = await Partners(hub.base_url, hub.token("bench"), prefix="full").send_flat_out(seconds=seconds)
            missing = await completions.all_of(set(sent.accepted_at), seconds=120)
            last = max(completions.ended_at.get(each, started) for each in sent.accepted_at)
            count = len(sent.accepted_at)
            return count / (last - started), (cpu_seconds(intake) - before) / count * 1e6, len(missing)


def _microseconds(size: int) -> float:
    """The median time of sealing and opening one payload."""
    keys = PayloadKeys({"one": os.urandom(32)}, "one")
    payload = "x" * size
    times = []
    for _ in range(50):
        started = time.perf_counter()
        keys.open("1", keys.seal("1", payload))
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def _ring(folder: Path) -> Path:
    path = folder / "payload-keys.json"
    path.write_text(json.dumps({"current": "one", "keys": {"one": base64.b64encode(os.urandom(32)).decode()}}))
    return path


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
