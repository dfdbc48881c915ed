"""`python -m bench`: the hub and its peers, one after the other on the same servers, in rounds.

Every round starts each competitor anew with an empty database, so that a machine that slows down slows all of them.
Those that are held against each other have their turns side by side.
What is measured is in the Comparison at once: a run that is interrupted or fails leaves there what it has.
"""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.endpoint import EndpointClient
from bench.figures import HUB_ON_POSTGRES, HUB_ON_SQLITE, Figures
from bench.limits import Limit, measure_limits
from bench.measure import Measurement
from bench.processes import machine
from bench.profile import count_instructions
from bench.progress import Progress
from bench.rivals import PEERS, PeerSystem
from bench.servers import BenchPostgres, started_module
from bench.systems import HubSystem, System

DELAYS_MS = (0, 50)
#: Whose turns come first, in every second round last: the goals hold them against each other.
SIDE_BY_SIDE = (HUB_ON_POSTGRES, "FastStream, tuned", HUB_ON_SQLITE, "Procrastinate, tuned", "FastStream, batched")
LOW_PER_SECOND = 50.0
#: Name, folder, servers.
NewSystem = Callable[[str, Path, BenchPostgres, EndpointClient], System]


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
    #: Of each part's limit; 0 = none is measured.
    limit_seconds: float
    #: The longest that one competitor may take in a round.
    competitor_seconds: float
    with_plain_peers: bool
    at_half: bool
    #: Only competitors whose name holds this text.
    only: str = ""


@dataclass(slots=True, kw_only=True)
class Comparison:
    """What has come out so far, and how; it is kept as JSON."""

    figures: list[Figures]
    #: What was called.
    command: str = ""
    machine: str = ""
    #: PostgreSQL and its durability, in one line.
    servers: str = ""
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    minutes: float = 0.0
    #: Of each measurement.
    seconds: float = 0.0
    #: Rounds that are wanted, and those in which every competitor has had its turn.
    rounds: int = 1
    finished_rounds: int = 0
    limits: list[Limit] = field(default_factory=list)
    #: Of Python, for one request, by path of the hub and by module.
    instructions: dict[str, dict[str, int]] = field(default_factory=dict)
    #: What went wrong with the run as a whole.
    trouble: list[str] = field(default_factory=list)


