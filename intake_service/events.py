"""Domain events: what outbox rows hold and stream entries carry. Pure.

`data` is the proto JSON of the message in events.v1 (a test holds the two together); it is written by hand because
the general printer costs as much as the rest of a create.
"""

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from chassis.clock import Micros, to_rfc3339
from chassis.streams import DEAD_LETTER_STREAM, EVENTS_STREAM, work_stream
from intake_service.integration_request import Status

CREATED = "IntegrationRequestCreated"
STATUS_CHANGED = "IntegrationRequestStatusChanged"
COMPLETED = "IntegrationRequestCompleted"
FAILED = "IntegrationRequestFailed"
DEAD_LETTERED = "IntegrationRequestDeadLettered"
EVENT_TYPES = (CREATED, STATUS_CHANGED, COMPLETED, FAILED, DEAD_LETTERED)


class About(NamedTuple):
    """The request that events are about."""

    request_id: str
    external_id: str
    correlation_id: str
    traceparent: str
    target_system: str


class Event(NamedTuple):
    """What happened to a request. With `rings` its publication also puts the id into its target's work stream."""

    type: str
    request_id: str
    correlation_id: str
    traceparent: str
    target_system: str
    rings: bool
    data: str

    @property
    def failure_reason(self) -> str:
        """Why, of a failed request's event; empty otherwise."""
        return str(orjson.loads(self.data).get("failureReason", ""))

    def entries(self, traceparent: str) -> list[tuple[str, dict[str, str]]]:
        """The stream entries that publish it: the work first, so that a watcher never hurts the flow.

        `traceparent` is the context of the publication.
        """
        fields = {
            "type": self.type,
            "id": self.request_id,
            "correlation_id": self.correlation_id,
            "traceparent": traceparent,
            "data": self.data,
        }
        entries = [ring(self.target_system, self.request_id, traceparent)] if self.rings else []
        entries.append((EVENTS_STREAM, fields))
        if self.type == DEAD_LETTERED:
            entries.append((DEAD_LETTER_STREAM, fields))
        return entries


class OutboxRow(NamedTuple):
    """The events of one commit, in their order; all of them are published, then it is deleted."""

    id: str
    created_at: Micros
    events: Sequence[Event]


def ring(target_system: str, request_id: str, traceparent: str = "") -> tuple[str, dict[str, str]]:
    """The stream entry that says: look at this request."""
    fields = {"id": request_id, "traceparent": traceparent} if traceparent else {"id": request_id}
    return work_stream(target_system), fields


def created(about: About, at: Micros) -> Event:
    """The event of a new request."""
    return _event(CREATED, about, at, rings=True)


def transition(
    about: About, at: Micros, before: Status, after: Status, *, attempts: int, failure_reason: str | None
) -> Event:
    """The event of one move."""
    if after is Status.COMPLETED:
        return _event(COMPLETED, about, at, completedAt=to_rfc3339(at), attempts=attempts)
    if after is Status.FAILED:
        return _event(FAILED, about, at, failureReason=failure_reason or "", attempts=attempts)
    rings = after is Status.RECEIVED
    return _event(STATUS_CHANGED, about, at, rings=rings, oldStatus=before.word, newStatus=after.word)


def dead_lettered(about: About, at: Micros, *, attempts: int, failure_reason: str) -> Event:
    """The event of a request that wants an operator."""
    return _event(DEAD_LETTERED, about, at, failureReason=failure_reason, attempts=attempts)


def _event(event_type: str, about: About, at: Micros, *, rings: bool = False, **more: str | int) -> Event:
    request_id, external_id, correlation_id, traceparent, target_system = about
    data = {
        "eventType": event_type,
        "requestId": request_id,
        "correlationId": correlation_id,
        "externalId": external_id,
        "timestamp": to_rfc3339(at),
        **more,
    }
    text = orjson.dumps(data).decode()
    return Event(event_type, request_id, correlation_id, traceparent, target_system, rings, text)
