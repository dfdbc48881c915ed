"""A18 and A19: gRPC and HTTP/2 that are wrong on purpose, and stream entries that nobody of ours wrote."""

import asyncio
import contextlib
import struct
from typing import Any

import grpc
import httpx
import pytest
import redis.asyncio as redis

from chassis.settings import split_address
from chassis.testing import eventually
from console.testing import HubProcess
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1.intake_pb2_grpc import IntakeServiceStub
from tests.security.attack import (
    ORDER,
    PATH,
    STALL_FACTOR,
    STALL_SECONDS,
    Forge,
    Neighbour,
    assert_refused,
    create,
    memory_mb,
)

CREATE = "/integrationhub.intake.v1.IntakeService/CreateIntegrationRequest"
BATCH_CREATE = "/integrationhub.intake.v1.IntakeService/BatchCreateIntegrationRequests"
WORK = "hub:work:TotvsProtheus"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def order(**fields: str) -> pb.CreateIntegrationRequestRequest:
    request = pb.CreateIntegrationRequestRequest(
        external_id="E", source_system="SAP", target_system="TotvsProtheus", payload_json=ORDER
    )
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def raw(channel: grpc.aio.Channel, method: str) -> Any:
    """A method that takes and gives bytes as they are."""
    return channel.unary_unary(method)


def credentials(forge: Forge, subject: str = "grpc-mallory") -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {forge.good(sub=subject)}"),)


@pytest.mark.parametrize(
    "message",
    [
        order(payload_json="x" * (17 << 20)).SerializeToString(),
        order(payload_json='{"a":"' + "x" * (2 << 20) + '"}').SerializeToString(),
        b"\xff" * 1000,
        b"\x0a\xff\xff\xff\xff\x7f",
        b"\x0a\x02\xff\xfe",
        b"\x00",
        order(external_id="A\r\nB").SerializeToString(),
        order(external_id="A" * 10_000).SerializeToString(),
        order(target_system="../../etc/passwd").SerializeToString(),
        order(payload_json='{"a":NaN}').SerializeToString(),
        order(payload_json='{"a":1,"a":1}').SerializeToString(),
        order(payload_json="[" * 100_000).SerializeToString(),
        order(payload_json="").SerializeToString(),
    ],
    ids=[
        *("of_17_mb", "payload_of_2_mb", "rubbish", "length_beyond_the_end", "not_utf8", "zero_tag"),
        *("id_with_line_break", "id_of_10_kb", "target_as_a_path", "nan", "key_twice", "deep", "no_payload"),
    ],
)
async def test_a_message_made_to_hurt_is_refused(intake: grpc.aio.Channel, forge: Forge, message: bytes) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await raw(intake, CREATE)(message, metadata=credentials(forge), timeout=20)

    assert_refused(refused.value, "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")


async def test_unknown_fields_of_a_message_are_passed_over(intake: grpc.aio.Channel, forge: Forge) -> None:
    unknown = order(external_id="unknown-fields").SerializeToString() + b"\xfa\x3e\x03abc"

    answer = await raw(intake, CREATE)(unknown, metadata=credentials(forge), timeout=20)

    assert pb.CreateIntegrationRequestResponse.FromString(answer).integration_request.payload_json == ""


