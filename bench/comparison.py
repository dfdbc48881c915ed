"""`python -m bench`: the hub and its peers, one after the other on the same servers, in rounds.

Every round starts each competitor anew with an empty database, so that a machine that slows down slows all of them.
"""

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from bench.endpoint import EndpointClient
from bench.figures import HUB_ON_POSTGRES, HUB_ON_SQLITE, Figures
from bench.limits import Limit, measure_limits
from bench.measure import Measurement
from bench.rivals import PEERS, PeerSystem
from bench.servers import BenchPostgres
from bench.systems import HubSystem, System

DELAYS_MS = (0, 50)
LOW_PER_SECOND = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How much is measured."""

    repeats: int
    #: Of each measurement.
    seconds: float
    warm_seconds: float
    idle_seconds: float
    #: The longest wait for what was accepted to end.
    drain_seconds: float
    #: The longest wait for it after a crash; 0 = no crash.
    crash_seconds: float
    limit_seconds: float
    #: The longest that one competitor may take in a round.
    competitor_seconds: float
    with_plain_peers: bool
    at_half: bool
    #: Only competitors whose name holds this text.
    only: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came out."""

    #: PostgreSQL and its durability, in one line.
    servers: str
    figures: list[Figures]
    limits: list[Limit]


async def compare(scope: Scope) -> Comparison:
    """Measure everything."""
    progress = Progress()
    postgres = BenchPostgres()
    figures = _blank_figures(scope)
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name:
        async with _endpoint() as (endpoint, endpoint_pid):
            postgres.start()
            try:
                servers = postgres.durability()
                measurement = Measurement(postgres, endpoint, endpoint_pid, drain_seconds=scope.drain_seconds)
                progress.say("the limits of the parts")
                limits = await measure_limits(
                    Path(name),
                    postgres_url=postgres.create_database,
                    endpoint_url=endpoint.url,
                    seconds=min(scope.limit_seconds, scope.seconds),
                )
                for number in range(scope.repeats):
                    for each in figures:
                        progress.say(f"round {number + 1} of {scope.repeats}: {each.name}")
                        system = _system(each.name, Path(name) / f"{_slug(each.name)}_{number}", postgres, endpoint)
                        await _measure(
                            system, each, figures, measurement, scope, progress, is_last=number == scope.repeats - 1
                        )
            finally:
                postgres.stop()
    return Comparison(servers=servers, figures=figures, limits=limits)


class Progress:
    """Lines on stderr, each with the time since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line."""
        elapsed = time.monotonic() - self._started
        print(f"[{elapsed // 60:3.0f}:{elapsed % 60:02.0f}] {text}", file=sys.stderr, flush=True)


def _blank_figures(scope: Scope) -> list[Figures]:
    hubs = [Figures(name=name, layout="hub", is_durable=True) for name in (HUB_ON_POSTGRES, HUB_ON_SQLITE)]
    peers = [
        Figures(name=peer.title, layout=peer.layout, is_durable=peer.is_durable)
        for peer in PEERS
        if scope.with_plain_peers or peer.layout != "plain"
    ]
    return [each for each in (*hubs, *peers) if scope.only.lower() in each.name.lower()]


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower())


def _system(name: str, folder: Path, postgres: BenchPostgres, endpoint: EndpointClient) -> System:
    database = "" if name == HUB_ON_SQLITE else postgres.create_database(folder.name)
    if name in (HUB_ON_POSTGRES, HUB_ON_SQLITE):
        return HubSystem(name, folder, endpoint_url=endpoint.url, database_url=database)
    peer = next(peer for peer in PEERS if peer.title == name)
    return PeerSystem(peer, folder, endpoint_url=endpoint.url, database_url=database)


async def _measure(
    system: System,
    figures: Figures,
    everyone: list[Figures],
    measurement: Measurement,
    scope: Scope,
    progress: Progress,
    *,
    is_last: bool,
) -> None:
    """One competitor's part of a round; what goes wrong is noted, and the run goes on."""
    try:
        await system.start()
        try:
            async with asyncio.timeout(scope.competitor_seconds):
                await _measure_running(system, figures, everyone, measurement, scope, progress)
                if is_last and scope.crash_seconds:
                    figures.crash = crash = await measurement.crash(system, seconds=scope.crash_seconds)
                    progress.say(f"  crash: {crash.missing} of {crash.accepted} missing")
        finally:
            await system.stop()
    except (RuntimeError, OSError) as error:  # the time that is up is an OSError
        figures.trouble.append(str(error) or f"not measured within {scope.competitor_seconds:.0f} s")
        progress.say(f"  {error}")


async def _measure_running(
    system: System,
    figures: Figures,
    everyone: list[Figures],
    measurement: Measurement,
    scope: Scope,
    progress: Progress,
) -> None:
    await measurement.warm(system, seconds=scope.warm_seconds)
    figures.idle.append(await measurement.idle(system, seconds=scope.idle_seconds))
    low = await measurement.steady(system, per_second=LOW_PER_SECOND, seconds=scope.seconds, watched=True)
    figures.low.append(low)
    progress.say(f"  at {LOW_PER_SECOND:.0f}/s: p50 {low.p50:.1f} ms, p95 {low.p95:.1f} ms")
    for delay_ms in DELAYS_MS:
        flat = await measurement.flat(system, delay_ms=delay_ms, seconds=scope.seconds)
        figures.flat.setdefault(delay_ms, []).append(flat)
        progress.say(
            f"  external {delay_ms} ms: {flat.accepts_per_second:,.0f} accepts/s, "
            f"{flat.completions_per_second:,.0f} completions/s; accepted {flat.accepted:,}, "
            f"completed {flat.completed:,}, received {flat.received:,}"
        )
    half = _half_of_the_hub(everyone)
    own = figures.completions(0)
    if scope.at_half and half and own is not None and own.middle > half:
        steady = await measurement.steady(system, per_second=half, seconds=scope.seconds, watched=False)
        figures.half.append(steady)
        progress.say(f"  at {half:.0f}/s: p50 {steady.p50:.1f} ms, p95 {steady.p95:.1f} ms")


def _half_of_the_hub(everyone: list[Figures]) -> float:
    """Half of what the hub on PostgreSQL completes, as far as is known; nothing when it does not take part."""
    most = next((each.completions(0) for each in everyone if each.name == HUB_ON_POSTGRES), None)
    return most.middle / 2 if most is not None else 0.0


@contextlib.asynccontextmanager
async def _endpoint() -> AsyncIterator[tuple[EndpointClient, int]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.endpoint", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = (await process.stdout.readline()).decode().strip()
    try:
        yield EndpointClient(f"http://127.0.0.1:{port}"), process.pid
    finally:
        process.kill()
        await process.wait()
