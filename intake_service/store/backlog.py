"""How many requests wait."""

import sqlalchemy as sa

from intake_service.store.tables import integration_requests as t

_WAITING = (
    sa.select(t.c.partner_id, sa.func.count().label("waiting")).where(t.c.due_at.is_not(None)).group_by(t.c.partner_id)
)


def count_waiting(connection: sa.Connection) -> dict[str, int]:
    """Requests that are not terminal, by partner."""
    return {row.partner_id: row.waiting for row in connection.execute(_WAITING)}
