"""The intake service as a process: ready, seen, drained, killed and started again; on a wrong setting it says which."""

import asyncio
import contextlib
import resource
import signal
import sqlite3
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from chassis.database import BUSY_TIMEOUT_MS
from chassis.testing import TestKeys, eventually
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1.intake_pb2_grpc import IntakeServiceStub
from tests.intake import SERVICES, new_request, refused
from tests.intake_process import IntakeProcess
from tests.servers import PostgresServer

#: The seed's names that intake exports.
SEED = (
    "integration_requests_received_total",
    "integration_requests_persist_duration_ms_bucket",
    'events_published_total{type="IntegrationRequestCreated"}',
    "integration_requests_completed_total",
    'integration_requests_failed_total{reason="external_unavailable"}',
)


@pytest.fixture
async def intake(tmp_path: Path, keys: TestKeys, redis_url: str) -> AsyncIterator[IntakeProcess]:
    """Not started yet, on SQLite in its own folder."""
    process = IntakeProcess(tmp_path / "intake", keys, redis_url=redis_url)
    yield process
    await process.kill()


@pytest.fixture
async def on_either(database_url: str, tmp_path: Path, keys: TestKeys, redis_url: str) -> AsyncIterator[IntakeProcess]:
    """Not started yet; once on each kind of database."""
    process = IntakeProcess(tmp_path / "intake", keys, database_url=database_url, redis_url=redis_url)
    yield process
    await process.kill()


async def test_it_serves_says_so_and_drains(on_either: IntakeProcess) -> None:
    await on_either.start()
    health = {service: await on_either.health(service) for service in ("", *SERVICES)}
    created = await on_either.create("E-1")

    code = await on_either.stop()

    assert set(health.values()) == {"SERVING"}
    assert created.version == 1
    assert code == 0
    messages = [line["message"] for line in on_either.lines()]
    assert messages[-1] == "Service stopped"
    assert "Service draining" in messages  # and behind it what was still to be published
    assert on_either.line("Service ready")["service"] == "intake"


async def test_it_can_be_seen_from_outside(intake: IntakeProcess) -> None:
    await intake.start()
    await intake.create("E-1")
    async with grpc.aio.insecure_channel(intake.address) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]  # no hint for aio
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        answers = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]

    page = await asyncio.to_thread(_read, f"http://{intake.metrics_address}/metrics")

    listed = {service.name for answer in answers for service in answer.list_services_response.service}
    assert listed >= {*SERVICES, "grpc.health.v1.Health"}
    assert [name for name in SEED if f"\n{name}" not in page] == []
    assert "\nintegration_requests_received_total 1.0" in page


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own address
        return str(answer.read().decode())


async def test_what_was_answered_is_there_after_a_crash(on_either: IntakeProcess) -> None:
    await on_either.start()
    async with grpc.aio.insecure_channel(on_either.address) as channel:
        stub = IntakeServiceStub(channel)
        calls = [
            asyncio.ensure_future(
                stub.CreateIntegrationRequest(new_request(f"E-{number}"), metadata=on_either.metadata())
            )
            for number in range(200)
        ]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        await on_either.kill()
        answers = await asyncio.gather(*calls, return_exceptions=True)
    acknowledged = {
        answer.integration_request.external_id for answer in answers if not isinstance(answer, BaseException)
    }

    await on_either.start()

    assert acknowledged
    assert acknowledged <= await on_either.stored()


async def test_draining_finishes_what_is_in_flight_and_refuses_the_rest_so_that_it_may_be_repeated(
    intake: IntakeProcess,
) -> None:
    await intake.start()
    async with grpc.aio.insecure_channel(intake.address) as channel:
        stub = IntakeServiceStub(channel)
        calls = [
            asyncio.ensure_future(stub.CreateIntegrationRequest(new_request(f"E-{n}"), metadata=intake.metadata()))
            for n in range(200)
        ]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        intake.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        code = await intake.ended()
    acknowledged = {
        answer.integration_request.external_id for answer in answers if not isinstance(answer, BaseException)
    }
    refusals = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]

    await intake.start()

    assert code == 0
    assert len(acknowledged) + len(refusals) == 200
    # grpc's core resets what it had not handed out yet when the drain began: that is the CANCELLED
    assert {refusal.code() for refusal in refusals} <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert acknowledged <= await intake.stored()
    await asyncio.gather(*(_create_in_the_end(intake, f"E-{number}") for number in range(200)))
    assert len(await intake.stored()) == 200


