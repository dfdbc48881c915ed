"""Statements for many rows at once, on both databases."""

import json
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from chassis import many_rows
from chassis.database import Database
from chassis.many_rows import FEW_ROWS, SEVERAL, ManyRows, execute_together
from tests.conftest import DATABASES
from tests.sent import statements

things = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("weight", sa.Float),
    sa.Column("is_new", sa.Boolean, nullable=False, server_default=sa.text("true")),
)
COLUMNS = [column.name for column in things.columns]
INSERT = ManyRows(things, COLUMNS)
INSERT_NEW = ManyRows(things, ["id", "name", "weight", "is_new"], unless_there=["name"])
RENAME = ManyRows(
    things,
    ["name", "id"],
    lambda row: sa.update(things).where(things.c.id == row["id"]).ordered_values((things.c.name, row["name"])),
)
INSERT_ONE_BY_ONE = ManyRows(things, COLUMNS, one_by_one=True)

notes = sa.Table("notes", things.metadata, sa.Column("id", sa.Integer, primary_key=True))
NOTE = ManyRows(notes, ["id"])


@pytest.fixture(params=DATABASES)
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Connection]:
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'things.sqlite3'}" if is_sqlite else request.getfixturevalue("empty_postgres_url")
    database = Database(url)
    with database.engine.begin() as opened:
        things.metadata.create_all(opened)
        yield opened
    database.dispose()


def named(*names: str) -> list[tuple[Any, ...]]:
    return [(number, name, None, True) for number, name in enumerate(names)]


def names(connection: sa.Connection) -> dict[int, str]:
    return {row.id: row.name for row in connection.execute(sa.select(things).order_by(things.c.id))}


def test_says_how_many_rows_were_touched(connection: sa.Connection) -> None:
    added = INSERT.execute(connection, named("a", "b", "c"))
    renamed = RENAME.execute(connection, [("A", 0), ("C", 2), ("nobody", 99)])

    assert (added, renamed) == (3, 2)
    assert names(connection) == {0: "A", 1: "b", 2: "C"}


@pytest.mark.parametrize("count", [SEVERAL - 1, SEVERAL, SEVERAL + 1, 3 * SEVERAL + 5])
def test_every_row_of_a_large_batch_is_touched_once(connection: sa.Connection, count: int) -> None:
    added = INSERT.execute(connection, named(*(f"thing {number}" for number in range(count))))
    renamed = RENAME.execute(connection, [(f"THING {number}", number) for number in range(1, count + 1)])

    assert (added, renamed) == (count, count - 1)
    assert names(connection) == {0: "thing 0"} | {number: f"THING {number}" for number in range(1, count)}


def test_rows_that_are_there_already_are_left_out_of_a_large_batch(connection: sa.Connection) -> None:
    INSERT.execute(connection, named("thing 1", "thing 70"))
    given = [(number, f"thing {number}", None, True) for number in range(10, 10 + 3 * SEVERAL)]

    assert INSERT_NEW.execute(connection, given) == 3 * SEVERAL - 1
    assert len(names(connection)) == 3 * SEVERAL + 1


@pytest.mark.parametrize(
    ("insert", "text", "executions"),
    [
        (INSERT, "short", 3 + 2),
        (INSERT, "x" * 5_000, 3 * SEVERAL + 2),
        (INSERT_ONE_BY_ONE, "short", 3 * SEVERAL + 2),
    ],
)
def test_sqlite_takes_several_rows_at_each_execution_unless_they_are_long(
    tmp_path: Path, insert: ManyRows, text: str, executions: int
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'things.sqlite3'}")
    executed: list[str] = []
    with database.engine.begin() as connection:
        things.metadata.create_all(connection)
        driven: Any = connection.connection.dbapi_connection
        driven.set_trace_callback(executed.append)
        added = insert.execute(connection, named(*(f"{text} {number}" for number in range(3 * SEVERAL + 2))))
        driven.set_trace_callback(None)
    database.dispose()

    assert (added, len(executed)) == (3 * SEVERAL + 2, executions)


def test_no_rows_are_no_statement(connection: sa.Connection) -> None:
    assert INSERT.execute(connection, []) == 0


def test_every_value_comes_back_as_it_was(connection: sa.Connection) -> None:
    awkward = 'quotes " \' backslash \\ newline \n tab \t umlaut ü emoji 😀 percent %s %(x)s colon :x {"json": [1]}'
    rows = [(1, awkward, 0.1 + 0.2, False), (2, "", None, True), (3, "x" * 100_000, 1e300, True)]
    INSERT.execute(connection, rows)

    assert [tuple(row) for row in connection.execute(sa.select(things).order_by(things.c.id))] == rows


