"""What every configured external system's adapter promises, whatever it speaks: each answer and its outcome."""

import email.utils
import time
from typing import Any

import pytest

from chassis.json_text import check_json
from chassis.testing import free_port
from integrationhub.adapter.v1 import adapter_pb2 as pb
from tests.contract.adapter.conftest import System

DELIVERED, REJECTED, UNAVAILABLE, THROTTLED, UNKNOWN = (
    pb.OUTCOME_DELIVERED,
    pb.OUTCOME_REJECTED,
    pb.OUTCOME_UNAVAILABLE,
    pb.OUTCOME_THROTTLED,
    pb.OUTCOME_UNKNOWN,
)

#: The simulator's fault, and the outcome that every adapter must make of it.
ANSWERS: list[tuple[str, dict[str, Any], "pb.Outcome.ValueType"]] = [
    ("status", {"status": 400}, REJECTED),
    ("status", {"status": 403}, REJECTED),
    ("status", {"status": 404}, REJECTED),
    ("status", {"status": 409}, REJECTED),
    ("status", {"status": 422}, REJECTED),
    ("status", {"status": 501}, REJECTED),
    ("redirect", {}, REJECTED),
    ("error_200", {}, REJECTED),
    ("cp1252", {"status": 400}, REJECTED),
    ("status", {"status": 401}, UNAVAILABLE),
    ("status", {"status": 408}, UNAVAILABLE),
    ("status", {"status": 425}, UNAVAILABLE),
    ("status", {"status": 503}, UNAVAILABLE),
    ("html", {"status": 503}, UNAVAILABLE),
    ("status", {"status": 429}, THROTTLED),
    ("html", {"status": 502}, UNKNOWN),
    ("status", {"status": 502}, UNKNOWN),
    ("status", {"status": 504}, UNKNOWN),
    ("status", {"status": 500, "body": "", "content_type": "text/plain"}, UNKNOWN),
    ("status", {"status": 200}, UNKNOWN),
    ("html", {"status": 200}, UNKNOWN),
    ("status", {"status": 200, "body": "[" * 100_000}, UNKNOWN),
    ("status", {"status": 200, "body": '{"a":' * 5_000 + "1" + "}" * 5_000}, UNKNOWN),
    ("broken_json_before", {}, UNKNOWN),
    ("broken_json", {}, UNKNOWN),
    ("reset_before", {}, UNKNOWN),
    ("reset_after", {}, UNKNOWN),
    ("cut_body", {}, UNKNOWN),
    ("huge_body", {"mebibytes": 4}, UNKNOWN),
    ("slow", {"delay_seconds": 0.2}, DELIVERED),
    ("slow_body", {"delay_seconds": 0.2}, DELIVERED),
]
NAMES = [f"{kind}-{fields.get('status', '')}-{number}" for number, (kind, fields, _) in enumerate(ANSWERS)]


async def test_a_stored_document_is_delivered(system: System) -> None:
    response = await system.deliver()

    assert (response.outcome, len(await system.orders())) == (DELIVERED, 1)


@pytest.mark.parametrize(("kind", "fields", "outcome"), ANSWERS, ids=NAMES)
async def test_an_answer_has_its_outcome(
    system: System, kind: str, fields: dict[str, Any], outcome: "pb.Outcome.ValueType"
) -> None:
    await system.fault(kind, **fields)

    response = await system.deliver()

    assert pb.Outcome.Name(response.outcome) == pb.Outcome.Name(outcome)


@pytest.mark.parametrize(("kind", "fields", "outcome"), ANSWERS, ids=NAMES)
async def test_one_delivery_is_one_post(
    system: System, kind: str, fields: dict[str, Any], outcome: "pb.Outcome.ValueType"
) -> None:
    del outcome
    await system.fault(kind, **fields)

    await system.deliver()

    assert len(await system.posts()) == 1


@pytest.mark.parametrize(("kind", "fields", "outcome"), ANSWERS, ids=NAMES)
async def test_the_kept_answer_is_json_and_capped(
    system: System, kind: str, fields: dict[str, Any], outcome: "pb.Outcome.ValueType"
) -> None:
    del outcome
    await system.fault(kind, **fields)

    response = await system.deliver()

    assert is_json(response.response_json)
    assert len(response.response_json.encode()) <= 64 * 1024


