"""Dead letters: reading them, and settling each at most once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from intake_service.events import Event
from intake_service.integration_request import Status, redrive
from intake_service.store.changes import Change, record
from intake_service.store.rows import StoredRequest, lock_requests
from intake_service.store.tables import dead_letters as d
from intake_service.store.tables import integration_requests as t
from intake_service.store.tables import payload_versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters: by ids (of dead letters or requests), or by filter."""

    ids: tuple[str, ...] = ()
    target_system: str = ""
    reason: str = ""
    partner_id: str = ""
    state: str = ""
    created_after: int | None = None
    created_before: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """An operator's decision on one dead letter; `payload_json` replaces the payload on a redrive."""

    dead_letter_id: str
    state: str
    operator: str
    reason: str
    ttl_seconds: float = 0
    payload_json: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of it: redriven, discarded, not_open or not_found."""

    result: str
    request_id: str
    events: list[Event]


def select_dead_letters(
    wanted: Selection, *, before_id: str = "", limit: int | None = None
) -> Callable[[sa.Connection], list[sa.Row[Any]]]:
    """A query for dead letters, newest first."""
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.ids:
        conditions.append(sa.or_(d.c.id.in_(wanted.ids), d.c.request_id.in_(wanted.ids)))
    named = (d.c.target_system, d.c.reason, d.c.partner_id, d.c.state)
    conditions += [column == value for column in named if (value := getattr(wanted, column.name))]
    if wanted.created_after is not None:
        conditions.append(d.c.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(d.c.created_at < wanted.created_before)
    if before_id:
        conditions.append(d.c.id < before_id)
    statement = sa.select(d).where(*conditions).order_by(d.c.id.desc())
    if limit is not None:
        statement = statement.limit(limit)
    return lambda connection: list(connection.execute(statement))


def settle_dead_letters(connection: sa.Connection, now: int, items: Sequence[Settle]) -> list[Settled]:
    """Redrive or discard; compare-and-set on the open state, so that each is settled once."""
    return [_settle(connection, now, item) for item in items]


def _settle(connection: sa.Connection, now: int, item: Settle) -> Settled:
    row = connection.execute(sa.select(d).where(d.c.id == item.dead_letter_id)).one_or_none()
    if row is None:
        return Settled(result="not_found", request_id="", events=[])
    request = lock_requests(connection, [row.request_id], with_payload=True)[row.request_id]
    settled = (
        connection.execute(
            sa.update(d)
            .where(d.c.id == item.dead_letter_id, d.c.state == "open")
            .values(state=item.state, settled_at=now, settled_by=item.operator, settled_reason=item.reason)
        ).rowcount
        if request.standing.status is Status.FAILED
        else 0
    )
    if not settled:
        return Settled(result="not_open", request_id=row.request_id, events=[])
    published = record(connection, now, [_change(request, item, now)])
    if item.payload_json is not None:
        _replace_payload(connection, now, request, item)
    return Settled(result=item.state, request_id=request.id, events=published)


def _change(request: StoredRequest, item: Settle, now: int) -> Change:
    after = redrive(request.standing, now, item.ttl_seconds) if item.state == "redriven" else request.standing
    return Change(request=request, after=after, actor=item.operator, outcome=item.state, detail=item.reason)


def _replace_payload(connection: sa.Connection, now: int, request: StoredRequest, item: Settle) -> None:
    connection.execute(
        sa.insert(payload_versions),
        {
            "request_id": request.id,
            "cycle": request.standing.cycle,
            "payload_json": request.payload_json,
            "replaced_at": now,
            "replaced_by": item.operator,
        },
    )
    connection.execute(sa.update(t).where(t.c.id == request.id).values(payload_json=item.payload_json))