class Run:
    """Measures everything; `record` is called whenever there is something new."""

    def __init__(
        self,
        scope: Scope,
        *,
        command: str,
        record: Callable[[Comparison], None],
        new_system: NewSystem | None = None,
    ) -> None:
        self.comparison = Comparison(
            figures=_blank_figures(scope),
            command=command,
            machine=machine(),
            seconds=scope.seconds,
            rounds=scope.repeats,
        )
        self._scope = scope
        self._record = record
        self._new_system = new_system or _new_system
        self._progress = Progress(rounds=scope.repeats)
        self._postgres = BenchPostgres()
        #: Half of what the hub on PostgreSQL completes, the same in every round; 0 = not known.
        self._half_per_second = 0.0

    async def measure(self) -> None:
        """Measure. Raises: asyncio.CancelledError when interrupted, after everything that was started has ended."""
        with tempfile.TemporaryDirectory(prefix="hub-bench-") as name:
            folder = Path(name)
            async with started_module("bench.endpoint") as (endpoint_url, endpoint_pid):
                endpoint = EndpointClient(endpoint_url)
                try:
                    self._postgres.start()
                    self.comparison.servers = self._postgres.durability()
                    measurement = Measurement(
                        self._postgres, endpoint, endpoint_pid, drain_seconds=self._scope.drain_seconds
                    )
                    if self._scope.limit_seconds:
                        await self._measure_parts(folder, endpoint)
                    for number in range(self._scope.repeats):
                        await self._round(number, folder, measurement, endpoint)
                finally:
                    self._postgres.stop()

    async def _measure_parts(self, folder: Path, endpoint: EndpointClient) -> None:
        self._progress.say("the limits of the parts, and where the hub's paths execute Python")
        try:
            self.comparison.instructions = await count_instructions()
            self.comparison.limits = await measure_limits(
                folder,
                postgres_url=self._postgres.create_database,
                endpoint_url=endpoint.url,
                seconds=min(self._scope.limit_seconds, self._scope.seconds),
            )
        except Exception as error:  # noqa: BLE001 - this stands beside the rest, which is measured all the same
            self.comparison.trouble.append(f"the parts could not be measured: {error!r}")
            self._progress.say(self.comparison.trouble[-1])
        self._record_now()

    async def _round(self, number: int, folder: Path, measurement: Measurement, endpoint: EndpointClient) -> None:
        turns = turns_of(self.comparison.figures, number)
        for place, figures in enumerate(turns):
            self._progress.begin(number, [each.name for each in turns], place)
            try:
                self._postgres.start_again()
                own_folder = folder / f"{_slug(figures.name)}_{number}"
                system = self._new_system(figures.name, own_folder, self._postgres, endpoint)
                await self._measure_started(system, figures, number, measurement)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this competitor's, and the run goes on
                figures.trouble.append(f"round {number + 1}: {str(error) or repr(error)}")
                self._progress.say(f"  FAILED: {error}")
            self._progress.end(figures.name)
            self._record_now()
        self.comparison.finished_rounds = number + 1
        self._record_now()

    async def _measure_started(self, system: System, figures: Figures, number: int, measurement: Measurement) -> None:
        """One competitor's part of a round. Raises: whatever goes wrong, with nothing of it left running."""
        limit = asyncio.timeout(self._scope.competitor_seconds)
        try:
            async with limit:
                await system.start()
                await self._measure_running(system, figures, number, measurement)
                if self._scope.crash_seconds and (figures.is_hub or number == 0):
                    await self._crash(system, figures, measurement)
            await system.stop()
        except BaseException as error:
            await system.kill()  # an interrupted run shall not wait for a drain
            if limit.expired():
                raise RuntimeError(f"not measured within {self._scope.competitor_seconds:g} s") from error
            raise

    async def _measure_running(self, system: System, figures: Figures, number: int, measurement: Measurement) -> None:
        scope, say = self._scope, self._progress.say
        await measurement.warm(system, seconds=scope.warm_seconds)
        figures.idle.append(await measurement.idle(system, seconds=scope.idle_seconds))
        low = await measurement.steady(system, per_second=LOW_PER_SECOND, seconds=scope.seconds, watched=True)
        figures.low.append(low)
        say(f"  at {LOW_PER_SECOND:.0f}/s: p50 {low.p50:.1f} ms, p95 {low.p95:.1f} ms")
        for delay_ms in DELAYS_MS:
            flat = await measurement.flat(system, delay_ms=delay_ms, seconds=scope.seconds, round_number=number)
            figures.flat.setdefault(delay_ms, []).append(flat)
            say(
                f"  external {delay_ms} ms: {flat.accepts_per_second:,.0f} accepts/s, "
                f"{flat.completions_per_second:,.0f} completions/s; accepted {flat.accepted:,}, "
                f"completed {flat.completed:,}, received {flat.received:,}"
            )
        own = figures.completions(0)
        assert own is not None
        if not self._half_per_second and figures.name == HUB_ON_POSTGRES:
            self._half_per_second = own.middle / 2
        half = self._half_per_second
        if scope.at_half and half and own.middle > half:
            steady = await measurement.steady(system, per_second=half, seconds=scope.seconds, watched=False)
            figures.half.append(steady)
            say(f"  at {half:.0f}/s: p50 {steady.p50:.1f} ms, p95 {steady.p95:.1f} ms")

    def _record_now(self) -> None:
        self.comparison.minutes = (datetime.now(UTC) - self.comparison.started).total_seconds() / 60
        self._record(self.comparison)

    async def _crash(self, system: System, figures: Figures, measurement: Measurement) -> None:
        crash = await measurement.crash(system, seconds=self._scope.crash_seconds)
        figures.crashes.append(crash)
        self._progress.say(f"  crash: {crash.missing} of {crash.accepted} missing")


def _blank_figures(scope: Scope) -> list[Figures]:
    hubs = [Figures(name=name, layout="hub", is_durable=True) for name in (HUB_ON_POSTGRES, HUB_ON_SQLITE)]
    peers = [
        Figures(name=peer.title, layout=peer.layout, is_durable=peer.is_durable)
        for peer in PEERS
        if scope.with_plain_peers or peer.layout != "plain"
    ]
    return [each for each in (*hubs, *peers) if scope.only.lower() in each.name.lower()]


def turns_of(figures: Sequence[Figures], round_number: int) -> list[Figures]:
    """In which order the competitors have their turns; the first turn of all tells what half of the hub's rate is."""
    places = {name: place for place, name in enumerate(SIDE_BY_SIDE)}
    turns = sorted(figures, key=lambda each: places.get(each.name, len(places)))
    return turns[::-1] if round_number % 2 else turns


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower())


def _new_system(name: str, folder: Path, postgres: BenchPostgres, endpoint: EndpointClient) -> System:
    database = "" if name == HUB_ON_SQLITE else postgres.create_database(folder.name)
    if name in (HUB_ON_POSTGRES, HUB_ON_SQLITE):
        return HubSystem(name, folder, endpoint_url=endpoint.url, database_url=database)
    peer = next(peer for peer in PEERS if peer.title == name)
    return PeerSystem(peer, folder, endpoint_url=endpoint.url, database_url=database)
