"""A line about one request carries that request's ids, in whatever batch it came; a batch carries nobody's."""

from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from adapter_service.servicer import AdapterServicer
from chassis.access import REQUESTS_WRITE, Caller
from chassis.batcher import Batcher
from chassis.errors import InternalError
from chassis.rate_limit import RateLimit
from chassis.rpc import Part
from chassis.targets import Target, Targets
from chassis.telemetry import Telemetry
from intake_service.backlog import Backlog
from intake_service.commands import Commands, Draft
from integrationhub.adapter.v1 import adapter_pb2

ids_var: ContextVar[str] = ContextVar("ids", default="nobody's")


async def test_a_batch_carries_nothing_of_the_call_that_began_it() -> None:
    seen: list[str] = []

    async def flush(batch: Sequence[str]) -> list[str]:
        seen.append(ids_var.get())
        return list(batch)

    batcher: Batcher[str, str] = Batcher(flush)
    ids_var.set("the first call's")

    await batcher.submit("item")

    assert seen == ["nobody's"]


class BrokenAttempts:
    """Fails where nothing is caught."""

    async def deliver(self, *_: Any) -> Any:
        raise ZeroDivisionError


async def test_a_delivery_that_fails_in_a_batch_is_logged_under_its_own_ids() -> None:
    systems: Any = {"Erp": object()}
    attempts: Any = BrokenAttempts()
    servicer = AdapterServicer(systems, attempts, Telemetry("adapter"))
    deliveries = [
        adapter_pb2.DeliverRequest(
            integration_request_id=f"id-{number}",
            external_id="E-1",
            target_system="Erp",
            payload_json="{}",
            correlation_id=f"c-{number}",
        )
        for number in range(2)
    ]

    with capture_logs() as lines:
        answers = [
            answer
            async for answer in servicer.DeliverBatch(adapter_pb2.DeliverBatchRequest(deliveries=deliveries), None)
        ]

    assert sum(len(answer.results) for answer in answers) == 2
    assert {(line["event"], line["request_id"], line["correlation_id"]) for line in lines} == {
        ("Delivery failed", "id-0", "c-0"),
        ("Delivery failed", "id-1", "c-1"),
    }


class BrokenStore:
    """Gives every item a fault of ours."""

    async def write_many(self, _: Any, items: Sequence[Any]) -> list[Any]:
        return [ZeroDivisionError() for _ in items]


async def test_a_create_that_fails_in_a_batch_is_logged_under_its_own_ids() -> None:
    store: Any = BrokenStore()
    telemetry = Telemetry("intake")
    target = Target(adapter="http_json", base_url="http://127.0.0.1:1", name="Erp")
    commands = Commands(
        store,
        Backlog(store, maximum=10, maximum_per_partner=10),
        Targets(folder=Path(), by_name={"Erp": target}),
        telemetry,
        RateLimit("redis://127.0.0.1:1", telemetry.counter("rate_limit_open_total")),
        Part("storage"),
        rate_per_minute=0,
    )
    caller = Caller(subject="acme", partner_id="acme", scopes=frozenset({REQUESTS_WRITE}), expires_at=2e9)
    draft = Draft(
        partner_id="",
        external_id="E-1",
        source_system="SAP",
        target_system="Erp",
        payload_json="{}",
        correlation_id="c-1",
        traceparent="",
    )

    with capture_logs() as lines:
        (answered,) = await commands.create(caller, [draft])

    assert isinstance(answered.result, InternalError)
    assert [(line["event"], line["correlation_id"], line["partner_id"]) for line in lines] == [
        ("Create failed", "c-1", "acme")
    ]
