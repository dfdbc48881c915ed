"""Writes of the public door: creating requests and cancelling them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from chassis.access import Owner
from chassis.errors import DuplicateExternalId, HubError, IntegrationRequestNotFound, NotCancellable
from chassis.many_rows import ManyRows
from intake_service import events
from intake_service.events import OutboxRow
from intake_service.integration_request import FIRST_RING_SECONDS, SECOND, Standing, Status, cancel, is_cancellable
from intake_service.store.changes import Change, add, created_row, record
from intake_service.store.payloads import payload_keys_of
from intake_service.store.rows import StoredRequest, among, listed, lock_requests
from intake_service.store.tables import integration_requests as t

_INSERT = ManyRows(
    t, [column.name for column in t.columns], unless_there=("partner_id", "external_id"), one_by_one=True
)


class NewRequest(NamedTuple):
    """A checked request that is not stored yet."""

    id: str
    partner_id: str
    external_id: str
    source_system: str
    target_system: str
    payload_json: str
    correlation_id: str
    traceparent: str
    ttl_seconds: float
    actor: str


class Created(NamedTuple):
    """A stored request."""

    request: StoredRequest
    #: Of the whole batch; the first answer carries them out.
    outbox: Sequence[OutboxRow] = ()


def create_requests(connection: sa.Connection, now: int, items: Sequence[NewRequest]) -> list[Created | HubError]:
    """Store new requests with their first history entry and event; a duplicate stores nothing.

    Items are inserted in the order of their key, so that two transactions cannot wait for each other.
    """
    stored = {item.id: _stored(item, now) for item in items}
    ordered = sorted(items, key=lambda item: (item.partner_id, item.external_id))
    keys = payload_keys_of(connection)
    rows = [_row(stored[item.id], keys.seal(item.id, item.payload_json)) for item in ordered]
    inserted = _INSERT.execute(connection, rows)
    refused: dict[str, HubError] = {}
    if inserted != len(items):
        refused = _duplicates(connection, items)
    accepted = [item for item in items if item.id not in refused]
    published = [events.created(stored[item.id].about, now) for item in accepted]
    told = add(connection, now, [created_row(item.id, now, item.actor) for item in accepted], published)
    answers: list[Created | HubError] = []
    for item in items:
        if item.id in refused:
            answers.append(refused[item.id])
        else:
            answers.append(Created(stored[item.id], told))
            told = []
    return answers


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequest:
    """An owner's wish to cancel."""

    id: str
    owner: Owner
    detail: str
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """The cancelled request and its outbox rows."""

    request: StoredRequest
    outbox: Sequence[OutboxRow]


def cancel_requests(connection: sa.Connection, now: int, items: Sequence[CancelRequest]) -> list[Cancelled | HubError]:
    """Cancel requests that are not, and cannot be, with the external system."""
    results: list[Cancelled | HubError] = []
    for item in items:
        request = lock_requests(connection, [item.id]).get(item.id)
        if request is None or not _is_owned(request, item.owner):
            results.append(IntegrationRequestNotFound(item.id))
        elif not is_cancellable(request.standing):
            status = request.standing.status.word
            results.append(
                NotCancellable(f"The request is {status} and can no longer be cancelled; read it.", status=status)
            )
        else:
            after = cancel(request.standing, item.detail or "Cancelled by the partner.")
            change = Change(request=request, after=after, actor=item.actor, outcome="cancelled", detail=item.detail)
            rows = record(connection, now, [change])
            results.append(Cancelled(request=changed(request, after, now), outbox=rows))
    return results


def changed(request: StoredRequest, after: Standing, now: int) -> StoredRequest:
    """The request as `record` left it."""
    return request._replace(standing=after, updated_at=now, version=request.version + 1)


def _is_owned(request: StoredRequest, owner: Owner) -> bool:
    return request.partner_id == owner.partner_id and owner.limits.allow(request.source_system, request.target_system)


def _stored(item: NewRequest, now: int) -> StoredRequest:
    return StoredRequest(
        id=item.id,
        partner_id=item.partner_id,
        external_id=item.external_id,
        source_system=item.source_system,
        target_system=item.target_system,
        correlation_id=item.correlation_id,
        traceparent=item.traceparent,
        created_at=now,
        updated_at=now,
        version=1,
        standing=Standing(
            status=Status.RECEIVED,
            due_at=now + FIRST_RING_SECONDS * SECOND,
            expires_at=now + round(item.ttl_seconds * SECOND),
        ),
    )


def _row(request: StoredRequest, payload_json: str) -> tuple[Any, ...]:
    """In the order of the columns."""
    return (
        request.id,
        request.partner_id,
        request.external_id,
        request.source_system,
        request.target_system,
        payload_json,
        request.standing.status.word,
        request.correlation_id,
        request.traceparent,
        *request.standing[1:],
        request.created_at,
        request.updated_at,
        request.version,
    )


def _duplicates(connection: sa.Connection, items: Sequence[NewRequest]) -> dict[str, HubError]:
    """Which of the items were not inserted, and the requests that hold their keys."""
    stored = sa.select(t.c.id).where(among(t.c.id, connection.dialect.name))
    inserted = set(connection.execute(stored, listed([item.id for item in items])).scalars())
    refused: dict[str, HubError] = {}
    for item in items:
        if item.id not in inserted:
            existing = connection.execute(
                sa.select(t.c.id, t.c.status).where(
                    t.c.partner_id == item.partner_id, t.c.external_id == item.external_id
                )
            ).one()
            refused[item.id] = DuplicateExternalId(item.external_id, existing.id, existing.status)
    return refused
