"""What happened can be added to and never changed (pre-deploy: the code before this only adds, too).

Neither a mistake in the hub nor a statement written by hand rewrites the story of a request, the payload that an
operator replaced, or an operator's decision; they go only after their request, when its time is over, and a request
goes only when it has ended. Whoever owns the tables can take the triggers away, which is seen.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

#: Table → which of its rows may not be changed.
_KEPT = {
    "integration_request_history": "",
    "payload_versions": "",
    "dead_letters": "WHEN (OLD.state <> 'open')",
}
_OPEN_REQUEST = "WHEN (OLD.due_at IS NOT NULL)"
_HAS_REQUEST = "EXISTS (SELECT 1 FROM integration_requests WHERE id = OLD.request_id)"
_FUNCTIONS = (
    """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$
""",
    f"""
CREATE FUNCTION refuse_delete_before_request() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF {_HAS_REQUEST} THEN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN OLD;
END $$
""",
)


def upgrade() -> None:
    """Have the database itself refuse."""
    is_sqlite = op.get_context().dialect.name == "sqlite"
    if not is_sqlite:
        for function in _FUNCTIONS:
            op.execute(function)
    for table, which in _KEPT.items():
        _refuse("UPDATE", table, which, _raise(table) if is_sqlite else "EXECUTE FUNCTION refuse_change()")
        unless_gone = _raise(table, f"WHERE {_HAS_REQUEST}")
        _refuse("DELETE", table, "", unless_gone if is_sqlite else "EXECUTE FUNCTION refuse_delete_before_request()")
    refuse = _raise("integration_requests") if is_sqlite else "EXECUTE FUNCTION refuse_change()"
    _refuse("DELETE", "integration_requests", _OPEN_REQUEST, refuse)


def _refuse(operation: str, table: str, which: str, action: str) -> None:
    name = f"{table}_no_{operation.lower()}"
    op.execute(f"CREATE TRIGGER {name} BEFORE {operation} ON {table} FOR EACH ROW {which} {action}")


def _raise(table: str, condition: str = "") -> str:
    return f"BEGIN SELECT RAISE(ABORT, '{table} is append-only') {condition}; END"