@pytest.mark.parametrize(
    "method",
    [
        "/integrationhub.intake.v1.IntakeService/DropEverything",
        "/integrationhub.intake.v1.Nothing/Create",
        "/../etc/passwd",
        "/",
        CREATE.lower(),
    ],
)
async def test_a_method_that_is_none_is_not_found(intake: grpc.aio.Channel, forge: Forge, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await raw(intake, method)(b"", metadata=credentials(forge), timeout=20)

    assert_refused(refused.value, "UNIMPLEMENTED", "PERMISSION_DENIED", "UNAUTHENTICATED")


@pytest.mark.parametrize(
    "metadata",
    [
        (("x-long", "x" * 40_000),),
        tuple((f"x-{number}", "1") for number in range(5_000)),
        (("x-bytes-bin", bytes(range(256)) * 20),),
        (("x-correlation-id", "a" * 4096),),
        (("x-correlation-id", "a b<script>"),),
        (("traceparent", "00-" + "z" * 32 + "-" + "0" * 16 + "-01"),),
        (("authorization", "Bearer x"), ("authorization", "Bearer y")),
        (("grpc-timeout", "99999999H"),),
    ],
    ids=["of_40_kb", "many", "binary", "long_id", "unsafe_id", "bad_trace", "two_tokens", "timeout"],
)
async def test_metadata_made_to_hurt_is_refused_or_passed_over(
    intake: grpc.aio.Channel, forge: Forge, metadata: tuple[tuple[str, str | bytes], ...]
) -> None:
    call = IntakeServiceStub(intake).ListIntegrationRequests(
        pb.ListIntegrationRequestsRequest(), metadata=(*credentials(forge), *metadata), timeout=20
    )
    try:
        await call
        sent_back = dict(await call.initial_metadata())
        assert len(str(sent_back["x-correlation-id"])) == 36
    except grpc.aio.AioRpcError as error:
        assert_refused(error, "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("field", "value"), [("page_size", -1), ("page_size", 251), ("page_size", 2**31 - 1), ("status", 99)]
)
async def test_a_page_that_is_none_is_refused(intake: grpc.aio.Channel, forge: Forge, field: str, value: int) -> None:
    message = pb.ListIntegrationRequestsRequest()
    setattr(message, field, value)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await IntakeServiceStub(intake).ListIntegrationRequests(message, metadata=credentials(forge), timeout=20)

    assert_refused(refused.value, "INVALID_ARGUMENT")


async def test_a_batch_of_too_many_is_refused(intake: grpc.aio.Channel, forge: Forge) -> None:
    batch = pb.BatchCreateIntegrationRequestsRequest(requests=[order()] * 1001)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await IntakeServiceStub(intake).BatchCreateIntegrationRequests(batch, metadata=credentials(forge), timeout=20)

    assert_refused(refused.value, "INVALID_ARGUMENT")


A_NAME = b"\x0a\x01a"
NAMES_OF_TARGETS = (1, pb.CreateIntegrationRequestRequest.PARTNER_LIMITS_FIELD_NUMBER, 2)


def within(message: bytes, *numbers: int) -> bytes:
    """The same inside of fields of these numbers, the outermost first."""
    for number in reversed(numbers):
        length = len(message)
        message = (
            bytes([number << 3 | 2, *(length >> 7 * place & 0x7F | 0x80 for place in range(3)), length >> 21]) + message
        )
    return message


def nothings() -> dict[str, bytes]:
    """Batches of millions of what costs hundreds of bytes each when it is read."""
    return {
        "empty items": b"\x0a\x00" * (2 << 20),
        "items with an unknown field": b"\x0a\x02\x58\x01" * (2 << 20),
        "items with a long tag": b"\x8a\x00\x00" * (2 << 20),
        "names of targets": within(A_NAME * (4 << 20), *NAMES_OF_TARGETS),
    }


def test_names_are_where_the_next_test_puts_them() -> None:
    [item] = pb.BatchCreateIntegrationRequestsRequest.FromString(within(A_NAME * 2, *NAMES_OF_TARGETS)).requests

    assert item.partner_limits.targets.names == ["a", "a"]


@pytest.mark.parametrize("name", nothings())
async def test_a_batch_of_a_million_of_nothing_is_refused_unread(
    hub: HubProcess, intake: grpc.aio.Channel, forge: Forge, name: str
) -> None:
    pids = {"intake": hub.child_pids()["intake"]}
    before = memory_mb(pids)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await raw(intake, BATCH_CREATE)(nothings()[name], metadata=credentials(forge), timeout=20)

    assert_refused(refused.value, "INVALID_ARGUMENT")
    assert memory_mb(pids) - before < 64


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


SETTINGS = frame(4, 0, 0)
#: Indexed and literal fields by hand: POST, http, a path, no Huffman coding.
HEADERS = b"\x83\x86\x44\x0a/nothing/x\x41\x03hub\x0f\x10\x10application/grpc\x40\x02te\x08trailers"

FRAMES = {
    "rapid_reset": b"".join(
        frame(1, 4, stream, HEADERS) + frame(3, 0, stream, struct.pack(">I", 8)) for stream in range(1, 20_001, 2)
    ),
    "ping_flood": frame(6, 0, 0, b"12345678") * 20_000,
    "settings_flood": SETTINGS * 20_000,
    "streams_without_end": b"".join(frame(1, 4, stream, HEADERS) for stream in range(1, 20_001, 2)),
    "headers_without_end": frame(1, 0, 1, HEADERS) + frame(9, 0, 1, b"\x40\x01a\x01b" * 2000) * 100,
    "cut_off_frame": frame(1, 4, 1, HEADERS) + b"\x00\xff\xff\x00\x00",
    "frame_of_16_mb": b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + b"x" * 100_000,
    "window_overflow": frame(8, 0, 0, struct.pack(">I", 0x7FFFFFFF)) * 2,
    "zero_window": frame(4, 0, 0, struct.pack(">HI", 4, 0)) + frame(1, 5, 1, HEADERS),
    "priority_on_itself": frame(2, 0, 1, struct.pack(">IB", 1, 16)) * 1000,
    "rubbish": bytes(range(256)) * 100,
    "hpack_rubbish": frame(1, 4, 1, b"\xff" * 1000),
    "even_stream": frame(1, 4, 2, HEADERS),
    "http_1": b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n",
}


@pytest.mark.parametrize("service", ["intake", "adapter"])
@pytest.mark.parametrize("data", FRAMES.values(), ids=FRAMES)
async def test_http_2_frames_made_to_hurt_hold_nobody_up(
    hub: HubProcess, neighbour: Neighbour, data: bytes, service: str
) -> None:
    before = await neighbour.waits(5)
    host, port = split_address(hub.setting(f"{service}_address"))
    reader, writer = await asyncio.open_connection(host, port)
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(5):
            writer.write(PREFACE + SETTINGS + data)
            await writer.drain()
            await reader.read(65_536)

    during = await neighbour.waits(9)

    writer.transport.abort()
    assert during < max(STALL_SECONDS, STALL_FACTOR * before)


POISON: dict[str, dict[str | bytes, str | bytes]] = {
    "no_fields_of_ours": {"a": "b"},
    "no_id": {"type": "IntegrationRequestCreated", "data": "{}"},
    "id_of_nobody": {"type": "IntegrationRequestCreated", "id": "00000000-0000-4000-8000-000000000000"},
    "id_no_uuid": {"id": "../../etc/passwd"},
    "id_with_nul": {"id": "a\x00b"},
    "id_of_1_mb": {"id": "x" * (1 << 20)},
    "id_not_utf8": {b"id": b"\xff\xfe\xfd"},
    "data_no_json": {"id": "1", "data": "{" * 10_000},
    "thousand_fields": {f"f{number}": "x" for number in range(1000)},
    "empty": {"": ""},
}


@pytest.mark.parametrize("fields", POISON.values(), ids=POISON)
async def test_a_poisoned_stream_entry_is_taken_out_and_nothing_stops(
    hub: HubProcess, mallory: httpx.AsyncClient, fields: dict[str | bytes, str | bytes]
) -> None:
    async with redis.Redis.from_url(hub.redis_url) as client:
        await client.xadd(WORK, fields)  # type: ignore[arg-type]  # redis-py wants an invariant dict

        async def is_empty() -> bool:
            return await client.xlen(WORK) == 0

        assert await eventually(is_empty, 60, every=0.1)
    await assert_work_is_done(mallory)


@pytest.mark.parametrize("stream", [WORK, "hub:events", "hub:dlq"])
async def test_a_stream_key_of_another_type_stops_nothing(
    hub: HubProcess, mallory: httpx.AsyncClient, stream: str
) -> None:
    async with redis.Redis.from_url(hub.redis_url) as client:
        await client.set(stream, "no stream")  # in the place of what was there

    await assert_work_is_done(mallory)


async def assert_work_is_done(partner: httpx.AsyncClient) -> None:
    accepted = await partner.post(PATH, content=create("after"))

    async def has_ended() -> bool:
        return str((await partner.get(accepted.headers["Location"])).json()["status"]) == "Completed"

    assert await eventually(has_ended, 60, every=0.1)


async def test_redis_wants_its_password(hub: HubProcess) -> None:
    async with redis.Redis(host="127.0.0.1", port=int(hub.setting("redis_port"))) as stranger:
        with pytest.raises(redis.AuthenticationError):
            await stranger.ping()
