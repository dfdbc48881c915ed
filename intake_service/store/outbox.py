"""The outbox: events that are committed and not yet published."""

from collections.abc import Callable, Sequence

import sqlalchemy as sa

from chassis.driver import texts, touch
from intake_service.events import Event
from intake_service.store.rows import among, listed
from intake_service.store.tables import outbox

BATCH = 500
_DELETE = texts(lambda dialect: sa.delete(outbox).where(among(outbox.c.id, dialect)))


def delete_published(connection: sa.Connection, _: int, items: Sequence[Sequence[str]]) -> list[None]:
    """Forget events that are in the streams. Each item is a list of ids."""
    event_ids = [event_id for item in items for event_id in item]
    touch(connection, _DELETE[connection.dialect.name], listed(event_ids))
    return [None] * len(items)


def read_left_behind(now: int, age: int) -> Callable[[sa.Connection], list[Event]]:
    """A query for the oldest events that are still unpublished at this age.

    Those that come from the future are among them: the clock was set back.
    """
    is_left = sa.not_(outbox.c.created_at.between(now - age + 1, now + age))
    statement = sa.select(outbox).where(is_left).order_by(outbox.c.id).limit(BATCH)
    return lambda connection: [Event(**row) for row in connection.execute(statement).mappings()]


def oldest_unpublished(connection: sa.Connection) -> int | None:
    """When the oldest unpublished event was committed."""
    statement = sa.select(outbox.c.created_at).order_by(outbox.c.id).limit(1)
    return connection.execute(statement).scalar_one_or_none()
