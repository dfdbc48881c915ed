"""What it costs to seal payloads at rest: `python -m bench.sealing`, the same load with a key ring and without.

The two take turns, each time with a fresh hub.
"""

import argparse
import base64
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from bench.command import parser, run
from bench.hub import FullLoad, in_turns, started_hub
from intake_service.store.payloads import PayloadKeys

WARM_SECONDS = 1.0
SIZES = (100, 10_000, 1_000_000)


async def main(arguments: argparse.Namespace) -> int:
    """Measure and print; the exit code is 1 when a request did not complete."""
    for size in SIZES:
        print(f"seal and open {size} bytes  {_microseconds(size):.0f} us")
    plain, sealed = await in_turns(
        lambda is_sealed: _measure(arguments.seconds, is_sealed=is_sealed), repeats=arguments.repeats
    )
    for name, loads in (("plain ", plain), ("sealed", sealed)):
        each = ", ".join(f"{load.completions_per_second:.0f}" for load in loads)
        print(
            f"payloads {name}  {statistics.median(load.completions_per_second for load in loads):.0f} completions/s "
            f"({each}), {statistics.median(load.cpu_us['intake'] for load in loads):.0f} us of intake's CPU per request"
        )
    lost = sum(load.lost for load in (*plain, *sealed))
    print(f"lost  {lost}")
    return 1 if lost else 0


async def _measure(seconds: float, *, is_sealed: bool) -> FullLoad:
    with tempfile.TemporaryDirectory(prefix="hub-bench-ring-") as folder:
        sealing = {"payload_keys": f"file:{_ring(Path(folder))}"} if is_sealed else {}
        async with started_hub(**sealing) as hub:
            await hub.full_load("warm", seconds=WARM_SECONDS)
            return await hub.full_load("full", seconds=seconds)


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
    options = parser("bench.sealing", "Measure what sealed payloads cost.", seconds=5.0, repeats=3)
    run(main, options.parse_args())
