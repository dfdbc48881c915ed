"""The outbox: events that are committed and not yet published.

What a commit tells is one row, whatever the number of its events: a row for each event cost PostgreSQL a third of all
its work (decision 10).
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from chassis.driver import texts, touch
from chassis.ids import new_id
from chassis.many_rows import FewRows, Write, execute_together
from intake_service.events import Event, OutboxRow
from intake_service.store.rows import among, listed
from intake_service.store.tables import outbox_batches, outbox_before_0005

#: Rows read at once; each may hold a thousand events.
BATCH = 50
#: Of an intake of the version before: a row holds one event.
BATCH_BEFORE_0005 = 500
_INSERT = FewRows(outbox_batches, OutboxRow._fields)
_DELETE = texts(lambda dialect: sa.delete(outbox_batches).where(among(outbox_batches.c.id, dialect)))
_pack = msgspec.json.Encoder().encode
_unpack = msgspec.json.Decoder(list[Event]).decode


def rows_of(published: Sequence[Event], now: int) -> list[OutboxRow]:
    """The row of these events; none without events."""
    return [OutboxRow(new_id(), now, published)] if published else []


def insertion(rows: Sequence[OutboxRow]) -> Write:
    """What writes rows, to be executed together with the change that they tell of."""
    return _INSERT, [(row_id, created_at, _pack(events).decode()) for row_id, created_at, events in rows]


def delete_published(connection: sa.Connection, _: int, items: Sequence[Sequence[str]]) -> list[None]:
    """Forget rows whose events are in the streams. Each item is a list of ids."""
    touch(connection, _DELETE[connection.dialect.name], listed([row_id for item in items for row_id in item]))
    return [None] * len(items)


def probe(connection: sa.Connection, now: int, items: Sequence[None]) -> list[None]:
    """Write a row without events and take it back: a commit that nobody sees, and that a full disk refuses."""
    row = OutboxRow(new_id(), now, [])
    execute_together(connection, insertion([row]))
    return delete_published(connection, now, [[row.id] for _ in items])


def adopt(connection: sa.Connection, now: int, ages: Sequence[int]) -> list[None]:
    """Make a row of what an intake of the version before has left: it may run, and end, beside this one."""
    old = outbox_before_0005
    left = _left_behind(old, now, min(ages)).with_only_columns(old.c.id).limit(BATCH_BEFORE_0005)
    if ids := list(connection.execute(left).scalars()):
        taken = sa.delete(old).where(among(old.c.id, connection.dialect.name)).returning(*old.c)
        rows = sorted(connection.execute(taken, listed(ids)), key=lambda row: str(row.id))
        events = [Event(*row[1:-1]) for row in rows]
        execute_together(connection, insertion(rows_of(events, min((row.created_at for row in rows), default=now))))
    return [None] * len(ages)


def read_left_behind(now: int, age: int) -> Callable[[sa.Connection], list[OutboxRow]]:
    """A query for the oldest rows that are still unpublished at this age.

    Those that come from the future are among them: the clock was set back.
    """
    statement = _left_behind(outbox_batches, now, age).limit(BATCH)
    return lambda connection: [
        OutboxRow(row.id, row.created_at, _unpack(row.events)) for row in connection.execute(statement)
    ]


def _left_behind(table: sa.Table, now: int, age: int) -> sa.Select[Any]:
    is_young = table.c.created_at.between(now - age + 1, now + age)
    return sa.select(table).where(sa.not_(is_young)).order_by(table.c.id)


def oldest_unpublished(connection: sa.Connection) -> int | None:
    """When the oldest unpublished event was committed."""
    statement = sa.select(outbox_batches.c.created_at).order_by(outbox_batches.c.id).limit(1)
    return connection.execute(statement).scalar_one_or_none()
