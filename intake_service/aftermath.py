"""What follows every commit: events to the relay, the seed's counters, spans and log lines.

It is called with the results of each transaction, whether or not anybody still waits for them.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby
from typing import Any

from chassis.logs import get_logger
from chassis.telemetry import Telemetry
from chassis.tracing import Tracing, processing_traceparent, trace_fields
from intake_service.backlog import Backlog
from intake_service.events import COMPLETED, CREATED, FAILED, Event
from intake_service.integration_request import FailureReason, Status, path
from intake_service.outbox import Relay
from intake_service.store.dead_letters import Settled
from intake_service.store.due import Due
from intake_service.store.leases import ClaimAnswer, ReportAnswer
from intake_service.store.payloads import trouble_fields
from intake_service.store.requests import Cancelled, Created
from intake_service.store.rows import StoredRequest

log = get_logger()

INSERT_SPAN = "db.insert.integration_requests"
UPDATE_SPAN = "db.update.integration_requests"


class Aftermath:
    """Tells the rest of the hub what was committed."""

    def __init__(self, relay: Relay, backlog: Backlog, telemetry: Telemetry, tracing: Tracing) -> None:
        self._relay = relay
        self._tracing = tracing
        self._backlog = backlog
        self._received = telemetry.counter("integration_requests_received_total")
        self._completed = telemetry.counter("integration_requests_completed_total")
        self._failed = telemetry.counter("integration_requests_failed_total")
        total_ms = telemetry.histogram("integration_requests_total_duration_ms")
        self._total_ms = cache(lambda target: total_ms.labels(target=target))
        telemetry.start_at_zero("integration_requests_failed_total", [{"reason": r.value} for r in FailureReason])
        self._tell: dict[type, Callable[[Sequence[Any], int], None]] = {
            Created: self._tell_created,
            Cancelled: self._tell_cancelled,
            ClaimAnswer: self._tell_claimed,
            ReportAnswer: self._tell_reported,
            Settled: self._tell_settled,
            Due: self._tell_due,
        }

    def committed(self, results: Sequence[Any], begun_ns: int) -> None:
        """Handle the results of one transaction, which was begun at that Unix time."""
        rows = [row for result in results for row in getattr(result, "outbox", ())]
        self._relay.hand_over(rows)
        self._count([event for row in rows for event in row.events])
        for kind, of_kind in groupby(results, type):  # what was handed in together stands together
            tell = self._tell.get(kind)
            if tell is not None:
                tell(list(of_kind), begun_ns)

    def _tell_created(self, created: Sequence[Created], begun_ns: int) -> None:
        self._backlog.accepted([each.request.partner_id for each in created])
        log.info_each(
            "Integration request persisted",
            [
                _fields(request, self._tracing.record(INSERT_SPAN, request.traceparent, begun_ns))
                | {"external_id": request.external_id}
                for request, _ in created
            ],
        )

    def _tell_cancelled(self, cancelled: Sequence[Cancelled], begun_ns: int) -> None:
        self._backlog.ended([each.request.partner_id for each in cancelled])
        for each in cancelled:
            context = self._tracing.record(UPDATE_SPAN, each.request.traceparent, begun_ns)
            log.info("Integration request cancelled", **_fields(each.request, context))

    def _tell_claimed(self, answers: Sequence[ClaimAnswer], begun_ns: int) -> None:
        _tell_ends(_told(answers))  # poisoned ones
        self._tell_changes(answers, begun_ns)
        for trouble in (answer.trouble for answer in answers if answer.trouble is not None):
            log.error("Payload not readable", **trouble_fields(trouble))

    def _tell_changes(self, answers: Sequence[ClaimAnswer | ReportAnswer], begun_ns: int) -> None:
        lines = []
        for answer in answers:
            before, request = answer.before, answer.after
            if before is None or request is None:
                continue
            working = processing_traceparent(request.traceparent, request.id, request.standing.lease_token)
            context = self._tracing.record(UPDATE_SPAN, working, begun_ns)
            fields = _fields(request, context)
            for old, new in path(before.standing.status, request.standing.status):
                lines.append(fields | {"old_status": old.word, "new_status": new.word})
        log.info_each("Status updated", lines)

    def _tell_reported(self, answers: Sequence[ReportAnswer], begun_ns: int) -> None:
        self._tell_changes(answers, begun_ns)
        ended = []
        for answer in answers:
            request = answer.after
            if request is None:
                continue
            status = request.standing.status
            if status is Status.COMPLETED and request.standing.cycle == 1:
                self._total_ms(request.target_system).observe((request.updated_at - request.created_at) / 1000)
            if status.is_terminal:
                ended.append(request.partner_id)
            elif answer.rings_at_once:
                self._relay.ring([(request.target_system, request.id)])
        self._backlog.ended(ended)

    def _tell_settled(self, settled: Sequence[Settled], begun_ns: int) -> None:
        for event in _told(settled):
            context = self._tracing.record(UPDATE_SPAN, event.traceparent, begun_ns)
            log.info("Dead letter redriven", **_event_fields(event, context))

    def _tell_due(self, found: Sequence[Due], _: int) -> None:
        _tell_ends(_told(found))

    def _count(self, published: Sequence[Event]) -> None:
        types = [event.type for event in published]
        self._received.inc(types.count(CREATED))
        self._completed.inc(types.count(COMPLETED))
        if FAILED in types:
            for event in published:
                if event.type == FAILED:
                    self._failed.labels(reason=event.failure_reason).inc()


def _told(results: Sequence[Any]) -> list[Event]:
    """The events that the outbox rows of results hold."""
    return [event for result in results for row in getattr(result, "outbox", ()) for event in row.events]


def _tell_ends(published: Sequence[Event]) -> None:
    """Log the failures that no worker reports: poisoned, or expired while nobody held it."""
    for event in published:
        if event.type == FAILED:
            log.error("Integration failed", **_event_fields(event, event.traceparent), reason=event.failure_reason)


def _event_fields(event: Event, context: str) -> dict[str, str]:
    return {
        "request_id": event.request_id,
        "correlation_id": event.correlation_id,
        "system": event.target_system,
        **trace_fields(context),
    }


def _fields(request: StoredRequest, context: str) -> dict[str, str]:
    return {
        "request_id": request.id,
        "correlation_id": request.correlation_id,
        "partner_id": request.partner_id,
        **trace_fields(context),
    }
