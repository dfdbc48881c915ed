"""The orchestrator's clients against real gRPC servers: what travels together, and what a failure means."""

import asyncio
from typing import Any

import pytest

import chassis.rpc
from chassis.correlation import correlation_id_var
from chassis.errors import HubError, InternalError, KeySetUnavailable, StorageUnavailable
from chassis.logs import bind
from chassis.rpc_client import RpcClient
from chassis.testing import eventually
from chassis.tokens import ServiceToken
from integrationhub.adapter.v1 import adapter_pb2
from integrationhub.adapter.v1.adapter_pb2 import DeliverRequest, DeliverResponse, LookupRequest, LookupResponse
from integrationhub.intake.v1 import lifecycle_pb2
from integrationhub.intake.v1.lifecycle_pb2 import Release, Report
from orchestrator_service.clients import AdapterClient, NotDelivered
from tests.orchestrator_fakes import Gate, Surroundings, claim, delivered, found


def attempt(name: str, payload_json: str = "{}") -> DeliverRequest:
    return DeliverRequest(
        integration_request_id=name,
        correlation_id=f"correlation-{name}",
        target_system="Erp",
        payload_json=payload_json,
    )


async def deliver(parts: Surroundings, *names: str) -> list[Any]:
    """Submit attempts in the same tick; gives what each got."""
    submitted = [parts.adapter_client.deliver(attempt(name), timeout_seconds=5) for name in names]
    return await asyncio.gather(*submitted, return_exceptions=True)


async def test_an_attempt_alone_is_a_single_call(parts: Surroundings) -> None:
    [response] = await deliver(parts, "a")

    assert (response.outcome, parts.adapter.calls) == (adapter_pb2.OUTCOME_DELIVERED, [1])


async def test_attempts_of_one_tick_travel_together(parts: Surroundings) -> None:
    await deliver(parts, "a", "b", "c")

    assert parts.adapter.calls == [3]


async def test_each_attempt_gets_its_own_answer(parts: Surroundings) -> None:
    async def answer(request: DeliverRequest) -> DeliverResponse:
        return DeliverResponse(outcome=adapter_pb2.OUTCOME_DELIVERED, response_json=request.integration_request_id)

    parts.adapter.answer = answer
    responses = await deliver(parts, *"abcdef")

    assert [response.response_json for response in responses] == [*"abcdef"]


async def test_a_slow_attempt_holds_nobody(parts: Surroundings) -> None:
    gate = Gate()

    async def answer(request: DeliverRequest) -> DeliverResponse:
        return await (gate if request.integration_request_id == "slow" else delivered)(request)

    parts.adapter.answer = answer
    slow, quick = (
        asyncio.create_task(parts.adapter_client.deliver(attempt(name), timeout_seconds=5))
        for name in ("slow", "quick")
    )
    await quick
    was_waiting = not slow.done()
    gate.is_open.set()
    await slow

    assert (was_waiting, parts.adapter.calls) == (True, [2])


async def test_a_slow_call_does_not_hold_the_next(parts: Surroundings) -> None:
    gate = Gate()
    parts.adapter.answer = gate
    first = asyncio.create_task(deliver(parts, "a"))
    await eventually(lambda: parts.adapter.deliveries)
    parts.adapter.answer = delivered
    await deliver(parts, "b")
    was_waiting = not first.done()
    gate.is_open.set()
    await first

    assert was_waiting


async def test_attempts_with_different_deadlines_travel_apart(parts: Surroundings) -> None:
    await asyncio.gather(
        parts.adapter_client.deliver(attempt("a"), timeout_seconds=5),
        parts.adapter_client.deliver(attempt("b"), timeout_seconds=6),
    )

    assert parts.adapter.calls == [1, 1]


