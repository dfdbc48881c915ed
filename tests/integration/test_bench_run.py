"""A run of the benchmark loses nothing that it has measured, whatever becomes of a competitor or of the run itself."""

import asyncio
from pathlib import Path

import pytest

from bench.comparison import Comparison, Run, Scope
from bench.endpoint import EndpointClient
from bench.ledger import HUB_ON_SQLITE, Ledger
from bench.servers import BenchPostgres
from bench.systems import System


class FakeSystem:
    """A competitor that says why it does not start, or that never gets ready."""

    base_url = "http://127.0.0.1:9"
    token = "none"
    uses_postgres = True
    events_url = None
    instruments = None

    def __init__(self, name: str, *, error: str = "") -> None:
        self.name = name
        self.ledger = Ledger("sqlite:///:memory:", HUB_ON_SQLITE)
        self.processes: dict[str, int] = {}
        self.starting = asyncio.Event()
        self.is_killed = False
        self._error = error

    async def start(self) -> None:
        if self._error:
            raise RuntimeError(self._error)
        self.starting.set()
        await asyncio.Event().wait()

    async def stop(self) -> None:
        raise AssertionError("it was never ready")

    async def kill(self) -> None:
        self.is_killed = True


def scope(*, competitor_seconds: float) -> Scope:
    return Scope(
        repeats=1,
        seconds=0.1,
        warm_seconds=0.1,
        idle_seconds=0.1,
        drain_seconds=1.0,
        crash_seconds=0.0,
        limit_seconds=0.0,
        competitor_seconds=competitor_seconds,
        with_plain_peers=False,
        at_half=False,
        only="DBOS",
    )


def run_of(system: System, *, competitor_seconds: float = 30.0) -> tuple[Run, list[str]]:
    """A run in which `system` stands in for the only competitor, and what was recorded at each time."""
    recorded: list[str] = []

    def record(comparison: Comparison) -> None:
        recorded.append("; ".join(words for each in comparison.figures for words in each.trouble))

    def new_system(_name: str, _folder: Path, _postgres: BenchPostgres, _endpoint: EndpointClient) -> System:
        return system

    limits = scope(competitor_seconds=competitor_seconds)
    return Run(limits, command="python -m bench", record=record, new_system=new_system), recorded


async def test_a_competitor_that_does_not_start_is_noted_and_the_run_goes_on() -> None:
    system = FakeSystem("DBOS, tuned", error="DBOS, tuned does not start:\nNo module named dbos")
    run, recorded = run_of(system)

    await run.measure()

    assert run.comparison.finished_rounds == 1
    assert recorded[0] == "round 1: DBOS, tuned does not start:\nNo module named dbos"
    assert system.is_killed


async def test_a_competitor_that_takes_too_long_is_killed_and_noted() -> None:
    system = FakeSystem("DBOS, tuned")
    run, recorded = run_of(system, competitor_seconds=0.2)

    await run.measure()

    assert recorded[0] == "round 1: not measured within 0.2 s"
    assert system.is_killed


async def test_an_interrupted_run_leaves_nothing_running_and_says_which_rounds_are_complete() -> None:
    system = FakeSystem("DBOS, tuned")
    run, _ = run_of(system)
    measuring = asyncio.create_task(run.measure())
    await asyncio.wait_for(system.starting.wait(), 30)

    measuring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await measuring

    assert system.is_killed
    assert (run.comparison.finished_rounds, run.comparison.rounds) == (0, 1)
    assert run.comparison.servers.startswith("PostgreSQL ")
