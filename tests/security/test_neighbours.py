"""No attack holds another caller up for more than 100 ms: each family of attacks beside a neighbour.

A stall is what a call takes longer than the longest one just before, when nobody attacked. One that an attack causes
is there every time; one of a busy machine is not. So the least of a few rounds counts.
"""

import asyncio
import contextlib
import gzip
import os
import signal
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import grpc
import httpx
import pytest
import redis.asyncio as redis

from chassis.settings import split_address
from chassis.testing import eventually
from console.testing import HubProcess
from integrationhub.intake.v1.intake_pb2 import ListIntegrationRequestsRequest
from integrationhub.intake.v1.intake_pb2_grpc import IntakeServiceStub
from tests.security.attack import PATH, STALL_SECONDS, Forge, create, send_raw
from tests.security.beside import Beside
from tests.security.test_grpc import (
    BATCH_CREATE,
    CREATE,
    FRAMES,
    POISON,
    PREFACE,
    SETTINGS,
    WORK,
    credentials,
    nothings,
    order,
    raw,
)
from tests.security.test_http import CORRELATION_IDS, HEALTH, PATHS, RAW
from tests.security.test_json import BOMBS, NAMES, WIDE
from tests.security.test_targets import HOSTILE, deliver
from tests.security.test_tokens import BAD, strange

ROUNDS = 5
#: Calls of an attacker that are in flight at once.
AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacker:
    """Somebody with a good token of their own."""

    hub: HubProcess
    forge: Forge

    async def post_all(self, bodies: Sequence[bytes], **headers: str) -> None:
        """Send every body, some at once; what is answered is for the other tests to judge."""
        token = self.forge.good(sub=f"attacker-{uuid.uuid4()}", rate_per_minute=0)
        defaults = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        async with httpx.AsyncClient(base_url=self.hub.base_url, headers={**defaults, **headers}, timeout=20) as client:
            await at_once([partial(client.post, PATH, content=body) for body in bodies])

    async def get_all(self, tokens: Sequence[str]) -> None:
        """List with every token."""
        async with httpx.AsyncClient(base_url=self.hub.base_url, timeout=20) as client:
            headers = [{"Authorization": f"Bearer {token}".strip()} for token in tokens]
            await at_once([partial(client.get, PATH, headers=header) for header in headers])


async def at_once(calls: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """Make all calls, AT_ONCE of them at a time; one that is cut off has been answered."""
    places = asyncio.Semaphore(AT_ONCE)

    async def make(call: Callable[[], Awaitable[object]]) -> None:
        async with places:
            with contextlib.suppress(httpx.HTTPError, grpc.aio.AioRpcError, OSError, TimeoutError):
                await call()

    await asyncio.gather(*(make(call) for call in calls))


async def bad_tokens(attacker: Attacker) -> None:
    await attacker.get_all([make(attacker.forge) for make in BAD.values()])


async def new_key_ids(attacker: Attacker) -> None:
    await attacker.get_all([strange(kid=f"new-{uuid.uuid4()}")(attacker.forge) for _ in range(300)])


async def tokens_over_grpc(attacker: Attacker) -> None:
    async with grpc.aio.insecure_channel(attacker.hub.setting("intake_address")) as channel:
        call = IntakeServiceStub(channel).ListIntegrationRequests
        headers = [(("authorization", f"Bearer {make(attacker.forge)}"),) for make in BAD.values()]
        message = ListIntegrationRequestsRequest()
        await at_once([partial(call, message, metadata=header, timeout=20) for header in headers])


async def json_bombs(attacker: Attacker) -> None:
    await attacker.post_all(list(BOMBS.values()))


async def wide_json(attacker: Attacker) -> None:
    await attacker.post_all([create(f"W-{uuid.uuid4()}", payload) for payload in WIDE.values()])


async def bad_names(attacker: Attacker) -> None:
    await attacker.post_all([create(name) for name in NAMES.values()] * 3)


async def gzip_bombs(attacker: Attacker) -> None:
    await attacker.post_all([gzip.compress(b"[" * 20_000_000)] * 5, **{"Content-Encoding": "gzip"})


async def a_burst(attacker: Attacker) -> None:
    await attacker.post_all([create(f"B-{number}-{uuid.uuid4()}") for number in range(200)])


async def wrong_http(attacker: Attacker) -> None:
    await at_once([partial(send_raw, attacker.hub, data, end=True) for data in RAW.values()])


async def strange_paths_and_ids(attacker: Attacker) -> None:
    heads = [f"GET {path} HTTP/1.1\r\nHost: hub\r\n\r\n".encode() for path in PATHS.values()]
    heads += [HEALTH + b"X-Correlation-ID: " + value + b"\r\n\r\n" for value in CORRELATION_IDS.values()]
    await at_once([partial(send_raw, attacker.hub, head) for head in heads])


async def idle_connections(attacker: Attacker) -> None:
    host, port = split_address(attacker.hub.setting("gateway_address"))
    writers: list[asyncio.StreamWriter] = []
    for _ in range(40):
        opened = await asyncio.gather(*(asyncio.open_connection(host, port) for _ in range(50)))
        writers += [writer for _, writer in opened]
    for writer in writers:
        writer.close()


async def answers_left_unread(attacker: Attacker) -> None:
    host, port = split_address(attacker.hub.setting("gateway_address"))
    _, writer = await asyncio.open_connection(host, port)
    token = attacker.forge.good()
    writer.write(f"GET {PATH}?limit=250 HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {token}\r\n\r\n".encode() * 2000)
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(2):
            await writer.drain()
            await asyncio.sleep(2)  # it stays, and reads nothing
    writer.transport.abort()


async def http_2_frames(attacker: Attacker) -> None:
    host, port = split_address(attacker.hub.setting("intake_address"))

    async def send(data: bytes) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                writer.write(PREFACE + SETTINGS + data)
                await writer.drain()
                await reader.read(65_536)
        writer.transport.abort()

    await at_once([partial(send, data) for data in FRAMES.values()])


async def huge_messages(attacker: Attacker) -> None:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 1 << 20)]
    huge = order(payload_json="x" * (17 << 20)).SerializeToString()
    large = order(payload_json='{"a":"' + "x" * (2 << 20) + '"}').SerializeToString()
    async with grpc.aio.insecure_channel(attacker.hub.setting("intake_address"), options=options) as channel:
        call, metadata = raw(channel, CREATE), credentials(attacker.forge)
        long = (*metadata, ("x-long", "x" * 40_000))
        calls = [(huge, metadata), (large, metadata), (b"\xff" * 1000, metadata), (b"", long)] * 3
        await at_once([partial(call, message, metadata=with_, timeout=20) for message, with_ in calls])


