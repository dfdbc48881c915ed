"""Deleting what has ended long ago: a request with its history, its settled dead letters and its replaced payloads.

Never deleted: what has not ended, and what has a dead letter that nobody has settled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from intake_service.store.rows import among, listed
from intake_service.store.tables import dead_letters, history, payload_versions
from intake_service.store.tables import integration_requests as t

#: Requests looked at in one transaction: few, since whoever shares it waits for them too.
BATCH = 50

#: Ids rise with the time of acceptance, so the oldest are at the beginning of the primary key.
_OLDEST = (
    sa.select(t.c.id, t.c.due_at, t.c.updated_at)
    .where(t.c.id > sa.bindparam("b_after_id"), t.c.id < sa.bindparam("b_until_id"))
    .order_by(t.c.id)
    .limit(BATCH)
)
_NEWEST = sa.select(t.c.updated_at).where(t.c.id > "0").order_by(t.c.id.desc()).limit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The next step of a pass: what follows `after_id`, below `until_id`, and has ended before an instant."""

    after_id: str
    until_id: str
    ended_before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a step has done; the next one goes on after `last_id`, which is empty when the pass is over."""

    deleted: int
    #: Old enough, and kept for their open dead letters.
    kept: int
    last_id: str


def sweep(connection: sa.Connection, _: int, items: Sequence[Sweep]) -> list[Swept]:
    """Delete in small steps. What another transaction holds is left for the next pass."""
    return [_sweep(connection, item) for item in items]


def newest_change(connection: sa.Connection) -> int | None:
    """When the newest request last changed; None when there is none."""
    return connection.execute(_NEWEST).scalar_one_or_none()


def _sweep(connection: sa.Connection, item: Sweep) -> Swept:
    oldest = _OLDEST if connection.dialect.name == "sqlite" else _OLDEST.with_for_update(skip_locked=True)
    rows = connection.execute(oldest, {"b_after_id": item.after_id, "b_until_id": item.until_id}).all()
    ended = [row.id for row in rows if row.due_at is None and row.updated_at < item.ended_before]
    is_open = sa.select(dead_letters.c.request_id).where(
        among(dead_letters.c.request_id, connection.dialect.name), dead_letters.c.state == "open"
    )
    kept = set(connection.execute(is_open, listed(ended)).scalars()) if ended else set()
    doomed = [request_id for request_id in ended if request_id not in kept]
    if doomed:
        # the request first: the database lets go of what is on record only when its request is gone
        for column in (t.c.id, history.c.request_id, dead_letters.c.request_id, payload_versions.c.request_id):
            connection.execute(sa.delete(column.table).where(among(column, connection.dialect.name)), listed(doomed))
    return Swept(deleted=len(doomed), kept=len(kept), last_id=rows[-1].id if rows else "")