async def test_a_taken_port_is_named(intake: IntakeProcess, tmp_path: Path, keys: TestKeys, redis_url: str) -> None:
    await intake.start()
    second = IntakeProcess(tmp_path / "second", keys, redis_url=redis_url)

    for variable, address in (
        ("HUB_INTAKE_ADDRESS", intake.address),
        ("HUB_INTAKE_METRICS_ADDRESS", intake.metrics_address),
    ):
        await second.launch(**{variable: address})

        assert await second.ended() == 1
        assert address in second.line("Service cannot start")["detail"]
        assert "Traceback" not in second.output
    assert await intake.health() == "SERVING"


BAD_SETTINGS: dict[str, tuple[dict[str, str], str]] = {
    "no keys": ({"HUB_JWT_JWKS": "/nowhere/jwks.json"}, "HUB_JWT_JWKS"),
    "no targets": ({"HUB_TARGETS": "/nowhere/targets.toml"}, "HUB_TARGETS"),
    "unknown database": ({"HUB_DATABASE_URL": "mysql://hub:hunter2@h/db"}, "HUB_DATABASE_URL"),
    "no database": ({"HUB_DATABASE_URL": "postgresql://hub:hunter2@127.0.0.1:1/db"}, "HUB_DATABASE_URL"),
    "no number": ({"HUB_MAX_BACKLOG": "many"}, "HUB_MAX_BACKLOG"),
    "open to everybody": ({"HUB_INTAKE_ADDRESS": "0.0.0.0:50051"}, "HUB_ALLOW_PLAINTEXT"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
async def test_a_bad_setting_ends_the_start_with_a_word_that_helps(intake: IntakeProcess, case: str) -> None:
    environment, said = BAD_SETTINGS[case]

    await intake.launch(**environment)

    assert await intake.ended() == 1
    assert said in intake.line("Service cannot start")["detail"]
    assert "Traceback" not in intake.output
    assert "hunter2" not in intake.output


async def test_a_fault_that_nobody_foresaw_ends_the_start_with_one_line_too(
    intake: IntakeProcess, tmp_path: Path
) -> None:
    (tmp_path / "rubbish").write_bytes(b"no database" * 100)

    await intake.launch(HUB_DATABASE_URL=f"sqlite:///{tmp_path}/rubbish")

    assert await intake.ended() == 1
    assert len(intake.output.splitlines()) == 1
    assert "file is not a database" in intake.line("Service cannot start")["exception"]


async def test_two_processes_may_migrate_one_database_at_once(
    empty_postgres_url: str, tmp_path: Path, keys: TestKeys, redis_url: str
) -> None:
    both = [IntakeProcess(tmp_path / name, keys, database_url=empty_postgres_url, redis_url=redis_url) for name in "ab"]

    await asyncio.gather(*(process.start() for process in both))
    await both[0].create("E-1")
    seen = await both[1].stored()

    assert [await process.stop() for process in both] == [0, 0]
    assert seen == {"E-1"}


async def test_no_payload_and_no_token_is_in_the_log(intake: IntakeProcess) -> None:
    await intake.start()
    await intake.create("E-1", payload_json='{"card":"4111-secret-of-the-payload"}')
    token = intake.keys.token("acme", "requests:write")
    async with grpc.aio.insecure_channel(intake.address) as channel:
        stub = IntakeServiceStub(channel)
        bad = new_request("E-2", payload_json='{"card":"4111-secret-of-the-payload"')
        await refused(stub.CreateIntegrationRequest(bad, metadata=(("authorization", f"Bearer {token}"),)))
        stolen = (("authorization", f"Bearer {token}x"),)
        await refused(stub.GetIntegrationRequest(pb.GetIntegrationRequestRequest(id="x"), metadata=stolen))
    await intake.stop()

    assert intake.line("Integration request persisted")["external_id"] == "E-1"
    assert "secret-of-the-payload" not in intake.output
    assert token[:40] not in intake.output
    assert token.rpartition(".")[2] not in intake.output


async def test_a_full_disk_refuses_and_stores_nothing_until_there_is_room(intake: IntakeProcess) -> None:
    await intake.start()
    await intake.create("E-1")
    log = intake.folder / "state" / "hub.sqlite3-wal"
    # the write-ahead log may not grow: the commit itself fails, as on a full disk
    resource.prlimit(intake.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))

    refusals = [
        await refused(intake.create(f"full-{number}", payload_json='{"a":"' + "x" * 9000 + '"}')) for number in range(3)
    ]
    resource.prlimit(intake.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    assert {(refusal.code, refusal.reason) for refusal in refusals} == {("UNAVAILABLE", "STORAGE_UNAVAILABLE")}
    assert await intake.stored() == {"E-1"}
    await eventually(lambda: intake.create("E-2"))
    await intake.kill()
    await intake.start()
    assert await intake.stored() == {"E-1", "E-2"}


async def test_health_tells_of_a_full_disk_until_there_is_room_and_reads_go_on(intake: IntakeProcess) -> None:
    await intake.start()
    await intake.create("E-1")
    before = await intake.health("storage")
    log = intake.folder / "state" / "hub.sqlite3-wal"
    resource.prlimit(intake.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))

    await refused(intake.create("E-2", payload_json='{"a":"' + "x" * 9000 + '"}'))
    assert (before, await intake.health("storage"), await intake.health()) == ("SERVING", "NOT_SERVING", "SERVING")
    await refused(intake.beat())
    rounds = await transactions(intake)
    await eventually(lambda: _have_been(intake, rounds + 3))  # the scheduler's, which find nothing to write
    assert await intake.health("storage") == "NOT_SERVING"
    assert await intake.stored() == {"E-1"}
    resource.prlimit(intake.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    await intake.beat()
    assert await intake.health("storage") == "SERVING"


async def test_health_says_by_itself_that_there_is_room_again(intake: IntakeProcess) -> None:
    await intake.start()
    await intake.create("E-1")
    log = intake.folder / "state" / "hub.sqlite3-wal"
    resource.prlimit(intake.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))

    await refused(intake.create("E-2"))
    await eventually(lambda: _has_probed_in_vain(intake))
    while_full = await intake.health("storage")
    resource.prlimit(intake.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    assert while_full == "NOT_SERVING"
    await eventually(lambda: _takes_writes(intake))  # without a create, and without a worker
    assert await intake.stored() == {"E-1"}


def _has_probed_in_vain(intake: IntakeProcess) -> bool:
    return any(line.get("loop") == "storage" and line["message"] == "Loop step failed" for line in intake.lines())


async def _takes_writes(intake: IntakeProcess) -> bool:
    return await intake.health("storage") == "SERVING"


async def transactions(intake: IntakeProcess) -> int:
    """How many write transactions there were, whatever became of them."""
    page = await asyncio.to_thread(_read, f"http://{intake.metrics_address}/metrics")
    return int(float(page.partition('\nbatch_items_count{batch="commit"} ')[2].partition("\n")[0]))


async def _have_been(intake: IntakeProcess, count: int) -> bool:
    return await transactions(intake) >= count


async def test_a_database_locked_by_another_process_refuses_after_the_busy_time_out(intake: IntakeProcess) -> None:
    await intake.start()
    await intake.create("E-1")
    path = intake.folder / "state" / "hub.sqlite3"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as backup:
        backup.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        refusal = await refused(intake.create("E-2"))
        waited = time.monotonic() - started
        stored_meanwhile = await intake.stored()
        backup.execute("ROLLBACK")
    await _create_in_the_end(intake, "E-3")

    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "STORAGE_UNAVAILABLE")
    assert BUSY_TIMEOUT_MS / 1000 <= waited < 8
    assert refusal.retry_after_seconds == 2
    assert stored_meanwhile == {"E-1"}
    assert await intake.stored() == {"E-1", "E-3"}


async def test_a_database_that_goes_away_and_comes_back_loses_nothing(
    tmp_path: Path, keys: TestKeys, redis_url: str
) -> None:
    server = PostgresServer().start()
    intake = IntakeProcess(tmp_path / "intake", keys, database_url=server.create_database("hub"), redis_url=redis_url)
    try:
        await intake.start()
        await intake.create("E-1")
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'hub'")
        await _create_in_the_end(intake, "E-2")
        await asyncio.to_thread(server.kill)

        refusal = await refused(intake.create("E-3"))
        await asyncio.to_thread(server.start)
        await _create_in_the_end(intake, "E-4")

        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "STORAGE_UNAVAILABLE")
        assert await intake.stored() == {"E-1", "E-2", "E-4"}
    finally:
        await intake.kill()
        server.stop()


async def _create_in_the_end(intake: IntakeProcess, external_id: str) -> None:
    """Repeat a create as a partner does, until it is accepted or known to be there."""

    async def is_accepted() -> bool:
        try:
            await intake.create(external_id)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ALREADY_EXISTS):
                raise
            return error.code() is grpc.StatusCode.ALREADY_EXISTS
        return True

    await eventually(is_accepted, 20, every=0.1)
