"""An operator redrives thousands while intake dies: what was redriven stays so, and a repetition does the rest."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from chassis.access import LIFECYCLE, OPERATIONS
from chassis.testing import TestKeys, eventually
from integrationhub.intake.v1 import dead_letters_pb2 as letters
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from integrationhub.intake.v1.dead_letters_pb2_grpc import DeadLetterServiceStub
from integrationhub.intake.v1.intake_pb2_grpc import IntakeServiceStub
from integrationhub.intake.v1.lifecycle_pb2_grpc import LifecycleServiceStub
from tests.intake import failed, new_request
from tests.intake_process import IntakeProcess

THOUSANDS = 6


@pytest.fixture
async def intake(tmp_path: Path, keys: TestKeys, redis_url: str) -> AsyncIterator[IntakeProcess]:
    process = await IntakeProcess(tmp_path / "intake", keys, redis_url=redis_url).start()
    yield process
    await process.stop()


def database(intake: IntakeProcess) -> Path:
    return intake.folder / "state" / "hub.sqlite3"


def count(path: Path, query: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(query).fetchone()[0])


async def bury_thousand(intake: IntakeProcess, channel: grpc.aio.Channel, name: str) -> None:
    """Make a thousand dead letters."""
    worker = (("authorization", f"Bearer {intake.keys.token('service:orchestrator', LIFECYCLE)}"),)
    wanted = pb.BatchCreateIntegrationRequestsRequest(requests=[new_request(f"{name}-{n}") for n in range(1000)])
    created = await IntakeServiceStub(channel).BatchCreateIntegrationRequests(wanted, metadata=intake.metadata())
    ids = [result.integration_request.id for result in created.results]
    lifecycle = LifecycleServiceStub(channel)
    claimed = await lifecycle.Claim(life.ClaimRequest(worker_id="w1", integration_request_ids=ids), metadata=worker)
    reports = [
        life.Report(
            integration_request_id=result.integration_request_id,
            token=result.lease.token,
            failed=failed("external_unavailable"),
        )
        for result in claimed.results
    ]
    await lifecycle.Report(life.ReportRequest(worker_id="w1", reports=reports), metadata=worker)


async def redrive_all(intake: IntakeProcess, channel: grpc.aio.Channel) -> Any:
    wanted = letters.RedriveDeadLettersRequest(selection=letters.DeadLetterSelection(all=True), reason="It is back.")
    operator = (("authorization", f"Bearer {intake.keys.token('ops', OPERATIONS)}"),)
    return await DeadLetterServiceStub(channel).RedriveDeadLetters(wanted, metadata=operator, timeout=60)


async def test_a_redrive_of_many_that_was_cut_off_goes_on_and_redrives_each_once(intake: IntakeProcess) -> None:
    async with grpc.aio.insecure_channel(intake.address) as channel:
        for number in range(THOUSANDS):
            await bury_thousand(intake, channel, f"E{number}")
        cut_off = asyncio.create_task(redrive_all(intake, channel))
        redriven = "SELECT count(*) FROM dead_letters WHERE state = 'redriven'"
        await eventually(lambda: count(database(intake), redriven))
        await intake.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await cut_off
    before = count(database(intake), redriven)
    await intake.start()
    async with grpc.aio.insecure_channel(intake.address) as channel:
        answer = await redrive_all(intake, channel)
        again = await redrive_all(intake, channel)

    total = THOUSANDS * 1000
    assert 0 < before < total
    assert (answer.redriven, again.redriven) == (total - before, 0)
    assert {result.result for result in answer.results} == {"redriven"}
    assert count(database(intake), redriven) == total
    assert count(database(intake), "SELECT count(*) FROM integration_requests WHERE cycle = 2") == total
    by_whom = "SELECT count(*) FROM integration_request_history WHERE outcome = 'redriven' AND actor = 'ops'"
    assert count(database(intake), by_whom) == total