@pytest.mark.parametrize("count", [1, FEW_ROWS - 1, FEW_ROWS, 100])
@pytest.mark.parametrize("weights", [(None,), (0.0,), (2.5,), (None, 0.0), (1e300, None, -1.5)])
@pytest.mark.parametrize("flags", [(True,), (False,), (False, True)])
def test_what_the_rows_have_in_common_is_in_every_one(
    connection: sa.Connection, count: int, weights: tuple[float | None, ...], flags: tuple[bool, ...]
) -> None:
    kinds = zip(range(count), cycle(weights), cycle(flags))
    rows = [(number, f"thing {number}", weight, flag) for number, weight, flag in kinds]

    assert INSERT.execute(connection, rows) == count
    assert [tuple(row) for row in connection.execute(sa.select(things).order_by(things.c.id))] == rows


def test_rows_that_have_everything_in_common_are_rows_all_the_same(connection: sa.Connection) -> None:
    INSERT.execute(connection, named("a", "b"))

    assert RENAME.execute(connection, [("A", 0)] * FEW_ROWS) > 0
    assert names(connection) == {0: "A", 1: "b"}


def test_what_the_rows_of_a_large_batch_have_in_common_is_sent_once() -> None:
    (few,), (many,) = INSERT.documents(named("a", "b")), INSERT.documents(named(*map(str, range(FEW_ROWS))))

    assert few["same"] is None
    assert json.loads(few["rows"] or "") == [dict(zip(COLUMNS, row, strict=True)) for row in named("a", "b")]
    assert json.loads(many["same"] or "") == {"weight": None, "is_new": True}
    assert json.loads(many["rows"] or "") == [{"id": number, "name": str(number)} for number in range(FEW_ROWS)]


def test_rows_that_are_there_already_are_left_out(connection: sa.Connection) -> None:
    INSERT.execute(connection, named("a"))

    assert INSERT_NEW.execute(connection, [(7, "a", None, True), (8, "b", None, True)]) == 1
    assert names(connection) == {0: "a", 8: "b"}


def test_more_than_one_document_holds_is_written_all_the_same(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_rows, "MAX_DOCUMENT_CHARACTERS", 200)

    assert INSERT.execute(connection, named(*(f"thing {number}" for number in range(20)))) == 20
    assert len(names(connection)) == 20


def test_a_batch_is_one_statement(connection: sa.Connection) -> None:
    with statements(connection.engine) as sent:
        INSERT.execute(connection, named(*map(str, range(3 * SEVERAL))))

    assert len(sent) == 1


@pytest.mark.parametrize("most", [1_000_000, 20])
def test_statements_for_several_tables_each_say_what_they_touched(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(many_rows, "MAX_DOCUMENT_CHARACTERS", most)
    INSERT.execute(connection, named("a", "b", "c"))

    touched = execute_together(
        connection, (RENAME, [("A", 0), ("nobody", 9)]), (INSERT_NEW, []), (NOTE, [(1,), (2,), (3,)])
    )

    assert touched == [1, 0, 3]
    assert names(connection) == {0: "A", 1: "b", 2: "c"}
    assert list(connection.execute(sa.select(notes.c.id).order_by(notes.c.id)).scalars()) == [1, 2, 3]


def test_statements_for_several_tables_are_one_on_postgresql(connection: sa.Connection) -> None:
    with statements(connection.engine) as sent:
        execute_together(connection, (INSERT, named("a")), (NOTE, [(1,)]))

    assert len(sent) == {"sqlite": 2, "postgresql": 1}[connection.dialect.name]


def test_parameters_in_another_order_than_the_columns_are_refused(tmp_path: Path) -> None:
    wrong = ManyRows(
        things,
        ["id", "name"],
        lambda row: sa.update(things).where(things.c.id == row["id"]).ordered_values((things.c.name, row["name"])),
    )
    database = Database(f"sqlite:///{tmp_path / 'things.sqlite3'}")
    with database.engine.begin() as connection, pytest.raises(ValueError, match="another order"):
        wrong.execute(connection, [(1, "x")])
    database.dispose()


def test_rows_that_are_there_already_can_be_set(connection: sa.Connection) -> None:
    put = ManyRows(things, ["id", "name", "weight", "is_new"], unless_there=["id"], else_set=["name"])
    INSERT.execute(connection, named("a", "b"))

    assert put.execute(connection, [(1, "B", 5.0, False), (2, "c", None, True)]) == 2
    assert names(connection) == {0: "a", 1: "B", 2: "c"}
    weights = list(connection.execute(sa.select(things.c.weight).order_by(things.c.id)).scalars())
    assert weights == [None, None, None]
