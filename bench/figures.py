"""The figures of a run as plain values; no measuring and no printing."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")

HUB_ON_POSTGRES = "hub on PostgreSQL"
HUB_ON_SQLITE = "hub on SQLite"
POSTGRES = "postgres"
#: Beside a competitor's processes.
LOAD, ENDPOINT, OTHERS = "load generator", "external system", "other programs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one request makes the hub's processes do."""

    #: Microseconds of CPU in user mode and in the kernel, by process and thread.
    threads: dict[str, tuple[float, float]]
    #: How often, by what.
    counts: dict[str, float]
    #: Items in a batch, by the batch's name in `counts`.
    items: dict[str, float]

    def needed(self, name: str) -> float:
        """How often, and of batches how many items."""
        return self.counts.get(name, 0.0) * self.items.get(name, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat:
    """64 partners as fast as they are answered, until everything that was accepted has ended."""

    accepts_per_second: float
    completions_per_second: float
    #: Of those that ended while the load was sent.
    completions_under_load: float
    #: Microseconds of CPU for each accepted request, by process.
    cpu_us: dict[str, float]
    accepted: int
    completed: int
    #: Distinct requests that the external system received, and calls that repeated one.
    received: int
    repeated: int
    refused: int
    #: Whose connection broke before the answer, and with it their sender.
    broken: int = 0
    #: Share of one core that the load generator and the external system took.
    load_share: float
    endpoint_share: float
    #: Shares of the whole machine until everything had ended, by process of the competitor and by who else.
    machine_shares: dict[str, float]
    #: Which round it was.
    round_number: int
    #: Of the hub only.
    profile: Profile | None = None

    @property
    def others_share(self) -> float:
        """Share of the whole machine that nothing of this measurement took: other programs, and the host."""
        return self.machine_shares[OTHERS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """Requests at a fixed rate: from the 202 to the recorded completion, in milliseconds."""

    per_second: float
    p50: float
    p95: float
    p99: float
    #: Whether the completions are dated by their commits, not by a clock before them.
    by_commit: bool = False
    accepted: int = 0
    missing: int
    #: Whose completion the reader of the event stream has not seen; none where there is no reader.
    unseen: int = 0
    refused: int = 0
    #: Whose connection broke before the answer.
    broken: int = 0
    #: The same until a reader of the event stream has seen it; only where there is one.
    seen: tuple[float, float, float] | None = None

    @property
    def lost(self) -> int:
        """Requests that the latencies say nothing of."""
        return self.missing + self.unseen + self.refused + self.broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Nothing to do."""

    #: Percent of one core, by process.
    cpu_percent: dict[str, float]
    #: Proportional memory in MB, by process.
    memory_mb: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """SIGKILL of everything under load, then a restart."""

    accepted: int
    missing: int
    repeated: int
    seconds_until_all_ended: float


@dataclass(slots=True, kw_only=True)
class Figures:
    """Everything that was measured of one competitor."""

    name: str
    #: hub, plain, tuned or batched: see bench/peers.
    layout: str
    is_durable: bool
    #: By the external system's answer time in milliseconds.
    flat: dict[int, list[Flat]] = field(default_factory=dict)
    low: list[Steady] = field(default_factory=list)
    half: list[Steady] = field(default_factory=list)
    idle: list[Idle] = field(default_factory=list)
    crashes: list[Crash] = field(default_factory=list)
    #: Why something could not be measured.
    trouble: list[str] = field(default_factory=list)

    @property
    def is_hub(self) -> bool:
        """Whether this is not a peer."""
        return self.layout == "hub"

    @property
    def flats(self) -> list[Flat]:
        """All full loads."""
        return [flat for flats in self.flat.values() for flat in flats]

    def completions(self, delay_ms: int) -> "Spread | None":
        """Completions per second."""
        return spread(self.flat.get(delay_ms, []), lambda flat: flat.completions_per_second)

    def under_load(self, delay_ms: int) -> "Spread | None":
        """Completions per second while the load was sent."""
        return spread(self.flat.get(delay_ms, []), lambda flat: flat.completions_under_load)

    def accepts(self, delay_ms: int = 0) -> "Spread | None":
        """Accepts per second while processing."""
        return spread(self.flat.get(delay_ms, []), lambda flat: flat.accepts_per_second)

    def cpu_us(self, delay_ms: int = 0) -> dict[str, float]:
        """Median CPU per request by process."""
        flats = self.flat.get(delay_ms, [])
        names = flats[0].cpu_us if flats else ()
        return {name: statistics.median(flat.cpu_us.get(name, 0.0) for flat in flats) for name in names}

    def profile(self, delay_ms: int = 0) -> Profile | None:
        """That of the repeat with the median rate: its figures belong together."""
        flats = [flat for flat in self.flat.get(delay_ms, []) if flat.profile is not None]
        flats.sort(key=lambda flat: flat.completions_per_second)
        return flats[len(flats) // 2].profile if flats else None

    @property
    def steadies(self) -> list[Steady]:
        """All loads at a fixed rate."""
        return [*self.low, *self.half]

    @property
    def counts_agree(self) -> bool:
        """Whether the database, the external system and the events say of every load that all of it was done."""
        return not any(steady.lost for steady in self.steadies) and all(
            flat.accepted == flat.completed == flat.received and not flat.broken for flat in self.flats
        )

    def idle_cpu(self) -> dict[str, float]:
        """Median idle CPU by process."""
        names = self.idle[0].cpu_percent if self.idle else ()
        return {name: statistics.median(idle.cpu_percent.get(name, 0.0) for idle in self.idle) for name in names}

    def memory(self) -> dict[str, float]:
        """Median idle memory by process."""
        names = self.idle[0].memory_mb if self.idle else ()
        return {name: statistics.median(idle.memory_mb.get(name, 0.0) for idle in self.idle) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Minimum, median and maximum of the repeats."""

    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        digits = 0 if self.low >= 100 else 1
        values = (self.middle,) if self.low == self.high else (self.low, self.middle, self.high)
        return " / ".join(f"{value:,.{digits}f}" for value in values)


def spread(items: Sequence[Item], value: Callable[[Item], float]) -> Spread | None:
    """The spread of one figure; nothing where nothing was measured."""
    values = [value(item) for item in items]
    if not values:
        return None
    return Spread(low=min(values), middle=statistics.median(values), high=max(values))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return ordered[int(share * (len(ordered) - 1))]


def ratio_by_round(own: Sequence[Flat], other: Sequence[Flat], value: Callable[[Flat], float]) -> Spread | None:
    """How many times the other's figure, in each round that has both."""
    others = {flat.round_number: value(flat) for flat in other}
    return spread(
        [value(flat) / others[flat.round_number] for flat in own if others.get(flat.round_number)], lambda ratio: ratio
    )
