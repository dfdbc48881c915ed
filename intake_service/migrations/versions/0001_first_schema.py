"""The first schema (pre-deploy)."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "integration_requests",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("partner_id", sa.String(255), nullable=False),
        sa.Column("external_id", sa.String(128), nullable=False),
        sa.Column("source_system", sa.String(128), nullable=False),
        sa.Column("target_system", sa.String(128), nullable=False),
        sa.Column("payload_json", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("correlation_id", sa.String(128), nullable=False),
        sa.Column("traceparent", sa.String(64), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("retries", sa.Integer, nullable=False),
        sa.Column("lookups", sa.Integer, nullable=False),
        sa.Column("claims", sa.Integer, nullable=False),
        sa.Column("cycle", sa.Integer, nullable=False),
        sa.Column("rings", sa.Integer, nullable=False),
        sa.Column("in_doubt", sa.Boolean, nullable=False),
        sa.Column("timed_out", sa.Boolean, nullable=False),
        sa.Column("lease_token", sa.BigInteger, nullable=False),
        sa.Column("sent_token", sa.BigInteger, nullable=False),
        sa.Column("leased_by", sa.String(128)),
        sa.Column("sent_at", sa.BigInteger),
        sa.Column("due_at", sa.BigInteger),
        sa.Column("next_attempt_at", sa.BigInteger),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("failure_reason", sa.String(32)),
        sa.Column("failure_detail", sa.Text),
        sa.Column("external_response_json", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("partner_id", "external_id", name="uq_integration_requests_external_id"),
    )
    op.create_table(
        "integration_request_history",
        sa.Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("from_status", sa.String(16)),
        sa.Column("to_status", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("duration_ms", sa.Float, nullable=False),
        sa.Column("response", sa.Text, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("correlation_id", sa.String(128), nullable=False),
        sa.Column("traceparent", sa.String(64), nullable=False),
        sa.Column("target_system", sa.String(128), nullable=False),
        sa.Column("rings", sa.Boolean, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "workers",
        sa.Column("worker_id", sa.String(128), primary_key=True),
        sa.Column("beat_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("partner_id", sa.String(255), nullable=False),
        sa.Column("target_system", sa.String(128), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("settled_at", sa.BigInteger),
        sa.Column("settled_by", sa.String(255)),
        sa.Column("settled_reason", sa.Text),
    )
    op.create_table(
        "payload_versions",
        sa.Column("request_id", sa.String(36), primary_key=True),
        sa.Column("cycle", sa.Integer, primary_key=True),
        sa.Column("payload_json", sa.Text, nullable=False),
        sa.Column("replaced_at", sa.BigInteger, nullable=False),
        sa.Column("replaced_by", sa.String(255), nullable=False),
    )
    op.create_index(
        "ix_integration_requests_due",
        "integration_requests",
        ["due_at"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_integration_requests_leased_by",
        "integration_requests",
        ["leased_by"],
        sqlite_where=sa.text("leased_by IS NOT NULL"),
        postgresql_where=sa.text("leased_by IS NOT NULL"),
    )
    op.create_index("ix_integration_requests_newest", "integration_requests", ["partner_id", "created_at", "id"])
    op.create_index("ix_integration_request_history_request", "integration_request_history", ["request_id", "seq"])
    op.create_index("ix_dead_letters_request", "dead_letters", ["request_id"])
    op.create_index("ix_dead_letters_state", "dead_letters", ["state", "id"])
