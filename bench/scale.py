"""`python -m bench.scale`: whether the hub stays as quick and as small as it was when it holds a million requests.

    python -m bench.scale                       1,000,000 finished requests against none, on SQLite (about 5 minutes)
    python -m bench.scale --postgresql          the same on PostgreSQL
    python -m bench.scale --rows 50000          a smaller history, to try it
    python -m bench.scale backlog               memory, and another target's latency, with 100,000 waiting requests
    python -m bench.scale sharing               two orchestrators and two adapters on PostgreSQL: counts per process
    python -m bench.scale costs                 CPU, rows, WAL and stream bytes of one request on PostgreSQL

The hubs with and without a history run beside each other, so that a machine that slows down slows both: at 50/s they
are loaded at the same time, at full load in turns. Latencies are those of all turns together. The exit code is 1
when a request did not complete, or a figure with the history is more than 10 % worse.
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import backlog, costs, sharing
from bench.command import parser, run
from bench.figures import quantile
from bench.filling import fill
from bench.hub import MeasuredHub, started_hub
from intake_service.migrations import migrate
from tests.servers import PostgresServer

GOAL_PERCENT = 10.0
LOW_RATE = 50.0


@dataclass(slots=True, kw_only=True)
class Side:
    """One of the two hubs and what was measured of it, one value for each turn."""

    hub: MeasuredHub
    latencies_ms: list[float] = field(default_factory=list)
    accepts: list[float] = field(default_factory=list)
    completed: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    lost: int = 0

    def forget(self) -> None:
        """Begin anew, but for what was lost and the memory after the start."""
        for values in (self.latencies_ms, self.accepts, self.completed, self.cpu_us):
            values.clear()

    def quantile(self, share: float) -> list[float]:
        """A latency over all turns."""
        return [quantile(sorted(self.latencies_ms), share)]

    def weigh(self) -> None:
        """Note what the processes hold now."""
        self.memory_mb.append(sum(self.hub.memory_mb().values()))


#: Name, digits, whether more is better, the values.
FIGURES: tuple[tuple[str, int, bool, Callable[[Side], list[float]]], ...] = (
    ("accepts/s, 64 connections, while processing", 0, True, lambda side: side.accepts),
    ("completions/s until all had ended", 0, True, lambda side: side.completed),
    ("CPU per request at full load, us", 0, False, lambda side: side.cpu_us),
    ("202 to Completed at 50/s, p50 ms", 2, False, lambda side: side.quantile(0.50)),
    ("202 to Completed at 50/s, p95 ms", 2, False, lambda side: side.quantile(0.95)),
    ("memory after the start, MB", 0, False, lambda side: side.memory_mb[:1]),
    ("memory after the load, MB", 0, False, lambda side: side.memory_mb[-1:]),
)


async def main(arguments: argparse.Namespace) -> int:
    """Run what was asked for."""
    match arguments.what:
        case "backlog":
            return await backlog.measure(arguments.backlog)
        case "sharing":
            with _postgresql() as server:
                return await sharing.measure(server.create_database("sharing"), arguments.seconds)
        case "costs":
            with _postgresql() as server:
                return await costs.measure(server, arguments.seconds)
        case _:
            return await _history(arguments)


async def _history(arguments: argparse.Namespace) -> int:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hub-bench-")))
        server = stack.enter_context(_postgresql()) if arguments.postgresql else None
        make = _on_postgresql(server) if server is not None else _on_sqlite(folder)
        full = make("full")
        seconds = await asyncio.to_thread(fill, full, arguments.rows)
        kind = "PostgreSQL" if server is not None else "SQLite"
        print(f"filled   {arguments.rows} finished requests with their histories on {kind} in {seconds:.0f} s")
        without = await stack.enter_async_context(_side(make("empty")))
        beside = await stack.enter_async_context(_side(full))
        for turn in range(-1, arguments.turns):
            # both at once: what else the machine does shall delay both alike
            await asyncio.gather(*(_low_load(side, turn, arguments.seconds) for side in (without, beside)))
            for side in (without, beside) if turn % 2 == 0 else (beside, without):
                await _full_load(side, turn, arguments.seconds)
            if turn < 0:  # the first turn warms up
                for side in (without, beside):
                    side.forget()
        for side in (without, beside):
            side.weigh()
        return _print_comparison(without, beside, arguments.rows)


@contextlib.asynccontextmanager
async def _side(url: str) -> AsyncIterator[Side]:
    """Start a hub on a database."""
    async with started_hub(database_url=url) as hub:
        side = Side(hub=hub)
        side.weigh()
        yield side


def _on_sqlite(folder: Path) -> Callable[[str], str]:
    def make(name: str) -> str:
        url = f"sqlite:///{folder / name}.sqlite3"
        migrate(url)
        return url

    return make


def _on_postgresql(server: PostgresServer) -> Callable[[str], str]:
    def make(name: str) -> str:
        url = server.create_database(name)
        migrate(url)
        return url

    return make


@contextlib.contextmanager
def _postgresql() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.stop()


async def _low_load(side: Side, turn: int, seconds: float) -> None:
    latencies, lost = await side.hub.latencies(f"low{turn}", per_second=LOW_RATE, seconds=2 * seconds)
    side.latencies_ms += latencies
    side.lost += lost


async def _full_load(side: Side, turn: int, seconds: float) -> None:
    load = await side.hub.full_load(f"full{turn}", seconds=seconds)
    side.lost += load.lost
    side.accepts.append(load.accepts_per_second)
    side.completed.append(load.completions_per_second)
    side.cpu_us.append(sum(load.cpu_us.values()))


def _print_comparison(without: Side, beside: Side, rows: int) -> int:
    is_worse = False
    print(f"{'median (lowest-highest turn)':46} {'none':>22} {f'{rows} finished':>22}  ratio")
    for name, digits, more_is_better, values in FIGURES:
        empty, full = values(without), values(beside)
        ratio = statistics.median(full) / statistics.median(empty)
        is_worse |= (1 / ratio if more_is_better else ratio) > 1 + GOAL_PERCENT / 100
        print(f"{name:46} {_spread(empty, digits):>22} {_spread(full, digits):>22}  {ratio:.2f}")
    lost = without.lost + beside.lost
    print(f"not accepted or not completed  {lost}")
    print("every figure within 10 %" if not is_worse else "NOT every figure within 10 %")
    return 1 if lost or is_worse else 0


def _spread(values: list[float], digits: int) -> str:
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _arguments() -> argparse.Namespace:
    options = parser("bench.scale", "Measure how the hub scales.", seconds=2.0)
    options.add_argument("what", nargs="?", choices=("history", "backlog", "sharing", "costs"), default="history")
    options.add_argument("--rows", type=int, default=1_000_000, help="finished requests (default 1,000,000)")
    options.add_argument("--backlog", type=int, default=100_000, help="waiting requests (default 100,000)")
    options.add_argument("--postgresql", action="store_true", help="on PostgreSQL instead of SQLite")
    options.add_argument("--turns", type=int, default=10, help="turns of each of the two hubs (default 10)")
    return options.parse_args()


if __name__ == "__main__":
    run(main, _arguments())
