"""What happened can be added to and never changed (pre-deploy: the code before this only adds, too).

Neither a mistake in the hub nor a statement written by hand rewrites the story of a request, the payload that an
operator replaced, or an operator's decision. Whoever owns the tables can take the triggers away, which is seen.
"""

from alembic import op

revision = "0003"
down_revision = "0001"
branch_labels = None
depends_on = None

#: Table → what of it may not be changed.
_KEPT = {
    "integration_request_history": "",
    "payload_versions": "",
    "dead_letters": "WHEN (OLD.state <> 'open')",
}
_FUNCTION = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$
"""


def upgrade() -> None:
    """Have the database itself refuse."""
    is_sqlite = op.get_context().dialect.name == "sqlite"
    if not is_sqlite:
        op.execute(_FUNCTION)
    for table, condition in _KEPT.items():
        for operation, which in (("UPDATE", condition), ("DELETE", "")):
            refusal = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            op.execute(
                f"CREATE TRIGGER {table}_no_{operation.lower()} BEFORE {operation} ON {table} FOR EACH ROW {which} "
                + (refusal if is_sqlite else "EXECUTE FUNCTION refuse_change()")
            )
