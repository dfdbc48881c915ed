"""Reads of the public door: straight from SQL, without the entity's rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from chassis.access import Owner
from intake_service.integration_request import Status
from intake_service.store.payloads import payload_keys_of
from intake_service.store.rows import WITH_PAYLOAD, WITHOUT_PAYLOAD, StoredRequest, opened_by, to_stored
from intake_service.store.tables import history
from intake_service.store.tables import integration_requests as t

_WAITS, _HAS_ENDED = t.c.due_at.is_not(None), t.c.due_at.is_(None)
_NEWEST_FIRST = (t.c.created_at.desc(), t.c.id.desc())
_OWNED = sa.select(t.c.id)
_HISTORY = sa.select(history).where(history.c.request_id == sa.bindparam("b_id")).order_by(history.c.seq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a list shows. The owner is part of every query, never of the caller's good will."""

    owner: Owner
    status: str = ""
    external_id: str = ""
    target_system: str = ""
    correlation_id: str = ""
    created_after: int | None = None
    created_before: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a page ends: the last row's place in the order (created_at, id), both descending."""

    created_at: int
    id: str


def get_request(
    request_id: str, owner: Owner, *, with_payload: bool = True
) -> Callable[[sa.Connection], StoredRequest | None]:
    """A query for one request of an owner, with its payload or without; it raises PayloadNotReadable."""
    statement = (WITH_PAYLOAD if with_payload else WITHOUT_PAYLOAD).where(t.c.id == request_id, *_owned_by(owner))

    def query(connection: sa.Connection) -> StoredRequest | None:
        row = connection.execute(statement).one_or_none()
        return opened_by(payload_keys_of(connection), to_stored(row)) if row is not None else None

    return query


def list_requests(wanted: Filter, after: Position | None, limit: int) -> Callable[[sa.Connection], list[StoredRequest]]:
    """A query for a page, newest first, without payloads.

    What waits and what has ended are in indexes of their own: a page of both is merged of one of each.
    """
    conditions = _owned_by(wanted.owner)
    named = (t.c.status, t.c.external_id, t.c.target_system, t.c.correlation_id)
    conditions += [column == value for column in named if (value := getattr(wanted, column.name))]
    if wanted.created_after is not None:
        conditions.append(t.c.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(t.c.created_at < wanted.created_before)
    if after is not None:
        conditions.append(sa.tuple_(t.c.created_at, t.c.id) < sa.tuple_(after.created_at, after.id))
    select = WITHOUT_PAYLOAD.where(*conditions).order_by(*_NEWEST_FIRST).limit(limit)
    pages = [select.where(half) for half in _halves(wanted)]
    statement = pages[0] if len(pages) == 1 else _merged(pages, limit)
    return lambda connection: [to_stored(row) for row in connection.execute(statement)]


def list_history(request_id: str, owner: Owner | None) -> Callable[[sa.Connection], list[sa.Row[Any]] | None]:
    """A query for the story of one request; None when the owner has no such request, None as owner asks for any."""

    def query(connection: sa.Connection) -> list[sa.Row[Any]] | None:
        if owner is not None:
            owned = connection.execute(_OWNED.where(t.c.id == request_id, *_owned_by(owner))).one_or_none()
            if owned is None:
                return None
        return list(connection.execute(_HISTORY, {"b_id": request_id}))

    return query


def _halves(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    if wanted.external_id:
        return [sa.true()]  # one request at most, in the index that keeps it the only one
    if wanted.status:
        return [_HAS_ENDED if Status(wanted.status).is_terminal else _WAITS]
    return [_WAITS, _HAS_ENDED]


def _merged(pages: Sequence[sa.Select[Any]], limit: int) -> sa.CompoundSelect[Any]:
    rows = sa.union_all(*(sa.select(page.subquery()) for page in pages))
    found = rows.selected_columns
    return rows.order_by(found.created_at.desc(), found.id.desc()).limit(limit)


def _owned_by(owner: Owner) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [t.c.partner_id == owner.partner_id]
    if owner.limits.sources is not None:
        conditions.append(t.c.source_system.in_(sorted(owner.limits.sources)))
    if owner.limits.targets is not None:
        conditions.append(t.c.target_system.in_(sorted(owner.limits.targets)))
    return conditions
