"""The measurements of one competitor, the same for all: flat out, at a steady rate, idle, and after a crash.

Completions are counted twice: in the competitor's database and by what the external system received.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from bench.completions import Completions
from bench.endpoint import EndpointClient
from bench.figures import ENDPOINT, LOAD, OTHERS, Crash, Flat, Idle, Steady, quantile
from bench.hub import CONNECTIONS
from bench.load import Partners
from bench.processes import (
    cpu_seconds,
    families_memory_mb,
    family_cpu_seconds,
    machine_cpu_seconds,
    proportional_memory_mb,
)
from bench.profile import profile, stand
from bench.servers import BenchPostgres
from bench.systems import System

IDLE_AFTER_SECONDS = 1.0
KILL_AFTER_SECONDS = 1.5
CRASH_DELAY_MS = 50
POLL_SECONDS = 0.05
CRASH_POLL_SECONDS = 0.5
CRASH_PER_SECOND = 10.0


class Measurement:
    """Measures one running competitor after another on the shared servers."""

    def __init__(
        self, postgres: BenchPostgres, endpoint: EndpointClient, endpoint_pid: int, *, drain_seconds: float
    ) -> None:
        """`drain_seconds` bounds the wait until what was accepted has ended."""
        self._postgres = postgres
        self._endpoint = endpoint
        self._endpoint_pid = endpoint_pid
        self._drain_seconds = drain_seconds
        self._numbers = 0

    async def warm(self, system: System, *, seconds: float) -> None:
        """Fill pools and caches of every process. Raises: RuntimeError when not everything ends."""
        self._endpoint.delay(0)
        self._endpoint.reset()
        sent = await self._partners(system).send_flat_out(seconds=seconds)
        missing = set(sent.accepted_at) - (await self._ended(system, set(sent.accepted_at))).keys()
        if missing or not sent.accepted_at:
            raise RuntimeError(
                f"{len(missing)} of {len(sent.accepted_at)} requests did not end; refused {sent.refused}"
            )

    async def flat(self, system: System, *, delay_ms: int, seconds: float, round_number: int) -> Flat:
        """Flat out over 64 connections for that long, then wait for the rest. Raises: RuntimeError: none accepted."""
        self._endpoint.delay(delay_ms)
        self._endpoint.reset()
        instruments = system.instruments
        standing = await stand(system.processes, instruments) if instruments is not None else None
        before, machine, clock = self._everyone(system), machine_cpu_seconds(), time.perf_counter()
        started = time.time()
        sent = await self._partners(system).send_flat_out(seconds=seconds)
        load_clock, load = time.perf_counter() - clock, self._everyone(system)
        ids = set(sent.accepted_at)
        ended = await self._ended(system, ids)
        after, machine, clock = self._everyone(system), machine_cpu_seconds() - machine, time.perf_counter() - clock
        posts, distinct = await asyncio.to_thread(self._endpoint.counts)
        completed = ids & ended.keys()
        if not completed:
            raise RuntimeError(f"nothing completed of {len(ids)} accepted; refused {sent.refused}")
        profiled = None
        if instruments is not None and standing is not None:
            profiled = profile(standing, await stand(system.processes, instruments), len(ids))
        spent = {name: after[name] - before[name] for name in before}
        spent[OTHERS] = max(0.0, machine - sum(spent.values()))
        return Flat(
            accepts_per_second=len(ids) / load_clock,
            completions_per_second=len(completed) / (max(ended[each] for each in completed) - started),
            completions_under_load=sum(ended[each] <= started + load_clock for each in completed) / load_clock,
            cpu_us={name: spent[name] / len(ids) * 1e6 for name in self._pids(system)},
            accepted=len(ids),
            completed=len(completed),
            received=distinct,
            repeated=posts - distinct,
            refused=sum(sent.refused.values()),
            broken=sent.broken,
            load_share=(load[LOAD] - before[LOAD]) / load_clock,
            endpoint_share=(load[ENDPOINT] - before[ENDPOINT]) / load_clock,
            machine_shares={name: seconds / clock / (os.cpu_count() or 1) for name, seconds in spent.items()},
            round_number=round_number,
            profile=profiled,
        )

    async def steady(self, system: System, *, per_second: float, seconds: float, watched: bool) -> Steady:
        """Send at a fixed rate; `watched` reads the event stream too, where there is one.

        Raises: RuntimeError when nothing completed.
        """
        self._endpoint.delay(0)
        self._endpoint.reset()
        async with _watching(system if watched else None) as completions:
            sent = await self._partners(system).send_steadily(per_second=per_second, seconds=seconds)
            ended = await self._ended(system, set(sent.accepted_at))
            unseen: set[str] = set()
            if completions is not None:
                unseen = await completions.all_of(set(sent.accepted_at), seconds=self._drain_seconds)
        recorded = _percentiles(sent.accepted_at, ended)
        return Steady(
            per_second=per_second,
            by_commit=system.ledger.knows_commits,
            p50=recorded[0],
            p95=recorded[1],
            p99=recorded[2],
            accepted=len(sent.accepted_at),
            missing=len(sent.accepted_at.keys() - ended.keys()),
            unseen=len(unseen),
            refused=sum(sent.refused.values()),
            broken=sent.broken,
            seen=None if completions is None else _percentiles(sent.accepted_at, completions.completed_at),
        )

    async def idle(self, system: System, *, seconds: float) -> Idle:
        """Do nothing for that long."""
        await asyncio.sleep(IDLE_AFTER_SECONDS)
        before = self._cpu(system)
        await asyncio.sleep(seconds)
        after = self._cpu(system)
        return Idle(
            cpu_percent={name: (after[name] - before[name]) / seconds * 100 for name in before},
            memory_mb={name: self._memory(name, pid) for name, pid in self._pids(system).items()},
        )

    async def crash(self, system: System, *, seconds: float) -> Crash:
        """SIGKILL everything in the middle of a load, restart it, and wait at most that long for what was accepted.

        New requests arrive meanwhile: some consumers look for lost work only when there is new work.
        """
        self._endpoint.delay(CRASH_DELAY_MS)
        self._endpoint.reset()
        load = asyncio.create_task(self._partners(system).send_flat_out(seconds=KILL_AFTER_SECONDS * 4))
        await asyncio.sleep(KILL_AFTER_SECONDS)
        await system.kill()
        await asyncio.to_thread(self._postgres.crash)
        accepted = set((await load).accepted_at)
        await asyncio.to_thread(self._postgres.start)
        await system.start()
        started = time.monotonic()
        missing = accepted
        while missing and time.monotonic() - started < seconds:
            await self._partners(system).send_steadily(per_second=CRASH_PER_SECOND, seconds=CRASH_POLL_SECONDS)
            missing = accepted - (await asyncio.to_thread(system.ledger.completed_at)).keys()
        posts, distinct = await asyncio.to_thread(self._endpoint.counts)
        return Crash(
            accepted=len(accepted),
            missing=len(missing),
            repeated=posts - distinct,
            seconds_until_all_ended=time.monotonic() - started,
        )

    def _partners(self, system: System) -> Partners:
        self._numbers += 1
        return Partners(system.base_url, system.token, prefix=f"load-{self._numbers}", connections=CONNECTIONS)

    def _pids(self, system: System) -> dict[str, int]:
        return {**system.processes, **({"postgres": self._postgres.pid} if system.uses_postgres else {})}

    def _cpu(self, system: System) -> dict[str, float]:
        pids = self._pids(system)
        # the supervisor's children are named themselves; of the others their children are a part
        return {name: cpu_seconds(p) if name == "supervisor" else family_cpu_seconds(p) for name, p in pids.items()}

    def _everyone(self, system: System) -> dict[str, float]:
        """CPU seconds of the competitor's processes, of the load generator and of the external system."""
        return {**self._cpu(system), LOAD: time.process_time(), ENDPOINT: cpu_seconds(self._endpoint_pid)}

    @staticmethod
    def _memory(name: str, pid: int) -> float:
        return proportional_memory_mb(pid) if name == "supervisor" else families_memory_mb([pid])

    async def _ended(self, system: System, ids: set[str]) -> dict[str, float]:
        """When each request was recorded as completed, once all are, or as far as they are when the time is up.

        The external system is asked first, since asking the database costs the competitor.
        """
        deadline = time.monotonic() + self._drain_seconds
        while time.monotonic() < deadline:
            if (await asyncio.to_thread(self._endpoint.counts))[1] >= len(ids):
                break
            await asyncio.sleep(POLL_SECONDS)
        while True:
            ended = await asyncio.to_thread(system.ledger.completed_at)
            if ids <= ended.keys() or time.monotonic() > deadline:
                return ended
            await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def _watching(system: System | None) -> AsyncIterator[Completions | None]:
    if system is None or system.events_url is None:
        yield None
        return
    async with Completions(system.events_url) as completions:
        yield completions


def _percentiles(accepted_at: Mapping[str, float], ended_at: Mapping[str, float]) -> tuple[float, float, float]:
    latencies = sorted((ended_at[each] - at) * 1000 for each, at in accepted_at.items() if each in ended_at)
    if not latencies:
        raise RuntimeError(f"nothing completed of {len(accepted_at)} accepted")
    return (quantile(latencies, 0.50), quantile(latencies, 0.95), quantile(latencies, 0.99))
