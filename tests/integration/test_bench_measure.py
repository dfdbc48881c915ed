"""A measurement says what it did not get: the load is real, the competitor behind it is made up."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from bench.completions import EVENTS, Completions
from bench.endpoint import EndpointClient
from bench.hub import CONNECTIONS, HUB_PROCESSES, MeasuredHub
from bench.ledger import HUB, Ledger
from bench.measure import Measurement
from bench.profile import Instruments
from bench.servers import BenchPostgres, started_module
from console.testing import HubProcess
from tests.edges import edge
from tests.servers import ValkeyServer

#: At 50/s for 0.2 s, with ids from 0.
SENT = 10


class FakeLedger(Ledger):
    """Everything is completed, but only so many completions are told as events."""

    def __init__(self, events_url: str, *, told: int) -> None:
        super().__init__("sqlite:///:memory:", HUB)
        self._events_url = events_url
        self._told = told

    def completed_at(self) -> dict[str, float]:
        with redis.Redis.from_url(self._events_url) as streams:
            for number in range(self._told):
                streams.xadd(EVENTS, {"id": str(number), "type": "IntegrationRequestCompleted"})
        return {str(number): 2e9 for number in range(SENT)}


class FakeSystem:
    """A competitor that runs already."""

    name = "fake"
    token = "none"
    uses_postgres = False
    instruments: Instruments | None = None

    def __init__(self, base_url: str, events_url: str, ledger: Ledger) -> None:
        self.base_url = base_url
        self.events_url: str | None = events_url
        self.ledger = ledger
        self.processes: dict[str, int] = {}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def kill(self) -> None: ...


class FakeHub(HubProcess):
    """Four services that are this process, behind an edge."""

    def __init__(self, folder: Path, edge_url: str) -> None:
        super().__init__(folder)
        self._edge_url = edge_url

    @property
    def base_url(self) -> str:
        return self._edge_url

    def token(self, *_: str, **__: object) -> str:
        return "none"

    def child_pids(self) -> dict[str, int]:
        return dict.fromkeys(HUB_PROCESSES, os.getpid())


@pytest.fixture
async def measurement() -> AsyncIterator[Measurement]:
    async with started_module("bench.endpoint") as (url, pid):
        yield Measurement(BenchPostgres(), EndpointClient(url), pid, drain_seconds=0.5)


async def test_a_completion_whose_event_was_not_read_is_counted(measurement: Measurement, valkey: ValkeyServer) -> None:
    async with edge() as url:
        system = FakeSystem(url, valkey.url, FakeLedger(valkey.url, told=7))

        steady = await measurement.steady(system, per_second=50, seconds=SENT / 50, watched=True)

    assert (steady.missing, steady.unseen) == (0, 3)


async def test_what_was_not_accepted_at_a_fixed_rate_is_counted(measurement: Measurement, valkey: ValkeyServer) -> None:
    async with edge(refused={2, 3}, broken={5}) as url:
        system = FakeSystem(url, valkey.url, FakeLedger(valkey.url, told=SENT))

        steady = await measurement.steady(system, per_second=50, seconds=SENT / 50, watched=True)

    assert (steady.accepted, steady.missing, steady.unseen) == (7, 0, 0)
    assert (steady.refused, steady.broken, steady.lost) == (2, 1, 3)


async def test_a_hub_whose_connections_break_under_full_load_has_lost_them(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    async with edge(broken=range(CONNECTIONS)) as url, Completions(valkey.url) as completions:
        load = await MeasuredHub(FakeHub(tmp_path, url), completions).full_load("test", seconds=30)

    assert (load.accepted, load.missing, load.broken, load.lost) == (0, 0, CONNECTIONS, CONNECTIONS)


async def test_a_hub_that_accepts_nothing_at_a_fixed_rate_has_lost_all(valkey: ValkeyServer, tmp_path: Path) -> None:
    async with edge(refused={0, 1, 2}, broken={3, 4}) as url, Completions(valkey.url) as completions:
        latencies, lost = await MeasuredHub(FakeHub(tmp_path, url), completions).latencies(
            "test", per_second=50, seconds=0.1
        )

    assert (latencies, lost) == ([], 5)