async def batches_of_nothing(attacker: Attacker) -> None:
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(attacker.hub.setting("intake_address"), options=options) as channel:
        call, metadata = raw(channel, BATCH_CREATE), credentials(attacker.forge)
        await at_once([partial(call, batch, metadata=metadata, timeout=20) for batch in nothings().values()])


async def poisoned_entries(attacker: Attacker) -> None:
    async with redis.Redis.from_url(attacker.hub.redis_url) as client:
        for fields in POISON.values():
            await client.xadd(WORK, fields)  # type: ignore[arg-type]  # redis-py wants an invariant dict

        async def is_empty() -> bool:
            return await client.xlen(WORK) == 0

        assert await eventually(is_empty, 60, every=0.05)


async def hostile_answers(attacker: Attacker) -> None:
    async with (
        httpx.AsyncClient(base_url=attacker.hub.simulator_url, timeout=20) as simulator,
        grpc.aio.insecure_channel(attacker.hub.setting("adapter_address")) as adapter,
    ):
        for fault in HOSTILE.values():
            await deliver(adapter, attacker.forge, simulator, fault)


FAMILIES: tuple[Callable[[Attacker], Awaitable[None]], ...] = (
    *(bad_tokens, new_key_ids, tokens_over_grpc),
    *(json_bombs, wide_json, bad_names, gzip_bombs, a_burst),
    *(wrong_http, strange_paths_and_ids, idle_connections, answers_left_unread),
    *(http_2_frames, huge_messages, batches_of_nothing, poisoned_entries, hostile_answers),
)


@pytest.fixture(scope="module")
def beside(hub: HubProcess) -> Iterator[Beside]:
    neighbour = Beside(hub).start()
    yield neighbour
    neighbour.stop()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
async def test_no_attack_holds_a_neighbour_up(
    hub: HubProcess, forge: Forge, beside: Beside, family: Callable[[Attacker], Awaitable[None]]
) -> None:
    attacker = Attacker(hub=hub, forge=forge)
    stalls: list[float] = []
    while len(stalls) < ROUNDS and min(stalls, default=STALL_SECONDS) >= STALL_SECONDS:
        in_peace = await beside.worst_in_peace()
        stalls.append(await beside.worst_during(lambda: family(attacker)) - in_peace)

    assert min(stalls) < STALL_SECONDS, stalls


async def test_a_neighbour_notices_a_stall(hub: HubProcess, beside: Beside) -> None:
    gateway = hub.child_pids()["gateway"]

    async def stall() -> None:
        os.kill(gateway, signal.SIGSTOP)
        await asyncio.sleep(2 * STALL_SECONDS)
        os.kill(gateway, signal.SIGCONT)

    assert await beside.worst_during(stall) > 1.5 * STALL_SECONDS
