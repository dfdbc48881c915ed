"""A fault of `make chaos` counts when it has happened: what does not run is not killed, and is waited for."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as NoConnection

from chassis.testing import eventually
from tests.chaos.faults import Action, Fault
from tests.chaos.injector import Injector
from tests.chaos.part import Part

VICTIM = "intake-1"
WAITED_FOR = (Action.KILL, Action.KILL_ALL, Action.EXTERNAL_DOWN, Action.PAUSE, Action.FLUSH, Action.JUNK)


class Victim:
    """A process, or a Valkey, to which something can be done while it runs."""

    def __init__(self) -> None:
        self.runs = False
        self.tries = 0

    def kill(self, _: float) -> bool:
        self.tries += 1
        return self.runs

    async def pause(self, _: float) -> bool:
        return self.kill(0)

    async def flushall(self) -> None:
        if not self.kill(0):
            raise NoConnection

    async def xadd(self, *_: object) -> None:
        await self.flushall()

    async def aclose(self) -> None:
        """Let go of nothing."""


@pytest.fixture
def victim() -> Victim:
    return Victim()


@pytest.fixture
async def injector(victim: Victim) -> AsyncIterator[Injector]:
    hub: Any = SimpleNamespace(
        valkey=SimpleNamespace(url="redis://127.0.0.1:1/0"),
        services=[victim],
        external=victim,
        service=lambda _: victim,
    )
    partners: Any = SimpleNamespace(promises={})
    injector = Injector(hub, partners, seed=1)
    injector._streams = victim  # noqa: SLF001 - as the one of a Valkey that comes and goes
    yield injector
    await injector.close()


@pytest.mark.parametrize("action", WAITED_FOR)
async def test_a_fault_waits_for_a_victim_that_runs_and_counts_only_then(
    injector: Injector, victim: Victim, action: Action
) -> None:
    injecting = asyncio.create_task(injector.inject(Fault(action=action, victim=VICTIM, times=1)))
    await eventually(lambda: victim.tries >= 2)
    assert (injector.injected.total(), injector.kills) == (0, [])

    victim.runs = True
    await injecting

    assert injector.injected == {action: 1}


async def test_a_process_that_does_not_run_is_neither_killed_nor_paused(tmp_path: Path) -> None:
    part = Part(
        VICTIM, kind="intake", module=(), probe="", root=tmp_path, environment={}, log=tmp_path / "intake-1.log"
    )

    assert not part.kill(0.1)
    assert not await part.pause(0.1)
