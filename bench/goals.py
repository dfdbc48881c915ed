"""The goals of speed, each judged by the medians of one run. Pure: figures in, verdicts out."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from bench.figures import HUB_ON_POSTGRES, HUB_ON_SQLITE, POSTGRES, Figures, Flat, Spread, ratio_by_round, spread

DURABLE_TIMES = 3.0
FASTEST_TIMES = 1.0
ACCEPT_TIMES = 2.0
P50_MS, P95_MS = 8.0, 15.0
CPU_US = 600.0
IDLE_PERCENT = 3.0
MEMORY_MB = 300.0

#: With the external system's delay in milliseconds, and of what is measured there.
Rate = tuple[int, Callable[[Flat], float]]
_COMPLETIONS = attrgetter("completions_per_second")
_ACCEPTS = attrgetter("accepts_per_second")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal, what was measured, and whether it holds; None = not measured in this run."""

    goal: str
    figure: str
    held: bool | None

    @property
    def verdict(self) -> str:
        """In a word."""
        return {True: "held", False: "NOT HELD", None: "not measured"}[self.held]


def judge(everyone: Sequence[Figures]) -> list[Goal]:
    """Judge every goal."""
    goals = []
    for delay_ms in (0, 50):
        goals += _against_peers(everyone, delay_ms)
    for delay_ms in (0, 50):
        goals.append(_sqlite(everyone, delay_ms))
    goals += _accepts(everyone)
    for hub in (each for each in everyone if each.is_hub):
        goals += [_latency(hub), _cpu(hub), _idle_cpu(hub), _memory(hub), _crash(hub)]
    return goals


def _against_peers(everyone: Sequence[Figures], delay_ms: int) -> list[Goal]:
    what = f"completions/s, external {delay_ms} ms, PostgreSQL"
    peers = [each for each in everyone if not each.is_hub]

    def against(words: str, some: Sequence[Figures], times: float) -> Goal:
        return _ratio(f"{what}: {words}", everyone, some, (delay_ms, _COMPLETIONS), times)

    return [
        against(">= 3 x the best durable peer", _durable(peers), DURABLE_TIMES),
        against(">= the fastest peer", _as_offered(peers), FASTEST_TIMES),
        against(">= the fastest with batching written for it", peers, FASTEST_TIMES),
    ]


def _accepts(everyone: Sequence[Figures]) -> list[Goal]:
    what = "accepts/s at 64 connections while processing, PostgreSQL"
    peers = [each for each in everyone if not each.is_hub]

    def against(words: str, some: Sequence[Figures]) -> Goal:
        return _ratio(f"{what}: {words}", everyone, some, (0, _ACCEPTS), ACCEPT_TIMES)

    return [
        against(">= 2 x the best peer", _as_offered(peers)),
        against(">= 2 x the best with batching written for it", peers),
    ]


def _durable(peers: Iterable[Figures]) -> list[Figures]:
    return [peer for peer in peers if peer.is_durable]


def _as_offered(peers: Iterable[Figures]) -> list[Figures]:
    return [peer for peer in peers if peer.layout != "batched"]


def _ratio(goal: str, everyone: Sequence[Figures], others: Sequence[Figures], rate: Rate, times: float) -> Goal:
    """Judge by the median of the rounds' ratios, against whom it is the lowest.

    A round has both within minutes; the medians of two rates may come from rounds in which the machine was another.
    """
    own = next((each for each in everyone if each.name == HUB_ON_POSTGRES), None)
    ratios = [(ratio, each) for each in others if own is not None and (ratio := _by_round(own, each, rate)) is not None]
    if own is None or not ratios:
        return Goal(goal=goal, figure="", held=None)
    ratio, other = min(ratios, key=lambda pair: pair[0].middle)
    figure = f"{_middle(own, rate):,.0f} : {_middle(other, rate):,.0f} ({other.name}), {_say(ratio)}"
    return Goal(goal=goal, figure=figure, held=ratio.middle >= times)