@pytest.mark.parametrize("kind", ["hang", "hang_after"])
async def test_silence_is_an_unknown_outcome_that_timed_out(system: System, kind: str) -> None:
    await warmed(system)
    await system.fault(kind)

    response = await system.deliver()

    assert (response.outcome, response.timed_out) == (UNKNOWN, True)


async def test_an_endless_drip_is_cut_at_the_targets_timeout(system: System) -> None:
    await warmed(system)
    await system.fault("slow_body", delay_seconds=30)

    response = await system.deliver()

    assert (response.outcome, response.timed_out) == (UNKNOWN, True)
    assert response.duration.ToMilliseconds() < 20_000


async def test_a_lost_connection_is_no_timeout(system: System) -> None:
    await system.fault("reset_after")

    assert not (await system.deliver()).timed_out


async def test_a_refused_connection_is_certainly_not_applied(system: System) -> None:
    system.extra["base_url"] = f"http://127.0.0.1:{free_port()}"

    response = await system.deliver()

    assert response.outcome == UNAVAILABLE


async def test_a_host_without_address_is_certainly_not_applied(system: System) -> None:
    system.extra["base_url"] = "http://no-such-system.invalid"
    system.extra["timeout_seconds"] = 5

    response = await system.deliver()

    assert response.outcome == UNAVAILABLE


async def test_a_failed_tls_handshake_is_certainly_not_applied(system: System) -> None:
    system.extra["base_url"] = system.table["base_url"].replace("http://", "https://")

    response = await system.deliver()

    assert (response.outcome, await system.posts()) == (UNAVAILABLE, [])
    assert not response.credentials_refused  # a certificate was never seen


@pytest.mark.parametrize(("status", "outcome"), [(429, THROTTLED), (503, UNAVAILABLE)])
async def test_retry_after_in_seconds_is_passed_on(
    system: System, status: int, outcome: "pb.Outcome.ValueType"
) -> None:
    await system.fault("status", status=status, retry_after="20")

    response = await system.deliver()

    assert (response.outcome, response.retry_after.ToMilliseconds()) == (outcome, 20_000)


async def test_retry_after_as_a_date_is_passed_on(system: System) -> None:
    await system.fault("status", status=429, retry_after=email.utils.formatdate(time.time() + 30, usegmt=True))

    response = await system.deliver()

    assert 28 <= response.retry_after.ToMilliseconds() / 1000 <= 30


async def test_retry_after_has_a_ceiling_of_one_hour(system: System) -> None:
    await system.fault("status", status=503, retry_after="999999")

    assert (await system.deliver()).retry_after.ToSeconds() == 3600


async def test_without_retry_after_none_is_made_up(system: System) -> None:
    await system.fault("status", status=429)

    assert not (await system.deliver()).HasField("retry_after")


async def test_a_redirect_is_not_followed(system: System) -> None:
    elsewhere = f"{system.place}-elsewhere"
    await system.fault("redirect", location=f"{system.simulator.base_url}/t/{elsewhere}/orders")

    await system.deliver()

    assert await system.simulator.calls(elsewhere) == []


async def test_an_answer_in_another_encoding_is_readable(system: System) -> None:
    await system.fault("cp1252", status=400)

    assert "Cliente não encontrado" in (await system.deliver()).detail


async def test_a_page_is_never_kept(system: System) -> None:
    await system.fault("html", status=502)

    response = await system.deliver()

    assert "<" not in response.response_json
    assert "502" in response.detail


async def test_the_systems_own_words_are_kept_without_secrets(system: System) -> None:
    secret = "abc123" * 4
    body = f'{{"message":"Authorization: Bearer {secret}","access_token":"s3cret-value","number":1.50}}'
    await system.fault("status", status=400, body=body)

    response = await system.deliver()

    assert '"access_token":"***"' in response.response_json
    assert '"number":1.50' in response.response_json
    assert secret not in response.response_json + response.detail


async def warmed(system: System) -> None:
    """Give the target a short timeout and a connection that stands: on a busy machine making one may take longer."""
    system.extra["timeout_seconds"] = 1
    await system.deliver()


def is_json(text: str) -> bool:
    """Whether `text` is nothing, or JSON as the hub takes it."""
    if text:
        check_json(text.encode())
    return True