async def test_large_payloads_are_split_into_calls_that_a_server_takes(parts: Surroundings) -> None:
    megabyte = '"' + "x" * 1024 * 1024 + '"'
    submitted = [parts.adapter_client.deliver(attempt(str(n), megabyte), timeout_seconds=20) for n in range(10)]
    await asyncio.gather(*submitted)

    # 8 MiB hold 7 payloads of a little more than 1 MiB
    assert sorted(parts.adapter.calls) == [3, 7]


async def test_a_call_alone_carries_its_requests_correlation_id(parts: Surroundings) -> None:
    seen: list[str] = []

    async def answer(_: DeliverRequest) -> DeliverResponse:
        seen.append(correlation_id_var.get())
        return DeliverResponse(outcome=adapter_pb2.OUTCOME_DELIVERED)

    parts.adapter.answer = answer

    async def deliver_for_another() -> None:
        bind(correlation_id="of-the-log")
        await deliver(parts, "a")

    await asyncio.create_task(deliver_for_another())

    assert seen == ["correlation-a"]


async def test_a_lookup_carries_its_requests_correlation_id_and_leaves_no_trace(parts: Surroundings) -> None:
    seen: list[str] = []

    async def look_up(request: LookupRequest) -> LookupResponse:
        seen.append(correlation_id_var.get())
        return await found(request)

    parts.adapter.look_up = look_up
    await parts.adapter_client.lookup(LookupRequest(correlation_id="correlation-a"), timeout_seconds=5)

    assert (seen, correlation_id_var.get()) == (["correlation-a"], "")


@pytest.mark.parametrize("names", ["a", "ab"])
async def test_nothing_was_sent_when_no_connection_stood(parts: Surroundings, names: str) -> None:
    await parts.adapter_server.stop()
    await eventually(lambda: _is_away(parts))

    assert [type(error) for error in await deliver(parts, *names)] == [NotDelivered] * len(names)


