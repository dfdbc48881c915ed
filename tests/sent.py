"""What is sent to a database, by SQLAlchemy or by the short way of chassis/driver.py."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from chassis import driver

Sent = list[tuple[str, Any]]


@contextmanager
def statements(engine: sa.Engine) -> Iterator[Sent]:
    """What is sent meanwhile, each with the parameters of its first row; rows that travel together are one statement.

    SQLite's BEGIN is among them; PostgreSQL's, which asks for the time, is not.
    """
    sent: Sent = []
    cursor_of = driver._cursor_of  # noqa: SLF001 - the one place that every such statement passes

    def remember(_c: Any, _u: Any, text: str, parameters: Any, _x: Any, many: bool) -> None:
        sent.append((text, parameters[0] if many or isinstance(parameters, list) else parameters))

    def remembering(connection: sa.Connection) -> Any:
        cursor = cursor_of(connection)
        return _Remembering(cursor, sent) if connection.engine.pool is engine.pool else cursor

    sa.event.listen(engine, "before_cursor_execute", remember)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(driver, "_cursor_of", remembering)
            yield sent
    finally:
        sa.event.remove(engine, "before_cursor_execute", remember)


class _Remembering:
    """A cursor that notes what it executes."""

    def __init__(self, cursor: Any, sent: Sent) -> None:
        self._cursor = cursor
        self._sent = sent

    def execute(self, text: str, parameters: Any = ()) -> Any:
        self._sent.append((text, parameters))
        return self._cursor.execute(text, parameters)

    def executemany(self, text: str, rows: Sequence[Any]) -> None:
        self._sent.append((text, rows[0]))
        self._cursor.executemany(text, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)
