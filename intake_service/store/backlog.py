"""How much waits."""

from dataclasses import dataclass

import sqlalchemy as sa

from intake_service.store.tables import dead_letters as d
from intake_service.store.tables import integration_requests as t

_WAITING = (
    sa.select(t.c.partner_id, sa.func.count().label("waiting")).where(t.c.due_at.is_not(None)).group_by(t.c.partner_id)
)
# Every partner has a name: said for SQLite, which else looks at every row instead of the index that holds what waits.
_WAITING_BY_TARGET = (
    sa.select(t.c.target_system, sa.func.count().label("waiting"), sa.func.min(t.c.created_at).label("oldest"))
    .where(t.c.due_at.is_not(None), t.c.partner_id > sa.literal_column("''"))
    .group_by(t.c.target_system)
)
_OPEN_DEAD_LETTERS = (
    sa.select(d.c.target_system, sa.func.count().label("open")).where(d.c.state == "open").group_by(d.c.target_system)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits for one target."""

    requests: int
    oldest_created_at: int | None
    dead_letters: int


def count_waiting(connection: sa.Connection) -> dict[str, int]:
    """Requests that are not terminal, by partner."""
    return {row.partner_id: row.waiting for row in connection.execute(_WAITING)}


def read_waiting(connection: sa.Connection) -> dict[str, Waiting]:
    """Requests that are not terminal and dead letters that are open, by target."""
    requests = {row.target_system: row for row in connection.execute(_WAITING_BY_TARGET)}
    letters = {row.target_system: row.open for row in connection.execute(_OPEN_DEAD_LETTERS)}
    return {
        target: Waiting(
            requests=requests[target].waiting if target in requests else 0,
            oldest_created_at=requests[target].oldest if target in requests else None,
            dead_letters=letters.get(target, 0),
        )
        for target in requests.keys() | letters.keys()
    }
