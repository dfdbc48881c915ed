"""A hub to measure, alike for every measurement: how it is started, how it is loaded, what is read of it."""

import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from bench.completions import Completions
from bench.load import Partners
from bench.processes import cpu_seconds, proportional_memory_mb
from console.testing import HubProcess

HUB_PROCESSES = ("gateway", "intake", "orchestrator", "adapter")
TARGET = "TotvsProtheus"
CONNECTIONS = 64
#: The longest wait until what was accepted under full load has ended.
DRAIN_SECONDS = 120.0
#: The simulator that `hub up` starts beside it.
SIMULATED = """
[targets.TotvsProtheus]
adapter = "totvs_protheus"
base_url = "{simulator}"
auth = {{ kind = "bearer", token = "env:PROTHEUS_TOKEN" }}
concurrency = 256
timeout_seconds = 10
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullLoad:
    """Every connection as fast as it is answered, until all that was accepted has ended."""

    accepted: int
    refused: dict[int, int]
    #: Accepted, and failed or not ended when the time was up.
    missing: int
    #: Sent over a connection that broke before the answer.
    broken: int
    accepts_per_second: float
    completions_per_second: float
    #: From the first request to the last completion.
    took_seconds: float
    #: Microseconds of CPU for each accepted request, by service.
    cpu_us: dict[str, float]

    @property
    def lost(self) -> int:
        """Requests that did not complete, or of which nobody knows whether they were accepted."""
        return self.missing + self.broken


class MeasuredHub:
    """A running hub and its completions as a reader of its events sees them."""

    def __init__(self, process: HubProcess, completions: Completions) -> None:
        self.process = process
        self.completions = completions
        self.pids = process.child_pids()

    def partners(self, prefix: str, *, target: str = TARGET, connections: int = CONNECTIONS) -> Partners:
        """Partners that send it orders; `prefix` makes their external ids unlike those of others."""
        token = self.process.token("bench")
        return Partners(self.process.base_url, token, prefix=prefix, target=target, connections=connections)

    async def full_load(self, prefix: str, *, seconds: float, target: str = TARGET) -> FullLoad:
        """Send for that long, then wait for the rest."""
        before, started = self.cpu_seconds(), time.time()
        sent = await self.partners(prefix, target=target).send_flat_out(seconds=seconds)
        missing = await self.completions.all_of(set(sent.accepted_at), seconds=DRAIN_SECONDS)
        after, completed = self.cpu_seconds(), self.completions.completed_at
        took = max((completed[each] for each in sent.accepted_at if each in completed), default=time.time()) - started
        count = len(sent.accepted_at)
        return FullLoad(
            accepted=count,
            refused=sent.refused,
            missing=len(missing),
            broken=sent.broken,
            accepts_per_second=count / seconds,
            completions_per_second=(count - len(missing)) / took,
            took_seconds=took,
            cpu_us={name: (after[name] - before[name]) / max(1, count) * 1e6 for name in before},
        )

    async def latencies(
        self, prefix: str, *, per_second: float, seconds: float, target: str = TARGET
    ) -> tuple[list[float], int]:
        """Send at a fixed rate; gives the ordered milliseconds from 202 to completion, and how many have none."""
        sent = await self.partners(prefix, target=target).send_steadily(per_second=per_second, seconds=seconds)
        missing = await self.completions.all_of(set(sent.accepted_at), seconds=60)
        completed = self.completions.completed_at
        latencies = sorted((completed[each] - at) * 1000 for each, at in sent.accepted_at.items() if each in completed)
        return latencies, len(missing) + sum(sent.refused.values()) + sent.broken

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time of each service so far."""
        return {name: cpu_seconds(self.pids[name]) for name in HUB_PROCESSES}

    def memory_mb(self) -> dict[str, float]:
        """Proportional memory of each service."""
        return {name: proportional_memory_mb(self.pids[name]) for name in HUB_PROCESSES}


def new_hub(folder: Path, targets: str = "", **settings: str) -> HubProcess:
    """A hub that is not started yet, without a limit for a partner; without `targets` its own simulator's."""
    file = folder / "targets.toml"
    hub = HubProcess(folder, targets=str(file), partner_rate_per_minute="0", **settings)
    file.write_text(targets or SIMULATED.format(simulator=hub.simulator_url))
    return hub


@contextlib.asynccontextmanager
async def started_hub(targets: str = "", **settings: str) -> AsyncIterator[MeasuredHub]:
    """A running hub with nothing in it, in a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as folder:
        async with measured(new_hub(Path(folder), targets, **settings)) as hub:
            yield hub


@contextlib.asynccontextmanager
async def measured(process: HubProcess) -> AsyncIterator[MeasuredHub]:
    """Start a hub, and end it afterwards."""
    async with process, Completions(process.redis_url) as completions:
        yield MeasuredHub(process, completions)


async def in_turns(
    measure: Callable[[bool], Awaitable[FullLoad]], *, repeats: int
) -> tuple[list[FullLoad], list[FullLoad]]:
    """Measure without something and with it, in turns, so that a machine that slows down slows both."""
    without, beside = [], []
    for _ in range(repeats):
        without.append(await measure(False))
        beside.append(await measure(True))
    return without, beside
