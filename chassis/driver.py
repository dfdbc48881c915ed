"""Statements on their shortest way to the database, for those that every request needs.

SQLAlchemy makes the text, once, and keeps the connection and its transaction. What it does around each execution (the
context, the result, a description of every column) costs more than the driver and the database together; here the
driver's own cursor executes. Rows come as the driver gives them: tuples, and on SQLite 0 and 1 for a boolean.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg.errors import InFailedSqlTransaction, OperationalError, error_from_result
from psycopg.pq import DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

Result = TypeVar("Result")
Parameters = Mapping[str, Any] | Sequence[Any]

_DIALECTS: Mapping[str, sa.Dialect] = {
    "sqlite": sqlite.dialect(paramstyle="named"),
    "postgresql": postgresql.dialect(paramstyle="pyformat"),  # type: ignore[no-untyped-call]
}
#: Where a connection keeps its cursor.
_CURSOR = "driver_cursor"


class PostgreSQLConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that commits with libpq's own call: the driver's ways around it cost three times as much."""

    def commit(self) -> None:
        """Commit what has begun. Raises: psycopg.Error; InFailedSqlTransaction where the server undid it instead."""
        if self.pgconn.transaction_status == TransactionStatus.IDLE:
            return
        if _exchange(self.pgconn, b"COMMIT").command_status != b"COMMIT":
            raise InFailedSqlTransaction("a statement of it had failed")


def texts(make: Callable[[str], sa.ClauseElement]) -> dict[str, str]:
    """What `make` gives for each dialect's name, as the driver takes it, with named parameters."""
    return {name: str(make(name).compile(dialect=dialect)) for name, dialect in _DIALECTS.items()}


def adapt_sqlite_values() -> None:
    """Tell sqlite3 how to bind what is no str, int or float: to look for a way each time, in vain, costs thrice."""
    sqlite3.register_adapter(bool, int)
    sqlite3.register_adapter(type(None), lambda absent: absent)


def begin(connection: sa.Connection, text: str) -> None:
    """Begin a transaction in the database's own words, while SQLAlchemy begins it. Raises: DBAPIError."""
    _with_cursor(connection, text, lambda cursor: cursor.execute(text))


def converse(connection: sa.Connection, text: str) -> str:
    """PostgreSQL: execute statements without parameters in one message; gives the last one's first value, as text.

    The driver sends a BEGIN apart, and its ways around both cost more than the server's work. Raises: DBAPIError.
    """

    def execute(cursor: Any) -> str:
        result = _exchange(cursor.connection.pgconn, text.encode())
        return (result.get_value(0, 0) or b"").decode()

    return _with_cursor(connection, text, execute)


def _exchange(pgconn: PGconn, text: bytes) -> PGresult:
    """Raises: psycopg.Error."""
    result = pgconn.exec_(text)
    if result.status in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        return result
    if result.error_field(DiagnosticField.SQLSTATE) is None:  # it is libpq's own word: there is no server
        raise OperationalError(result.get_error_message())
    raise error_from_result(result)


def fetch(connection: sa.Connection, text: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
    """Execute a query. Raises: DBAPIError, of the same class that SQLAlchemy raises."""
    _see_to_transaction(connection)
    return _with_cursor(connection, text, lambda cursor: cursor.execute(text, parameters).fetchall())


def touch(connection: sa.Connection, text: str, parameters: Parameters = ()) -> int:
    """Execute a change; gives how many rows it has touched. Raises: DBAPIError."""
    _see_to_transaction(connection)
    touched: int = _with_cursor(connection, text, lambda cursor: cursor.execute(text, parameters).rowcount)
    return touched


def touch_each(connection: sa.Connection, text: str, rows: Sequence[Parameters]) -> int:
    """Execute a change with each row of parameters; gives how many rows all have touched. Raises: DBAPIError."""

    def execute(cursor: Any) -> int:
        cursor.executemany(text, rows)
        touched: int = cursor.rowcount
        return touched

    _see_to_transaction(connection)
    return _with_cursor(connection, text, execute)


def _see_to_transaction(connection: sa.Connection) -> None:
    """As SQLAlchemy does before it executes."""
    if not connection.in_transaction():
        connection.begin()


def _with_cursor(connection: sa.Connection, text: str, execute: Callable[[Any], Result]) -> Result:
    cursor = _cursor_of(connection)
    try:
        return execute(cursor)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _translated(connection, cursor, text, error) from error


def _cursor_of(connection: sa.Connection) -> Any:
    """The connection's one cursor: to make one takes as long as to execute with it."""
    kept = connection.info
    cursor = kept.get(_CURSOR)
    if cursor is None:
        cursor = kept[_CURSOR] = connection.connection.cursor()
    return cursor


def _translated(connection: sa.Connection, cursor: Any, text: str, error: Exception) -> BaseException:
    """SQLAlchemy's error for the driver's; a connection that was lost is never given out again."""
    dialect = connection.dialect
    is_lost = dialect.is_disconnect(error, connection.connection.dbapi_connection, cursor)  # type: ignore[arg-type]
    if is_lost:
        connection.invalidate(error)
        connection.engine.dispose()  # those that rest went to the same server
    return DBAPIError.instance(
        text,
        None,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=is_lost,
        dialect=dialect,
    )
