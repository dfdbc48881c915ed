"""The tables. Instants are microseconds since 1970, UTC; `due_at` is set on every row that is not terminal."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData()

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")

integration_requests = sa.Table(
    "integration_requests",
    metadata,
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
_IS_WAITING, _HAS_ENDED = integration_requests.c.due_at.is_not(None), integration_requests.c.due_at.is_(None)
_IS_LEASED = integration_requests.c.leased_by.is_not(None)


def _columns(*names: str) -> Iterator[sa.Column[Any]]:
    return (integration_requests.c[name] for name in names)


# At each move PostgreSQL enters a request anew in every index that holds it: each holds what waits or what has ended.
sa.Index(
    "ix_integration_requests_due",
    *_columns("due_at"),
    sqlite_where=_IS_WAITING,
    postgresql_where=_IS_WAITING,
)
sa.Index(
    "ix_integration_requests_leased_by",
    *_columns("leased_by"),
    sqlite_where=_IS_LEASED,
    postgresql_where=_IS_LEASED,
)
# What waits: counted, and sifted by any filter of a list, without a look at the rows.
sa.Index(
    "ix_integration_requests_waiting",
    *_columns("partner_id", "created_at", "id", "target_system", "due_at", "correlation_id", "status"),
    sqlite_where=_IS_WAITING,
    postgresql_where=_IS_WAITING,
)
# What has ended: one for each filter of a list, in the order of its pages.
sa.Index(
    "ix_integration_requests_newest",
    *_columns("partner_id", "created_at", "id"),
    sqlite_where=_HAS_ENDED,
    postgresql_where=_HAS_ENDED,
)
sa.Index(
    "ix_integration_requests_ended",
    *_columns("partner_id", "status", "created_at", "id"),
    sqlite_where=_HAS_ENDED,
    postgresql_where=_HAS_ENDED,
)
sa.Index(
    "ix_integration_requests_target",
    *_columns("partner_id", "target_system", "created_at", "id"),
    sqlite_where=_HAS_ENDED,
    postgresql_where=_HAS_ENDED,
)
sa.Index(
    "ix_integration_requests_correlation",
    *_columns("partner_id", "correlation_id", "created_at", "id"),
    sqlite_where=_HAS_ENDED,
    postgresql_where=_HAS_ENDED,
)

#: On PostgreSQL the key is (request_id, seq), and the only index.
history = sa.Table(
    "integration_request_history",
    metadata,
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
    sa.Index("ix_integration_request_history_request", "request_id", "seq"),
)

#: A row holds the events of one commit, as JSON.
outbox_batches = sa.Table(
    "outbox_batches",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("events", sa.Text, nullable=False),
)

#: A row for each event, as versions before migration 0005 write it; only taken over.
outbox_before_0005 = sa.Table(
    "outbox",
    metadata,
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

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("worker_id", sa.String(128), primary_key=True),
    sa.Column("beat_at", sa.BigInteger, nullable=False),
)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
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
    sa.Index("ix_dead_letters_request", "request_id"),
    sa.Index("ix_dead_letters_state", "state", "id"),
)

payload_versions = sa.Table(
    "payload_versions",
    metadata,
    sa.Column("request_id", sa.String(36), primary_key=True),
    sa.Column("cycle", sa.Integer, primary_key=True),
    sa.Column("payload_json", sa.Text, nullable=False),
    sa.Column("replaced_at", sa.BigInteger, nullable=False),
    sa.Column("replaced_by", sa.String(255), nullable=False),
)
