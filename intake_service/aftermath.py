"""What follows every commit: events to the relay, the seed's counters, the seed's log lines.

It is called with the results of each transaction, whether or not anybody still waits for them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from chassis.logs import get_logger
from chassis.telemetry import Telemetry
from intake_service.backlog import Backlog
from intake_service.events import COMPLETED, FAILED, Event
from intake_service.integration_request import FailureReason
from intake_service.outbox import Relay
from intake_service.store.leases import ClaimAnswer, ReportAnswer
from intake_service.store.requests import Cancelled, Created
from intake_service.store.rows import StoredRequest

log = get_logger()


class Aftermath:
    """Tells the rest of the hub what was committed."""

    def __init__(self, relay: Relay, backlog: Backlog, telemetry: Telemetry) -> None:
        self._relay = relay
        self._backlog = backlog
        self._received = telemetry.counter("integration_requests_received_total")
        self._completed = telemetry.counter("integration_requests_completed_total")
        self._failed = telemetry.counter("integration_requests_failed_total")
        telemetry.start_at_zero("integration_requests_failed_total", [{"reason": r.value} for r in FailureReason])
        self._tell: dict[type, Callable[[Any], None]] = {
            Created: self._tell_created,
            Cancelled: self._tell_cancelled,
            ClaimAnswer: self._tell_change,
            ReportAnswer: self._tell_reported,
        }

    def committed(self, results: Sequence[Any]) -> None:
        """Handle the results of one transaction."""
        for result in results:
            if published := getattr(result, "events", None):
                self._count_ends(published)
                self._relay.hand_over(published)
            tell = self._tell.get(type(result))
            if tell is not None:
                tell(result)

    def _tell_created(self, created: Created) -> None:
        self._received.inc()
        self._backlog.accepted(created.request.partner_id)
        log.info("Integration request persisted", **_fields(created.request), external_id=created.request.external_id)

    def _tell_cancelled(self, cancelled: Cancelled) -> None:
        self._backlog.ended(cancelled.request.partner_id)
        log.info("Integration request cancelled", **_fields(cancelled.request))

    def _tell_change(self, answer: ClaimAnswer | ReportAnswer) -> None:
        if answer.before is None or answer.after is None:
            return
        old, new = answer.before.standing.status, answer.after.standing.status
        if old is not new:
            log.info("Status updated", **_fields(answer.after), old_status=old.value, new_status=new.value)

    def _tell_reported(self, answer: ReportAnswer) -> None:
        self._tell_change(answer)
        if answer.after is None:
            return
        if answer.after.standing.status.is_terminal:
            self._backlog.ended(answer.after.partner_id)
        elif answer.rings_at_once:
            self._relay.ring([(answer.after.target_system, answer.after.id)])

    def _count_ends(self, published: Sequence[Event]) -> None:
        for event in published:
            if event.type == COMPLETED:
                self._completed.inc()
            elif event.type == FAILED:
                self._failed.labels(reason=event.failure_reason).inc()


def _fields(request: StoredRequest) -> dict[str, str]:
    return {
        "request_id": request.id,
        "correlation_id": request.correlation_id,
        "partner_id": request.partner_id,
    }
