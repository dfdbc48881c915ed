"""Lists read what waits from one index and what has ended from others, which a request enters once (pre-deploy).

On PostgreSQL every move enters a request anew in all indexes that hold it. Replacing them locks the table, for reads
too, about five seconds per million requests; intakes that still run answer "repeat" meanwhile. The lists of these find
the same, but without a status they read all requests of a partner until they are replaced as well.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLE = "integration_requests"
_WAITING = ["partner_id", "created_at", "id", "target_system", "due_at", "correlation_id", "status"]


def upgrade() -> None:
    """Replace the indexes."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL statement_timeout = 0")  # the hub's own 15 s is for work, not for this
    _replace("waiting", _WAITING, where="due_at IS NOT NULL")
    _replace("newest", ["partner_id", "created_at", "id"])
    _replace("target", ["partner_id", "target_system", "created_at", "id"])
    _replace("correlation", ["partner_id", "correlation_id", "created_at", "id"])


def _replace(name: str, columns: list[str], *, where: str = "due_at IS NULL") -> None:
    op.drop_index(f"ix_{_TABLE}_{name}", _TABLE)  # first: a lock taken at the end could deadlock with writers
    condition = sa.text(where)
    op.create_index(f"ix_{_TABLE}_{name}", _TABLE, columns, sqlite_where=condition, postgresql_where=condition)
