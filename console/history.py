"""The history of a request as a timeline, whichever contract it came over."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from console.tables import instant_text, span

HEADERS = ("AT", "AFTER", "WHAT", "STATUS", "ATTEMPT", "TOOK", "BY", "DETAIL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened; empty text and 0 stand for what does not apply."""

    at: datetime
    kind: str
    outcome: str
    from_status: str
    to_status: str
    attempt: int
    duration_ms: float
    actor: str
    detail: str

    @classmethod
    def from_json(cls, item: dict[str, Any]) -> Self:
        """Read an entry of the REST contract."""
        return cls(
            at=datetime.fromisoformat(item["at"]),
            kind=item["kind"],
            outcome=item.get("outcome", ""),
            from_status=item.get("fromStatus", ""),
            to_status=item.get("toStatus", ""),
            attempt=item.get("attempt", 0),
            duration_ms=item.get("durationMs", 0.0),
            actor=item.get("actor", ""),
            detail=item.get("detail", ""),
        )

    @classmethod
    def from_proto(cls, entry: Any) -> Self:
        """Read an integrationhub.intake.v1.HistoryEntry."""
        return cls(
            at=entry.at.ToDatetime(tzinfo=UTC),
            kind=entry.kind,
            outcome=entry.outcome,
            from_status=status_text(entry.from_status),
            to_status=status_text(entry.to_status),
            attempt=entry.attempt,
            duration_ms=entry.duration_ms,
            actor=entry.actor,
            detail=entry.detail,
        )

    def to_json(self) -> dict[str, object]:
        """Write it as the REST contract does, without what does not apply."""
        item = {
            "kind": self.kind,
            "at": instant_text(self.at),
            "fromStatus": self.from_status,
            "toStatus": self.to_status,
            "attempt": self.attempt,
            "outcome": self.outcome,
            "detail": self.detail,
            "durationMs": self.duration_ms,
            "actor": self.actor,
        }
        return {key: value for key, value in item.items() if value}


def history_rows(events: Sequence[Event]) -> list[tuple[str, ...]]:
    """Make the timeline's rows under HEADERS; AFTER is the time since the first event."""
    return [
        (
            instant_text(event.at),
            "+" + span((event.at - events[0].at).total_seconds()),
            f"{event.kind} {event.outcome}".rstrip(),
            _status(event),
            str(event.attempt or ""),
            span(event.duration_ms / 1000) if event.duration_ms else "",
            event.actor,
            event.detail,
        )
        for event in events
    ]


def status_text(status: int) -> str:
    """Write a status of the gRPC contract in the partners' words; empty for the unset one."""
    from integrationhub.intake.v1.intake_pb2 import IntegrationRequestStatus

    words = IntegrationRequestStatus.Name(status).removeprefix("INTEGRATION_REQUEST_STATUS_")  # type: ignore[arg-type]  # an enum's number
    return "" if status == 0 else words.title().replace("_", "")


def _status(event: Event) -> str:
    if event.from_status and event.from_status != event.to_status:
        return f"{event.from_status} > {event.to_status}"
    return event.to_status
