"""One statement for many rows of the same columns, compiled once per database.

SQLAlchemy prepares each row's parameters anew, which costs more than the database does. Here rows are tuples in the
order of the statement's columns and hold only what drivers take: str, int, float, bool, None.

    SQLite        the driver executes the statement with each SEVERAL rows, and with each one of the rest: at every
                  execution the thread gives the interpreter away, and waits for it while the event loop has work
    PostgreSQL    one statement takes all rows as a JSON document: one for each costs client and server twice as much;
                  and several such statements go there and back together. What all rows of a batch have in common
                  stands once, beside them: the server reads a batch of 60 in half the time. The document's rows are
                  structs, since a dictionary for each costs three times as much
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from chassis.driver import fetch, touch, touch_each

Columns = Mapping[str, sa.ColumnElement[Any]]
Change = Callable[[Columns], sa.Update]

#: Of a document's long texts: both sides hold it, PostgreSQL up to 1 GB, and while it is made no other thread runs.
MAX_DOCUMENT_CHARACTERS = 8 * 1024 * 1024
#: Fewer rows are not searched for what they have in common.
FEW_ROWS = 8
#: Rows of one execution on SQLite. More would leave more of a batch over, to be executed row by row.
SEVERAL = 32
#: Of the long texts of such a row, on average.
MOST_CHARACTERS = 4096
_SAME, _ROWS = "same", "rows"
_encode = msgspec.json.Encoder().encode


class ManyRows:
    """Inserts or updates."""

    def __init__(
        self,
        table: sa.Table,
        columns: Sequence[str],
        change: Change | None = None,
        *,
        unless_there: Sequence[str] = (),
        else_set: Sequence[str] = (),
        one_by_one: bool = False,
    ) -> None:
        """`change` makes an update with what it finds for each column's name, in the order of `columns`.

        Without it the rows are inserted, but for those whose columns `unless_there` are in the table already: of these
        `else_set` are set. On SQLite rows go `one_by_one` where a group brings nothing, or where newer versions would
        find it by another index than its key's.
        """
        self._table = table
        self._columns = tuple(map(str, columns))  # a quoted name is none for a struct
        self._long = [place for place, name in enumerate(columns) if isinstance(table.c[name].type, sa.Text)]
        self._change = change
        self._unless_there = tuple(unless_there)
        self._else_set = tuple(else_set)
        self._one_by_one = one_by_one
        #: By dialect and, on SQLite, the number of rows that it takes.
        self._texts: dict[tuple[str, int], str] = {}

    def execute(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Execute with all rows; gives how many rows of the table were touched."""
        if not rows:
            return 0
        if connection.dialect.name == "sqlite":
            return self._execute_in_turn(connection, rows)
        text = self.text(connection.dialect)
        return sum(touch(connection, text, document) for document in self.documents(rows))

    def text(self, dialect: sa.Dialect, count: int = 1) -> str:
        """The statement as the driver takes it; on SQLite for so many rows."""
        text = self._texts.get((dialect.name, count))
        if text is None:
            text = self._texts[dialect.name, count] = self._compile(dialect, count)
        return text

    def documents(self, rows: Sequence[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
        """The statement's parameters, each time with MAX_DOCUMENT_CHARACTERS of long texts at most, or of one row."""
        if len(rows) > 1 and self._characters(rows) > MAX_DOCUMENT_CHARACTERS:
            half = len(rows) // 2
            yield from self.documents(rows[:half])
            yield from self.documents(rows[half:])
        else:
            yield self._document(rows)

    def _execute_in_turn(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """On SQLite; rows with long texts one by one, since every statement keeps what it was given last."""
        rest = len(rows) % SEVERAL
        if self._one_by_one or self._characters(rows) > MOST_CHARACTERS * len(rows):
            rest = len(rows)
        touched = 0
        if groups := [rows[at : at + SEVERAL] for at in range(0, len(rows) - rest, SEVERAL)]:
            flat = [list(chain.from_iterable(group)) for group in groups]
            touched += touch_each(connection, self.text(connection.dialect, SEVERAL), flat)
        if rest:
            touched += touch_each(connection, self.text(connection.dialect), rows[-rest:])
        return touched

    def _characters(self, rows: Sequence[tuple[Any, ...]]) -> int:
        return sum(sum(map(len, filter(None, map(itemgetter(place), rows)))) for place in self._long)

    def _document(self, rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
        if len(rows) < FEW_ROWS:
            row = _struct(self._columns)
            return {_SAME: None, _ROWS: _encode([row(*values) for values in rows]).decode()}
        columns = dict(zip(self._columns, zip(*rows, strict=True), strict=True))
        same = {name: values[0] for name, values in columns.items() if values.count(values[0]) == len(values)}
        own = {name: values for name, values in columns.items() if name not in same}
        each = map(_struct(tuple(own)), *own.values()) if own else [{}] * len(rows)
        return {_SAME: _encode(same).decode(), _ROWS: _encode(list(each)).decode()}

    def _compile(self, dialect: sa.Dialect, count: int) -> str:
        if dialect.name == "sqlite":
            compiled = self._for_rows(count).compile(dialect=dialect)
            order = tuple(getattr(compiled, "positiontup", None) or ())
            if order != tuple(f"b_{name}{place}" for place in range(count) for name in self._columns):
                raise ValueError(f"the statement takes its parameters in another order: {order}")
            return str(compiled)
        return str(self._for_all_rows().compile(dialect=dialect))

    def _for_rows(self, count: int) -> sa.ClauseElement:
        """With a parameter for each value of so many rows."""
        types = {name: self._table.c[name].type for name in self._columns}
        rows = [
            {name: sa.bindparam(f"b_{name}{place}", type_=type_) for name, type_ in types.items()}
            for place in range(count)
        ]
        if self._change is None:
            return self._or_else(sqlite.insert(self._table).values(rows))
        if count == 1:
            return self._change(rows[0])
        listed = sa.values(*(sa.column(name, type_) for name, type_ in types.items()))
        values = listed.data([tuple(row.values()) for row in rows]).cte("listed", nesting=True)
        # the driver counts the rows of a statement that begins with its verb, so that WITH stands further in
        return self._change(dict(sa.select(values).subquery("given").c.items()))

    def _for_all_rows(self) -> sa.ClauseElement:
        same, each = (sa.cast(sa.bindparam(name, type_=sa.Text), postgresql.JSON) for name in (_SAME, _ROWS))
        # the table's own row type says how each value is read
        record: sa.ColumnElement[Any] = sa.literal_column(f"NULL::{self._table.name}")
        record = sa.func.json_populate_record(record, same)
        listed = [sa.column(name, self._table.c[name].type) for name in self._columns]
        rows = sa.func.json_populate_recordset(record, each).table_valued(*listed, name="given")
        if self._change is not None:
            return self._change(dict(rows.c.items()))
        return self._or_else(postgresql.insert(self._table).from_select(self._columns, sa.select(*rows.c)))

    def _or_else(self, insert: sqlite.Insert | postgresql.Insert) -> sa.ClauseElement:
        if not self._unless_there:
            return insert
        if not self._else_set:
            return insert.on_conflict_do_nothing(index_elements=self._unless_there)
        given = {name: insert.excluded[name] for name in self._else_set}
        return insert.on_conflict_do_update(index_elements=self._unless_there, set_=given)


class FewRows(ManyRows):
    """Inserts of few rows that may be long: their values are parameters, since a document would escape them again."""

    def documents(self, rows: Sequence[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
        """The statement's parameters for each row."""
        return (dict(zip(map("b_{}0".format, self._columns), row, strict=True)) for row in rows)

    def _for_all_rows(self) -> sa.ClauseElement:
        return self._for_rows(1)


Write = tuple[ManyRows, Sequence[tuple[Any, ...]]]


def execute_together(connection: sa.Connection, *writes: Write) -> list[int]:
    """Execute statements for different tables; gives how many rows each has touched."""
    if connection.dialect.name == "sqlite":
        return [statement.execute(connection, rows) for statement, rows in writes]
    documents = [list(statement.documents(rows)) if rows else [] for statement, rows in writes]
    some = [index for index, (_, rows) in enumerate(writes) if rows]
    if len(some) < 2 or any(len(each) > 1 for each in documents):
        return [statement.execute(connection, rows) for statement, rows in writes]
    text = _joined(tuple((writes[index][0].text(connection.dialect), tuple(documents[index][0])) for index in some))
    given = {f"{name}{place}": part for place, index in enumerate(some) for name, part in documents[index][0].items()}
    touched = dict(zip(some, fetch(connection, text, given)[0], strict=True))
    return [touched.get(index, 0) for index in range(len(writes))]


@lru_cache(maxsize=256)
def _struct(names: tuple[str, ...]) -> Callable[..., msgspec.Struct]:
    return msgspec.defstruct("Row", names, gc=False)


@lru_cache(maxsize=64)
def _joined(texts: tuple[tuple[str, tuple[str, ...]], ...]) -> str:
    """One statement of several, each with its parameters' names: a common table expression may write, and counts."""
    parts, counts = [], []
    for place, (text, names) in enumerate(texts):
        own = text
        for name in names:
            own = own.replace(f"%({name})s", f"%({name}{place})s")
        parts.append(f"written{place} AS ({own} RETURNING 1)")
        counts.append(f"({sa.select(sa.func.count()).select_from(sa.table(f'written{place}'))})")
    return f"WITH {', '.join(parts)} SELECT {', '.join(counts)}"
