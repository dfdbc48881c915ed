"""Rows as the pure code sees them: reading a request for a change, and selecting rows by a list of ids."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from chassis.driver import fetch, texts
from intake_service.events import About
from intake_service.integration_request import Standing, Status
from intake_service.store.payloads import PayloadKeys
from intake_service.store.tables import integration_requests as t

STANDING_COLUMNS = Standing._fields


class StoredRequest(NamedTuple):
    """A stored request; `payload_json` is empty unless it was asked for, and sealed until PayloadKeys opens it.

    A named tuple for the same reason as Standing.
    """

    id: str
    partner_id: str
    external_id: str
    source_system: str
    target_system: str
    correlation_id: str
    traceparent: str
    created_at: int
    updated_at: int
    version: int
    standing: Standing
    payload_json: str = ""

    @property
    def about(self) -> About:
        """What events say of it."""
        return About(self.id, self.external_id, self.correlation_id, self.traceparent, self.target_system)


#: The fields of StoredRequest before its standing, in their order.
_IDENTITY = StoredRequest._fields.index("standing")
_CORE = tuple(t.c[name] for name in (*StoredRequest._fields[:_IDENTITY], *STANDING_COLUMNS))
_PAYLOAD = len(_CORE)
#: The place of `in_doubt`; `timed_out` is the next.
_FLAGS = _IDENTITY + Standing._fields.index("in_doubt")
_STATUSES = {status.value: status for status in Status}
#: Everything but the payload.
WITHOUT_PAYLOAD = sa.select(*_CORE)
WITH_PAYLOAD = sa.select(*_CORE, t.c.payload_json)


def to_stored(row: Sequence[Any]) -> StoredRequest:
    """Build the object of a row selected by WITHOUT_PAYLOAD or WITH_PAYLOAD; by position, since it is done so often."""
    standing = Standing._make((_STATUSES[row[_IDENTITY]], *row[_IDENTITY + 1 : _PAYLOAD]))
    payload_json = row[_PAYLOAD] if len(row) > _PAYLOAD else ""
    return StoredRequest._make((*row[:_IDENTITY], standing, payload_json))


def opened_by(keys: PayloadKeys, request: StoredRequest) -> StoredRequest:
    """The request with its payload as it was accepted. Raises: PayloadNotReadable."""
    payload_json = keys.open(request.id, request.payload_json)
    return request if payload_json is request.payload_json else request._replace(payload_json=payload_json)


def among(column: sa.ColumnElement[str], dialect: str) -> sa.ColumnElement[bool]:
    """Match a list of any length with one statement text; the list is given at the execution, as `listed(ids)`."""
    if dialect == "sqlite":
        return column.in_(sa.text("SELECT value FROM json_each(:ids)"))
    return column == sa.text("ANY(ARRAY(SELECT json_array_elements_text(CAST(:ids AS JSON))))")


def listed(ids: Sequence[str]) -> dict[str, str]:
    """The parameter of `among`."""
    return {"ids": orjson.dumps(list(ids)).decode()}


def _locking(dialect: str, *, with_payload: bool, skip_locked: bool) -> sa.Select[Any]:
    if dialect == "sqlite":
        columns = (*_CORE, _SHORT_PAYLOAD) if with_payload else _CORE
        return sa.select(sa.func.json_group_array(sa.func.json_array(*columns))).where(among(t.c.id, dialect))
    statement = (WITH_PAYLOAD if with_payload else WITHOUT_PAYLOAD).where(among(t.c.id, dialect))
    # ordered, so that two transactions cannot lock the same rows in opposite order
    return statement.order_by(t.c.id).with_for_update(skip_locked=skip_locked)


#: In characters; a longer payload is read by itself, since JSON would hold it a second time, escaped.
SHORT_PAYLOAD = 4096
_SHORT_PAYLOAD = sa.case((sa.func.length(t.c.payload_json) <= sa.literal_column(str(SHORT_PAYLOAD)), t.c.payload_json))
_PAYLOADS = texts(lambda dialect: sa.select(t.c.id, t.c.payload_json).where(among(t.c.id, dialect)))
#: By what is wanted (with the payload, skipping what is locked), then by dialect.
_LOCKING = {
    wanted: texts(partial(_locking, with_payload=wanted[0], skip_locked=wanted[1]))
    for wanted in product((False, True), repeat=2)
}


def lock_requests(
    connection: sa.Connection, ids: Sequence[str], *, with_payload: bool = False, skip_locked: bool = False
) -> dict[str, StoredRequest]:
    """Read requests for a change; no other transaction changes them until this one ends.

    With `skip_locked`, those that another transaction holds are left out instead of waited for. On SQLite the
    whole transaction is the lock (BEGIN IMMEDIATE), and the rows come as one of JSON: at each row that it fetches the
    thread gives the interpreter away, and waits for it while the event loop has work.
    """
    text = _LOCKING[with_payload, skip_locked][connection.dialect.name]
    rows = fetch(connection, text, listed(ids))
    if connection.dialect.name == "sqlite":
        rows = _from_json(connection, rows[0][0], with_payload=with_payload)
    return {row[0]: to_stored(row) for row in rows}


def _from_json(connection: sa.Connection, text: str, *, with_payload: bool) -> list[tuple[Any, ...]]:
    rows: list[list[Any]] = orjson.loads(text)
    if with_payload and (long := {row[0]: row for row in rows if row[_PAYLOAD] is None}):
        for request_id, payload_json in fetch(connection, _PAYLOADS["sqlite"], listed(list(long))):
            long[request_id][_PAYLOAD] = payload_json
    return list(map(_with_booleans, rows))


def _with_booleans(row: Sequence[Any]) -> tuple[Any, ...]:
    """SQLite has none."""
    return (*row[:_FLAGS], bool(row[_FLAGS]), bool(row[_FLAGS + 1]), *row[_FLAGS + 2 :])
