"""Payloads at rest: sealed where a key ring is named, readable across rotations, useless to whoever moves them."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from chassis.errors import ConfigurationError, PayloadNotReadable
from chassis.testing import TestKeys
from intake_service.store.payloads import PayloadKeys, read_payload_keys
from intake_service.store.tables import dead_letters, integration_requests, payload_versions
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from integrationhub.intake.v1.dead_letters_pb2 import (
    DeadLetterSelection,
    GetDeadLetterRequest,
    GetDeadLetterResponse,
    RedriveDeadLettersRequest,
)
from tests.intake import PAYLOAD, TTL_SECONDS, IntakeUnderTest, failed, refused, running_intake

SECRET = "Empresa ABC"
CORRECTED = '{"orderId":"2","customer":"Empresa XYZ","amount":1.10}'


def ring(folder: Path, current: str, **keys: bytes) -> str:
    """Write a key ring and give the reference to it."""
    encoded = {name: base64.b64encode(key).decode() for name, key in keys.items()}
    (folder / f"{current}.json").write_text(json.dumps({"current": current, "keys": encoded}))
    return f"file:{folder / f'{current}.json'}"


async def stored_payload(hub: IntakeUnderTest, request_id: str) -> str:
    (row,) = [row for row in await hub.rows(integration_requests) if row["id"] == request_id]
    return str(row["payload_json"])


@asynccontextmanager
async def without_the_key_of_one(
    url: str, keys: TestKeys, folder: Path
) -> AsyncIterator[tuple[IntakeUnderTest, pb.IntegrationRequest]]:
    """An intake whose ring lacks the key of one request, which an earlier one has stored."""
    async with running_intake(url, keys, payload_keys=ring(folder, "one", one=os.urandom(32))) as earlier:
        lost = await earlier.create("lost")
    async with running_intake(url, keys, payload_keys=ring(folder, "two", two=os.urandom(32))) as hub:
        yield hub, lost


async def test_a_payload_is_sealed_in_the_database_and_whole_for_those_who_may_read(
    database_url: str, keys: TestKeys, tmp_path: Path
) -> None:
    async with running_intake(database_url, keys, payload_keys=ring(tmp_path, "one", one=os.urandom(32))) as hub:
        created = await hub.create()
        at_rest = await stored_payload(hub, created.id)
        read = await hub.get(created.id)
        lease = await hub.lease(created.id)

    assert at_rest.startswith("sealed1:one:")
    assert SECRET not in at_rest
    assert read.payload_json == lease.integration_request.payload_json == PAYLOAD


async def test_old_payloads_stay_readable_when_the_key_is_changed(
    sqlite_url: str, keys: TestKeys, tmp_path: Path
) -> None:
    first, second = os.urandom(32), os.urandom(32)
    async with running_intake(sqlite_url, keys) as hub:
        plain = await hub.create("plain")
    async with running_intake(sqlite_url, keys, payload_keys=ring(tmp_path, "one", one=first)) as hub:
        old = await hub.create("old")
    async with running_intake(sqlite_url, keys, payload_keys=ring(tmp_path, "two", one=first, two=second)) as hub:
        new = await hub.create("new")
        payloads = [(await hub.get(each.id)).payload_json for each in (plain, old, new)]
        at_rest = [(await stored_payload(hub, each.id))[:12] for each in (plain, old, new)]

    assert payloads == [PAYLOAD] * 3
    assert at_rest == [PAYLOAD[:12], "sealed1:one:", "sealed1:two:"]


async def test_a_missing_key_is_said_and_nothing_else_suffers(sqlite_url: str, keys: TestKeys, tmp_path: Path) -> None:
    async with without_the_key_of_one(sqlite_url, keys, tmp_path) as (hub, lost):
        refusal = await refused(hub.get(lost.id))
        other = await hub.create("other")

        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "PAYLOAD_NOT_READABLE")
        assert (await hub.get(other.id)).payload_json == PAYLOAD


async def test_the_log_names_the_key_that_is_missing_and_the_caller_is_told_of_no_setting(
    sqlite_url: str, keys: TestKeys, tmp_path: Path
) -> None:
    async with without_the_key_of_one(sqlite_url, keys, tmp_path) as (hub, lost):
        with capture_logs() as lines:
            refusal = await refused(hub.get(lost.id))
            await hub.claim(lost.id)

    said = [line for line in lines if line["event"] == "Payload not readable"]
    assert [(line["request_id"], line["key"], line["setting"]) for line in said] == [
        (lost.id, "one", "HUB_PAYLOAD_KEYS")
    ] * 2
    assert "HUB_" not in refusal.message


async def test_what_became_of_a_request_is_told_without_its_key(
    database_url: str, keys: TestKeys, tmp_path: Path
) -> None:
    async with without_the_key_of_one(database_url, keys, tmp_path) as (hub, lost):
        wanted = pb.GetIntegrationRequestRequest(id=lost.id, without_payload=True)
        answer = await hub.requests.GetIntegrationRequest(wanted, metadata=hub.partner())

    assert answer.integration_request.status == pb.INTEGRATION_REQUEST_STATUS_RECEIVED
    assert answer.integration_request.payload_json == ""


async def test_a_dead_letter_is_shown_without_the_payload_that_cannot_be_opened(
    database_url: str, keys: TestKeys, tmp_path: Path
) -> None:
    async with running_intake(database_url, keys, payload_keys=ring(tmp_path, "one", one=os.urandom(32))) as hub:
        lease = await hub.sent()
        await hub.report(lease, failed=failed())
        whole = await shown(hub, lease.integration_request.id)
    async with running_intake(database_url, keys, payload_keys=ring(tmp_path, "two", two=os.urandom(32))) as hub:
        sealed = await shown(hub, lease.integration_request.id)

    letter = sealed.dead_letter
    assert (letter.payload_not_readable, letter.integration_request.payload_json) == (True, "")
    assert (letter.reason, len(sealed.history)) == ("external_rejected", len(whole.history))
    assert not whole.dead_letter.payload_not_readable
    assert whole.dead_letter.integration_request.payload_json == PAYLOAD


async def shown(hub: IntakeUnderTest, request_id: str) -> GetDeadLetterResponse:
    return await hub.dead_letters.GetDeadLetter(GetDeadLetterRequest(id=request_id), metadata=hub.operator)


async def test_a_request_that_cannot_be_opened_waits_and_no_other_waits_for_it(
    database_url: str, keys: TestKeys, tmp_path: Path
) -> None:
    first, second = os.urandom(32), os.urandom(32)
    async with running_intake(database_url, keys, payload_keys=ring(tmp_path, "one", one=first)) as hub:
        lost = await hub.create("lost")
    async with running_intake(database_url, keys, payload_keys=ring(tmp_path, "two", two=second)) as hub:
        other = await hub.create("other")
        together = await hub.claim(lost.id, other.id)
        alone, beside = await asyncio.gather(hub.claim(lost.id), hub.create("beside"))
    async with running_intake(database_url, keys, payload_keys=ring(tmp_path, "both", both=second, one=first)) as hub:
        found = await hub.lease(lost.id)

    assert [result.status for result in together] == [life.CLAIM_STATUS_NOT_AVAILABLE, life.CLAIM_STATUS_GRANTED]
    assert [result.status for result in alone] == [life.CLAIM_STATUS_NOT_AVAILABLE]
    assert beside.status == pb.INTEGRATION_REQUEST_STATUS_RECEIVED
    assert found.integration_request.payload_json == PAYLOAD


async def test_a_request_that_cannot_be_opened_ends_at_its_deadline_and_can_be_corrected(
    database_url: str, keys: TestKeys, tmp_path: Path
) -> None:
    async with without_the_key_of_one(database_url, keys, tmp_path) as (hub, lost):
        at_rest = await stored_payload(hub, lost.id)
        hub.clock.advance(TTL_SECONDS)
        await hub.due()
        (letter,) = await hub.rows(dead_letters)
        selection = DeadLetterSelection(ids=[lost.id])
        redrive = RedriveDeadLettersRequest(selection=selection, payload_json=CORRECTED, reason="the key is lost")
        await hub.dead_letters.RedriveDeadLetters(redrive, metadata=hub.operator)
        lease = await hub.lease(lost.id)
        (version,) = await hub.rows(payload_versions)

    assert letter["reason"] == "expired"
    assert lease.integration_request.payload_json == CORRECTED
    assert version["payload_json"] == at_rest


async def test_a_corrected_payload_and_the_one_it_replaces_are_sealed(
    sqlite_url: str, keys: TestKeys, tmp_path: Path
) -> None:
    async with running_intake(sqlite_url, keys, payload_keys=ring(tmp_path, "one", one=os.urandom(32))) as hub:
        lease = await hub.sent()
        await hub.report(lease, failed=failed())
        request_id = lease.integration_request.id
        selection = DeadLetterSelection(ids=[request_id])
        redrive = RedriveDeadLettersRequest(selection=selection, payload_json=CORRECTED, reason="typing error")
        await hub.dead_letters.RedriveDeadLetters(redrive, metadata=hub.operator)
        (version,) = await hub.rows(payload_versions)

        assert (await hub.get(request_id)).payload_json == CORRECTED
        assert (await stored_payload(hub, request_id)).startswith("sealed1:")
        assert version["payload_json"].startswith("sealed1:")


async def test_a_payload_that_was_moved_to_another_request_does_not_open(
    sqlite_url: str, keys: TestKeys, tmp_path: Path
) -> None:
    async with running_intake(sqlite_url, keys, payload_keys=ring(tmp_path, "one", one=os.urandom(32))) as hub:
        mine, theirs = await hub.create("E-1", "acme"), await hub.create("E-1", "brix")
        moved = await stored_payload(hub, theirs.id)
        with hub.store.database.engine.begin() as connection:
            connection.execute(
                sa.update(integration_requests).where(integration_requests.c.id == mine.id).values(payload_json=moved)
            )

        assert (await refused(hub.get(mine.id))).reason == "PAYLOAD_NOT_READABLE"


def test_two_payloads_alike_do_not_look_alike() -> None:
    keys = PayloadKeys({"one": os.urandom(32)}, "one")

    assert keys.seal("1", PAYLOAD) != keys.seal("1", PAYLOAD)


@pytest.mark.parametrize(
    "change", [lambda text: text[:-6] + "AAAA==", lambda text: text[:40], lambda _: "sealed1:one:%"]
)
def test_a_payload_that_was_changed_does_not_open(change: "object") -> None:
    keys = PayloadKeys({"one": os.urandom(32)}, "one")
    assert callable(change)

    with pytest.raises(PayloadNotReadable):
        keys.open("1", change(keys.seal("1", PAYLOAD)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "[]",
        '{"current":"a","keys":{}}',
        '{"current":"a","keys":{"a":"c2hvcnQ="}}',
        '{"current":"a","keys":{"a":"%%%"}}',
        '{"keys":{"a":"' + "A" * 43 + '="}}',
        '{"current":"a:b","keys":{"a:b":"' + "A" * 43 + '="}}',
    ],
)
def test_a_ring_that_is_none_is_refused_without_its_keys_in_the_message(text: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        read_payload_keys(text)

    assert "AAAA" not in str(refusal.value)
