"""The benchmark's own parts count rightly: the load generator, and the external system at the other end."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bench.backlog import pile_up
from bench.endpoint import EndpointClient
from bench.load import Partners
from tests.edges import edge


@pytest.fixture
def endpoint() -> Iterator[EndpointClient]:
    """A running external system."""
    with subprocess.Popen([sys.executable, "-m", "bench.endpoint"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield EndpointClient(f"http://127.0.0.1:{int(process.stdout.readline())}")
        process.kill()


async def test_every_accepted_request_is_counted_once() -> None:
    async with edge() as url:
        sent = await Partners(url, "token", prefix="test", connections=4).send_steadily(per_second=500, seconds=0.2)

    assert set(sent.accepted_at) == {str(number) for number in range(100)}
    assert (sent.refused, sent.broken) == ({}, 0)


async def test_a_steady_load_opens_a_connection_anew_where_the_server_has_closed_it() -> None:
    async with edge(close_after=1) as url:
        sent = await Partners(url, "token", prefix="test", connections=1).send_steadily(per_second=50, seconds=0.2)

    assert len(sent.accepted_at) == 10


async def test_a_full_load_stops_at_a_broken_connection_and_says_so() -> None:
    async with edge() as url:
        pass

    sent = await Partners(url, "token", prefix="test", connections=2).send_flat_out(seconds=30)

    assert (sent.accepted_at, sent.broken) == ({}, 2)


async def test_one_broken_connection_stops_its_own_sender_alone() -> None:
    async with edge(broken={5}) as url:
        sent = await Partners(url, "token", prefix="test", connections=2).send_flat_out(seconds=0.5)

    assert sent.broken == 1
    assert len(sent.accepted_at) > 50


async def test_a_backlog_that_is_refused_is_not_waited_for() -> None:
    async with edge(refused=range(3, 1_000_000)) as url:
        partners = Partners(url, "token", prefix="test", connections=1)

        assert await pile_up(partners, 2) == 3
        with pytest.raises(RuntimeError, match=r"0 of 5 are accepted, and no more: refused \{429: "):
            await pile_up(partners, 5)


async def test_the_external_system_counts_calls_and_distinct_keys_since_the_last_reset(
    endpoint: EndpointClient,
) -> None:
    for key in (b"a", b"b", b"a"):
        await asyncio.to_thread(post, endpoint.url, key)
    counted = await asyncio.to_thread(endpoint.counts)
    await asyncio.to_thread(endpoint.reset)

    assert counted == (3, 2)
    assert await asyncio.to_thread(endpoint.counts) == (0, 0)


async def test_the_external_system_answers_after_the_delay(endpoint: EndpointClient) -> None:
    await asyncio.to_thread(endpoint.delay, 60)
    loop = asyncio.get_running_loop()
    started = loop.time()

    await asyncio.to_thread(post, endpoint.url, b"a")

    assert loop.time() - started >= 0.06


def post(url: str, key: bytes) -> None:
    from urllib.request import Request, urlopen

    request = Request(f"{url}/orders", data=b"{}", headers={"Idempotency-Key": key.decode()}, method="POST")  # noqa: S310 - our own address
    with urlopen(request, timeout=5) as answer:  # noqa: S310 - the same
        answer.read()