def _sqlite(everyone: Sequence[Figures], delay_ms: int) -> Goal:
    goal = f"completions/s, external {delay_ms} ms: SQLite no less than PostgreSQL"
    hubs = {each.name: each for each in everyone if each.is_hub}
    on_sqlite, on_postgres = hubs.get(HUB_ON_SQLITE), hubs.get(HUB_ON_POSTGRES)
    rate = (delay_ms, _COMPLETIONS)
    if on_sqlite is None or on_postgres is None or (ratio := _by_round(on_sqlite, on_postgres, rate)) is None:
        return Goal(goal=goal, figure="", held=None)
    figure = f"{_middle(on_sqlite, rate):,.0f} : {_middle(on_postgres, rate):,.0f}, {_say(ratio)}"
    return Goal(goal=goal, figure=figure, held=ratio.middle >= 1)


def _by_round(own: Figures, other: Figures, rate: Rate) -> Spread | None:
    delay_ms, value = rate
    return ratio_by_round(own.flat.get(delay_ms, []), other.flat.get(delay_ms, []), value)


def _middle(figures: Figures, rate: Rate) -> float:
    delay_ms, value = rate
    return statistics.median(map(value, figures.flat[delay_ms]))


def _say(ratio: Spread) -> str:
    by_round = "" if ratio.low == ratio.high else f" ({ratio.low:.2f} to {ratio.high:.2f})"
    return f"by round {ratio.middle:.2f} x{by_round}"


def _latency(hub: Figures) -> Goal:
    goal = f"{hub.name}: 202 to Completed at 50/s: p50 <= 8 ms, p95 <= 15 ms"
    # where no commit has its time on record, as a reader of the event stream sees it, which is later
    by_events = any(low.seen is not None and not low.by_commit for low in hub.low)
    p50 = spread(hub.low, lambda low: low.seen[0] if by_events and low.seen else low.p50)
    p95 = spread(hub.low, lambda low: low.seen[1] if by_events and low.seen else low.p95)
    if p50 is None or p95 is None:
        return Goal(goal=goal, figure="", held=None)
    lost = sum(low.lost for low in hub.low)
    until = "until its event was read" if by_events else "until its commit"
    figure = f"p50 {p50.middle:.1f} ms, p95 {p95.middle:.1f} ms ({until})"
    if lost:
        figure += f"; {lost} lost"
    return Goal(goal=goal, figure=figure, held=p50.middle <= P50_MS and p95.middle <= P95_MS and not lost)


def _cpu(hub: Figures) -> Goal:
    goal = f"{hub.name}: CPU per request, all hub processes <= 600 us"
    cpu = {name: us for name, us in hub.cpu_us().items() if name != POSTGRES}
    if not cpu:
        return Goal(goal=goal, figure="", held=None)
    total = sum(cpu.values())
    return Goal(goal=goal, figure=f"{total:.0f} us, of it Valkey {cpu.get('valkey', 0.0):.0f}", held=total <= CPU_US)


def _idle_cpu(hub: Figures) -> Goal:
    return _of_all_processes(f"{hub.name}: idle <= 3 % of a core", hub.idle_cpu(), IDLE_PERCENT, "{:.1f} %")


def _memory(hub: Figures) -> Goal:
    return _of_all_processes(f"{hub.name}: idle <= 300 MB (PSS)", hub.memory(), MEMORY_MB, "{:.0f} MB")


def _of_all_processes(goal: str, values: Mapping[str, float], most: float, text: str) -> Goal:
    own = sum(value for name, value in values.items() if name != POSTGRES)
    return Goal(
        goal=f"{goal}, all hub processes",
        figure=text.format(own) if values else "",
        held=own <= most if values else None,
    )


def _crash(hub: Figures) -> Goal:
    goal = f"{hub.name}: requests missing after SIGKILL of everything: 0"
    if not hub.crashes:
        return Goal(goal=goal, figure="", held=None)
    missing, accepted = (sum(getattr(crash, name) for crash in hub.crashes) for name in ("missing", "accepted"))
    times = f"{len(hub.crashes)} crashes" if len(hub.crashes) > 1 else "one crash"
    return Goal(goal=goal, figure=f"{missing} of {accepted:,} in {times}", held=missing == 0 and accepted > 0)
