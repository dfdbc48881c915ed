"""Recording changes: the row, its history, its events and its dead letter, all in the caller's transaction.

Every change of state in the hub goes through `record`. The update is compare-and-set on the row's version.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from chassis.database import ManyRows
from intake_service import events
from intake_service.events import Event
from intake_service.ids import new_id
from intake_service.integration_request import Standing, Status, path
from intake_service.store.rows import STANDING_COLUMNS, StoredRequest
from intake_service.store.tables import dead_letters, history, outbox
from intake_service.store.tables import integration_requests as t

_BOUND = tuple(f"b_{name}" for name in STANDING_COLUMNS)
_UPDATE = ManyRows(
    sa.update(t)
    .where(t.c.id == sa.bindparam("b_id"), t.c.version == sa.bindparam("b_version"))
    .values(
        {
            **{name: sa.bindparam(f"b_{name}") for name in STANDING_COLUMNS},
            "updated_at": sa.bindparam("b_updated_at"),
            "version": t.c.version + sa.literal_column("1"),
        }
    )
)
INSERT_HISTORY = ManyRows(sa.insert(history))
_INSERT_OUTBOX = ManyRows(sa.insert(outbox))
_INSERT_DEAD_LETTER = ManyRows(sa.insert(dead_letters))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call to the external system, for the history."""

    kind: str
    outcome: str
    detail: str
    duration_ms: float
    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One request before and after; `outcome` and `detail` annotate the history."""

    request: StoredRequest
    after: Standing
    actor: str
    call: Call | None = None
    outcome: str = ""
    detail: str = ""
    dead_letter: bool = False


class LostRace(Exception):
    """A row changed between reading and writing, which its lock forbids: the transaction must not commit."""


def record(connection: sa.Connection, now: int, changes: Sequence[Change]) -> list[Event]:
    """Write changes; gives the events that their outbox rows hold. Raises: LostRace."""
    if not changes:
        return []
    updated = _UPDATE.execute(connection, [_update_row(change, now) for change in changes])
    if updated != len(changes):
        raise LostRace(f"{updated} of {len(changes)} rows were as expected")
    entries = [entry for change in changes for entry in _history_of(change, now)]
    published = [event for change in changes for event in _events_of(change, now)]
    buried = [_dead_letter_row(change, now) for change in changes if change.dead_letter]
    if entries:
        INSERT_HISTORY.execute(connection, entries)
    add_to_outbox(connection, published)
    if buried:
        _INSERT_DEAD_LETTER.execute(connection, buried)
    return published


def add_to_outbox(connection: sa.Connection, published: Sequence[Event]) -> None:
    """Write events beside the change that they tell of."""
    if published:
        _INSERT_OUTBOX.execute(connection, [outbox_row(event) for event in published])


def outbox_row(event: Event) -> dict[str, Any]:
    """The row of an event."""
    return event._asdict()


def history_row(
    request_id: str,
    now: int,
    kind: str,
    before: Status | None,
    after: Status,
    *,
    actor: str,
    attempt: int = 0,
    outcome: str = "",
    detail: str = "",
    duration_ms: float = 0.0,
    response: str = "",
) -> dict[str, Any]:
    """The row of one thing that happened."""
    return {
        "request_id": request_id,
        "kind": kind,
        "at": now,
        "from_status": before.value if before is not None else None,
        "to_status": after.value,
        "attempt": attempt,
        "outcome": outcome,
        "detail": detail,
        "duration_ms": duration_ms,
        "response": response,
        "actor": actor,
    }


def _update_row(change: Change, now: int) -> dict[str, Any]:
    after = change.after
    row: dict[str, Any] = dict(zip(_BOUND, after, strict=True))
    row["b_status"] = after.status.value
    row["b_updated_at"] = now
    row["b_id"] = change.request.id
    row["b_version"] = change.request.version
    return row


def _history_of(change: Change, now: int) -> list[dict[str, Any]]:
    before, after = change.request.standing.status, change.after.status
    entries = []
    if change.call is not None:
        entries.append(
            history_row(
                change.request.id,
                now,
                change.call.kind,
                before,
                before,
                actor=change.actor,
                attempt=change.request.standing.attempts,
                outcome=change.call.outcome,
                detail=change.call.detail,
                duration_ms=change.call.duration_ms,
                response=change.call.response,
            )
        )
    for source, target in path(before, after):
        entries.append(
            history_row(
                change.request.id,
                now,
                "transition",
                source,
                target,
                actor=change.actor,
                attempt=change.after.attempts,
                outcome=change.outcome,
                detail=change.detail,
            )
        )
    if before is after and change.outcome:
        entries.append(
            history_row(
                change.request.id,
                now,
                "operation",
                before,
                after,
                actor=change.actor,
                attempt=change.after.attempts,
                outcome=change.outcome,
                detail=change.detail,
            )
        )
    return entries


def _events_of(change: Change, now: int) -> list[Event]:
    about = change.request.about
    after = change.after
    published = [
        events.transition(about, now, source, target, attempts=after.attempts, failure_reason=after.failure_reason)
        for source, target in path(change.request.standing.status, after.status)
    ]
    if change.dead_letter:
        reason = after.failure_reason or ""
        published.append(events.dead_lettered(about, now, attempts=after.attempts, failure_reason=reason))
    return published


def _dead_letter_row(change: Change, now: int) -> dict[str, Any]:
    return {
        "id": new_id(),
        "request_id": change.request.id,
        "partner_id": change.request.partner_id,
        "target_system": change.request.target_system,
        "reason": change.after.failure_reason,
        "detail": change.after.failure_detail or "",
        "attempts": change.after.attempts,
        "state": "open",
        "created_at": now,
    }
