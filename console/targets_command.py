"""`hub targets`: how each external system does, as the orchestrator and the adapter see it."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.tables import print_table, span

if TYPE_CHECKING:
    from chassis.settings import HubSettings
    from integrationhub.adapter.v1.adapter_pb2 import Target
    from integrationhub.orchestrator.v1.orchestrator_pb2 import BreakerState, TargetStatus

EXAMPLES = """\b
Examples:
  hub targets
  hub targets --json | jq '.items[] | select(.breaker != "closed")'
"""
HEADERS = ("TARGET", "BREAKER", "IN FLIGHT", "LIMIT", "WAITING", "OLDEST", "HELD BACK BY", "FOR", "ADAPTER", "URL")


def targets(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show every target: its breaker, what is in flight and what waits."""
    from console.configuration import read_settings
    from console.operator_client import OperatorClient
    from integrationhub.orchestrator.v1.orchestrator_pb2 import GetStatusRequest
    from integrationhub.orchestrator.v1.orchestrator_pb2_grpc import OrchestratorServiceStub

    settings = read_settings()
    with OperatorClient(settings, "orchestrator") as client:
        status = client.call(OrchestratorServiceStub(client.channel).GetStatus, GetStatusRequest())
    configured = _configured(settings)
    if as_json:
        items = [target_json(target, configured.get(target.name)) for target in status.targets]
        typer.echo(json.dumps({"workerId": status.worker_id, "liveWorkers": status.live_workers, "items": items}))
        return
    print_table(HEADERS, [target_row(item, configured.get(item.name), time.time()) for item in status.targets])
    if status.live_workers > 1:
        typer.echo(
            f"As {status.worker_id} sees it, one of {status.live_workers} workers; limits are its share.", err=True
        )


def _configured(settings: "HubSettings") -> dict[str, "Target"]:
    """Ask the adapter what it knows of the targets; while it is away that is nothing, and stderr says why."""
    from chassis.errors import HubError
    from console.operator_client import OperatorClient
    from integrationhub.adapter.v1.adapter_pb2 import ListTargetsRequest
    from integrationhub.adapter.v1.adapter_pb2_grpc import AdapterServiceStub

    try:
        with OperatorClient(settings, "adapter") as client:
            listed = client.call(AdapterServiceStub(client.channel).ListTargets, ListTargetsRequest())
    except HubError as error:
        typer.echo(f"hub: {error.message}", err=True)
        return {}
    return {target.name: target for target in listed.targets}


def target_row(status: "TargetStatus", target: "Target | None", now: float) -> tuple[object, ...]:
    """Make one row under HEADERS; `now` is in seconds since 1970."""
    oldest = span(max(0.0, now - status.oldest_waiting_at.seconds)) if status.HasField("oldest_waiting_at") else ""
    until = span(max(0.0, status.waits_until.seconds - now)) if status.HasField("waits_until") else ""
    return (
        status.name,
        breaker_text(status.breaker),
        status.in_flight,
        f"{status.concurrency_limit} of {status.concurrency}",
        status.waiting,
        oldest,
        status.wait_reason,
        until,
        target.adapter if target is not None else "",
        target.base_url if target is not None else "",
    )


def target_json(status: "TargetStatus", target: "Target | None") -> dict[str, Any]:
    """Write one target with camelCase names."""
    item: dict[str, Any] = {
        "name": status.name,
        "breaker": breaker_text(status.breaker),
        "inFlight": status.in_flight,
        "concurrencyLimit": status.concurrency_limit,
        "concurrency": status.concurrency,
        "ratePerSecond": status.rate_per_second,
        "waiting": status.waiting,
        "waitReason": status.wait_reason or None,
    }
    for name in ("oldest_waiting_at", "waits_until"):
        if status.HasField(name):
            words = name.split("_")
            item[words[0] + "".join(map(str.title, words[1:]))] = getattr(status, name).ToJsonString()
    if target is not None:
        item |= {
            "adapter": target.adapter,
            "baseUrl": target.base_url,
            "idempotent": target.idempotent,
            "supportsLookup": target.supports_lookup,
            "timeoutSeconds": target.timeout.ToMilliseconds() / 1000,
        }
    return item


def breaker_text(state: "BreakerState.ValueType") -> str:
    """Write a breaker's state in lower case: closed, open, half open."""
    from integrationhub.orchestrator.v1 import orchestrator_pb2

    return orchestrator_pb2.BreakerState.Name(state).removeprefix("BREAKER_STATE_").lower().replace("_", " ")