@pytest.mark.parametrize("names", ["a", "ab"])
async def test_nothing_was_sent_to_an_adapter_that_drains(
    parts: Surroundings, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    assert await parts.adapter_client.reachable()
    monkeypatch.setattr(chassis.rpc, "QUIET_SECONDS", 3.0)
    monkeypatch.setattr(chassis.rpc, "LEAVE_SECONDS", 3.0)
    draining = asyncio.create_task(parts.adapter_server.stop())
    await eventually(lambda: _is_away(parts))

    assert [type(error) for error in await deliver(parts, *names)] == [NotDelivered] * len(names)
    assert parts.adapter.deliveries == []
    assert not draining.done()  # it was asked in the time for leaving: its port is still open
    await draining


async def _is_away(parts: Surroundings) -> bool:
    return not await parts.adapter_client.reachable()


@pytest.mark.parametrize("names", ["a", "ab"])
async def test_nothing_was_sent_when_the_adapter_refused_the_token(parts: Surroundings, names: str) -> None:
    token = ServiceToken(parts.keys.signer, service="orchestrator", scopes=["requests:read"])
    client = AdapterClient(RpcClient(parts.adapter_address, token, timeout_seconds=5), telemetry=parts.telemetry)
    errors = await asyncio.gather(
        *(client.deliver(attempt(name), timeout_seconds=5) for name in names), return_exceptions=True
    )
    await client.stop()

    assert [type(error) for error in errors] == [NotDelivered] * len(names)
    assert parts.adapter.deliveries == []


async def test_nothing_was_sent_when_the_adapter_could_not_check_the_token(parts: Surroundings) -> None:
    async def refuse(_: DeliverRequest) -> DeliverResponse:
        raise KeySetUnavailable("Tokens cannot be checked now; repeat the call in a moment.")

    parts.adapter.answer = refuse

    assert [type(error) for error in await deliver(parts, "a")] == [NotDelivered]


async def test_what_the_adapter_refuses_in_a_batch_was_not_sent_either(parts: Surroundings) -> None:
    own, the_systems = (
        DeliverResponse(outcome=adapter_pb2.OUTCOME_REJECTED, code="TARGET_NOT_FOUND", detail="no such target")
        for _ in range(2)
    )
    the_systems.duration.FromMilliseconds(3)

    async def answer(request: DeliverRequest) -> DeliverResponse:
        return own if request.integration_request_id == "new-target" else the_systems

    parts.adapter.answer = answer
    refused, rejected = await deliver(parts, "new-target", "b")

    assert isinstance(refused, NotDelivered)
    assert rejected.outcome == adapter_pb2.OUTCOME_REJECTED


@pytest.mark.parametrize("names", ["a", "ab"])
async def test_it_is_not_known_what_an_adapter_that_failed_has_sent(parts: Surroundings, names: str) -> None:
    async def answer(_: DeliverRequest) -> DeliverResponse:
        raise RuntimeError("breaks after it has posted")

    parts.adapter.answer = answer

    assert [type(error) for error in await deliver(parts, *names)] == [InternalError] * len(names)


@pytest.mark.parametrize("names", ["a", "ab"])
async def test_it_is_not_known_what_an_adapter_that_died_has_sent(parts: Surroundings, names: str) -> None:
    parts.adapter.answer = Gate()
    delivering = asyncio.create_task(deliver(parts, *names))
    await eventually(lambda: len(parts.adapter.deliveries) == len(names))
    await parts.adapter_server.stop()
    errors = await delivering

    assert all(isinstance(error, HubError) and not isinstance(error, NotDelivered) for error in errors)


async def test_what_was_answered_before_the_adapter_died_counts(parts: Surroundings) -> None:
    async def answer(request: DeliverRequest) -> DeliverResponse:
        return await (delivered if request.integration_request_id == "quick" else Gate())(request)

    parts.adapter.answer = answer
    quick, slow = (
        asyncio.create_task(parts.adapter_client.deliver(attempt(name), timeout_seconds=5))
        for name in ("quick", "slow")
    )
    response = await quick
    await parts.adapter_server.stop()
    with pytest.raises(HubError) as raised:
        await slow

    assert response.outcome == adapter_pb2.OUTCOME_DELIVERED
    assert not isinstance(raised.value, NotDelivered)


async def test_an_attempt_that_nobody_answers_ends_with_its_deadline(parts: Surroundings) -> None:
    parts.adapter.answer = Gate()
    errors = await asyncio.gather(
        parts.adapter_client.deliver(attempt("a"), timeout_seconds=0.2),
        parts.adapter_client.deliver(attempt("b"), timeout_seconds=0.2),
        return_exceptions=True,
    )

    assert [error.reason for error in errors if isinstance(error, HubError)] == ["OUTCOME_NOT_KNOWN"] * 2


async def test_each_reader_claims_in_a_call_of_its_own(parts: Surroundings) -> None:
    groups = [[parts.intake.add() for _ in range(n)] for n in (1, 2, 3)]
    leases = await asyncio.gather(*(claim(parts, group) for group in groups))

    assert [[lease.integration_request.id for lease in group] for group in leases] == groups
    assert sorted(parts.intake.claims, key=len) == groups


async def test_reports_gather_while_others_are_in_flight(parts: Surroundings) -> None:
    ids = [parts.intake.add() for _ in range(50)]
    await claim(parts, ids)
    parts.intake.open.clear()
    reports = [Report(integration_request_id=request_id, token=1, release=Release()) for request_id in ids]
    reporting = [asyncio.create_task(parts.intake_client.report(report)) for report in reports]
    await asyncio.sleep(0)
    parts.intake.open.set()
    answers = await asyncio.gather(*reporting)

    assert set(answers) == {lifecycle_pb2.REPORT_STATUS_ACCEPTED}
    assert len(parts.intake.batches) <= 3


async def test_a_claim_that_intake_cannot_take_is_an_error(parts: Surroundings) -> None:
    parts.intake.away = StorageUnavailable("The database is away.")

    with pytest.raises(StorageUnavailable):
        await claim(parts, [parts.intake.add()])
