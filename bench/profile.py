"""What one request makes the hub's processes do, counted from outside while it is loaded as much as it can bear.

CPU by thread from /proc, batches, calls and events from the services' own metrics, commands from Valkey's statistics,
lines from the log files: everything that only grows, read before the load and after its last completion. And, without
a load and the same on any machine, in which modules the instructions of Python are executed.
"""

import asyncio
import contextlib
import json
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from prometheus_client.parser import text_string_to_metric_families

from bench.figures import Profile
from bench.processes import thread_seconds

ROOT = Path(__file__).resolve().parents[1]
#: Metrics whose counts are of interest, with the label that names what is counted.
COUNTS = {
    "batch_items_count": ("batches", "batch"),
    "rpc_duration_ms_count": ("calls", "method"),
    "events_published_total": ("events", "type"),
}
ITEMS = ("batch_items_sum", "batch")
#: What Valkey is asked by those who look after it, and by this benchmark.
UNRELATED_COMMANDS = frozenset({"info", "ping", "hello", "client|setinfo", "auth", "select", "config|get", "command"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Everything as it stands at one moment."""

    threads: dict[str, tuple[float, float]]
    counts: dict[str, float]
    items: dict[str, float]
    #: The first line of each log file, by what is counted in it: a file that is full replaces an older one.
    files: dict[str, set[bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """Where a hub's counters can be read."""

    #: Addresses of the services' metrics, by service.
    metrics: Mapping[str, str]
    redis_url: str
    logs: Path


async def stand(pids: Mapping[str, int], instruments: Instruments) -> Standing:
    """Read everything."""
    return await asyncio.to_thread(_stand, pids, instruments)


def profile(before: Standing, after: Standing, requests: int) -> Profile:
    """What came in between, for each request."""
    threads = {}
    for name, (user, kernel) in after.threads.items():
        user_before, kernel_before = before.threads.get(name, (0.0, 0.0))
        threads[name] = ((user - user_before) / requests * 1e6, (kernel - kernel_before) / requests * 1e6)
    grown = {name: value - before.counts.get(name, 0.0) for name, value in after.counts.items()}
    dropped = {name for name, begins in before.files.items() if not begins <= after.files.get(name, set())}
    counts = {name: count / requests for name, count in grown.items() if count and name not in dropped}
    items = {
        name: (value - before.items.get(name, 0.0)) / grown[name]
        for name, value in after.items.items()
        if grown.get(name)
    }
    return Profile(threads=threads, counts=counts, items=items)


def samples(address: str) -> list[Any]:
    """All that a service's metrics say."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return [sample for family in families for sample in family.samples]


async def count_instructions() -> dict[str, dict[str, int]]:
    """Instructions of Python for one request, by path of the hub and by module. Raises: RuntimeError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.hot_paths"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(errors.decode()[-500:])
    modules: dict[str, dict[str, int]] = json.loads(output)["modules"]
    return modules


def _stand(pids: Mapping[str, int], instruments: Instruments) -> Standing:
    threads = {f"{process}, {name}": spent for process, pid in pids.items() for name, spent in thread_seconds(pid)}
    counts: dict[str, float] = {}
    items: dict[str, float] = {}
    files: dict[str, set[bytes]] = {}
    for service, address in instruments.metrics.items():
        for sample in samples(address):
            if sample.name in COUNTS:
                what, label = COUNTS[sample.name]
                name = f"{service}: {what}, {_short(sample.labels[label])}"
                counts[name] = counts.get(name, 0.0) + sample.value
            elif sample.name == ITEMS[0]:
                items[f"{service}: batches, {sample.labels[ITEMS[1]]}"] = sample.value
    with contextlib.closing(redis.Redis.from_url(instruments.redis_url)) as client:
        statistics: Any = client.info("commandstats")
    for command, each in statistics.items():
        name = command.removeprefix("cmdstat_")
        if name not in UNRELATED_COMMANDS:
            counts[f"valkey: commands, {name}"] = float(each["calls"])
    for path in instruments.logs.glob("*.log*"):
        name, text = f"{path.name.partition('.')[0]}: log lines", path.read_bytes()
        counts[name] = counts.get(name, 0.0) + text.count(b"\n")
        files.setdefault(name, set()).add(text.partition(b"\n")[0])
    return Standing(threads=threads, counts=counts, items=items, files=files)


def _short(name: str) -> str:
    """A method or an event without its service's or its family's name."""
    return name.rpartition("/")[2].removeprefix("IntegrationRequest")
