"""One hub for all the attacks, started as `make run` starts it; after each it must still be there."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc
import httpx
import pytest

from chassis.testing import eventually
from console.testing import HubProcess
from tests.security.attack import Forge, Neighbour, memory_mb

GROWTH_MB = 50.0
#: What was accepted is still being delivered when an attack is over; what is kept after that is growth.
SETTLE_SECONDS = 30.0
SERVICES = ("gateway", "intake", "orchestrator", "adapter")


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """The hub with its defaults, but for folder and ports."""
    with asyncio.Runner() as runner:
        running = runner.run(HubProcess(tmp_path_factory.mktemp("hub")).start())
        yield running
        runner.run(running.stop())


@pytest.fixture(scope="session")
def before(hub: HubProcess) -> tuple[dict[str, int], dict[str, float]]:
    """The hub's processes and the memory of each before the first attack, once they have worked a little."""
    with asyncio.Runner() as runner:
        runner.run(_warm_up(hub))
    pids = {name: pid for name, pid in hub.child_pids().items() if name in SERVICES}
    return pids, {name: memory_mb({name: pid}) for name, pid in pids.items()}


@pytest.fixture(autouse=True)
async def hub_lives(hub: HubProcess, before: tuple[dict[str, int], dict[str, float]]) -> AsyncIterator[None]:
    """No attack ends a process, makes the hub unready or grow by more than 50 MB."""
    megabytes = memory_mb(before[0])
    yield
    assert {name: pid for name, pid in hub.child_pids().items() if name in SERVICES} == before[0]
    await eventually(lambda: memory_mb(before[0]) - megabytes < GROWTH_MB, SETTLE_SECONDS, every=0.5)
    async with httpx.AsyncClient(base_url=hub.base_url, timeout=20) as client:
        assert (await client.get("/readyz")).status_code == 200


@pytest.fixture(scope="session")
def forge(hub: HubProcess) -> Forge:
    """Makes tokens of every kind."""
    return Forge(hub)


@pytest.fixture
async def anybody(hub: HubProcess) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token."""
    async with httpx.AsyncClient(base_url=hub.base_url, timeout=20) as client:
        yield client


@pytest.fixture
async def mallory(hub: HubProcess, request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    """A partner with a good token, new for each test: the rate limit of one is not another's."""
    name = f"mallory-{abs(hash(request.node.nodeid)) % 10**9}"
    header = {"Authorization": f"Bearer {hub.token(name)}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=hub.base_url, headers=header, timeout=20) as client:
        yield client


@pytest.fixture
async def intake(hub: HubProcess) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to intake, which internal partners reach too."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 1 << 20)]
    async with grpc.aio.insecure_channel(hub.setting("intake_address"), options=options) as channel:
        yield channel


@pytest.fixture
async def neighbour(hub: HubProcess) -> AsyncIterator[Neighbour]:
    """Somebody who must not suffer."""
    there = Neighbour(hub)
    yield there
    await there.client.aclose()


async def _warm_up(hub: HubProcess) -> None:
    there = Neighbour(hub)
    await there.waits(100)
    await there.client.aclose()
