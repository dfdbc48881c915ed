"""The short way to the database, on both databases: nothing is different but its price."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError

from chassis.database import Database
from chassis.driver import converse, fetch, texts, touch, touch_each
from intake_service.store.tables import workers

ALL = texts(lambda _: sa.select(workers.c.worker_id, workers.c.beat_at).order_by(workers.c.worker_id))
ONE = texts(lambda _: sa.select(workers.c.beat_at).where(workers.c.worker_id == sa.bindparam("wanted")))
LATER = texts(lambda _: sa.update(workers).values(beat_at=sa.bindparam("at", type_=sa.BigInteger)))
ADD = {
    "sqlite": "INSERT INTO workers (worker_id, beat_at) VALUES (?, ?)",
    "postgresql": "INSERT INTO workers (worker_id, beat_at) VALUES (%s, %s)",
}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.dispose()


def dialect_of(connection: sa.Connection) -> str:
    return connection.dialect.name


def test_what_is_written_on_the_short_way_is_read_on_either(database: Database) -> None:
    with database.engine.begin() as connection:
        name = dialect_of(connection)
        added = touch_each(connection, ADD[name], [("w2", 2), ("w1", 1)])
        changed = touch(connection, LATER[name], {"at": 7})
        with pytest.raises(IndexError):
            fetch(connection, ONE[name], {"wanted": "nobody"})[0]

    assert (added, changed) == (2, 2)
    with database.engine.connect() as connection:
        short = fetch(connection, ALL[name])
        long = [tuple(row) for row in connection.execute(sa.select(workers.c.worker_id, workers.c.beat_at))]
    assert short == sorted(long) == [("w1", 7), ("w2", 7)]


def test_what_is_written_on_the_short_way_is_undone_with_its_transaction(database: Database) -> None:
    with database.engine.connect() as connection:
        name = dialect_of(connection)
        touch(connection, ADD[name], ("w1", 1))
        connection.rollback()

    with database.engine.connect() as connection:
        assert fetch(connection, ALL[name]) == []


@pytest.mark.parametrize("parameters", [("w1", 2), ("w2", None)])
def test_an_error_is_of_the_class_that_sqlalchemy_raises(database: Database, parameters: Any) -> None:
    with database.engine.begin() as connection:
        name = dialect_of(connection)
        touch(connection, ADD[name], ("w1", 1))
    raised = []
    for way in (touch, sa.Connection.exec_driver_sql):
        with pytest.raises(IntegrityError) as caught, database.engine.begin() as connection:
            way(connection, ADD[name], parameters)
        raised.append(caught.value)

    short, long = raised
    assert type(short) is type(long)
    assert type(short.orig) is type(long.orig)
    assert (short.statement, short.connection_invalidated) == (long.statement, False)
    assert short.hide_parameters


def test_a_statement_with_a_mistake_is_an_error_and_the_connection_stays(database: Database) -> None:
    with pytest.raises((ProgrammingError, OperationalError)), database.engine.begin() as connection:
        fetch(connection, "SELECT nothing_like_this")

    with database.engine.begin() as connection:
        assert fetch(connection, "SELECT 1") == [(1,)]


def test_a_transaction_begun_in_one_message_is_ended_as_any_other(postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.engine.connect() as connection, connection.begin() as transaction:
        begun = int(converse(connection, "BEGIN; SELECT txid_current()"))
        (within,) = fetch(connection, "SELECT txid_current()")[0]
        touch(connection, "CREATE TABLE undone (id integer)")
        transaction.rollback()

    assert within == begun
    with database.engine.begin() as connection:
        assert fetch(connection, "SELECT to_regclass('undone')") == [(None,)]
    database.dispose()


def test_a_mistake_in_such_a_message_is_an_error_and_the_connection_stays(postgres_url: str) -> None:
    database = Database(postgres_url)
    with pytest.raises(ProgrammingError) as caught, database.engine.begin() as connection:
        converse(connection, "BEGIN; SELECT nothing_like_this")

    assert not caught.value.connection_invalidated
    with database.engine.begin() as connection:
        assert converse(connection, "BEGIN; SELECT 1") == "1"
    database.dispose()


def test_a_commit_that_the_server_turns_into_a_rollback_is_an_error(postgres_url: str) -> None:
    def work(connection: sa.Connection) -> None:
        touch(connection, "CREATE TABLE undone (id integer)")
        with contextlib.suppress(ProgrammingError):
            fetch(connection, "SELECT nothing_like_this")

    database = Database(postgres_url)
    with pytest.raises(DBAPIError, match="a statement of it had failed"), database.engine.begin() as connection:
        work(connection)

    with database.engine.begin() as connection:
        assert fetch(connection, "SELECT to_regclass('undone')") == [(None,)]
    database.dispose()


def test_a_closed_connection_is_an_error_that_says_so(postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.engine.connect() as connection:
        fetch(connection, "SELECT 1")
        driver: Any = connection.connection.driver_connection
        driver.close()
        with pytest.raises(OperationalError) as caught:
            converse(connection, "BEGIN; SELECT 1")

    assert caught.value.connection_invalidated
    database.dispose()


@pytest.mark.parametrize("ask", [lambda c: fetch(c, "SELECT 1"), lambda c: converse(c, "BEGIN; SELECT 1")])
def test_connections_of_a_server_that_is_gone_are_never_given_out_again(
    postgres_url: str, ask: Callable[[sa.Connection], object]
) -> None:
    database = Database(postgres_url)
    with database.engine.connect() as rests, database.engine.connect() as works:
        fetch(rests, "SELECT 1")
        fetch(works, "SELECT 1")
    with psycopg.connect(postgres_url, autocommit=True) as administrator:
        administrator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        )

    with pytest.raises(OperationalError) as caught, database.engine.begin() as connection:
        ask(connection)

    assert caught.value.connection_invalidated
    with database.engine.begin() as first, database.engine.begin() as second:
        assert fetch(first, "SELECT 1") == fetch(second, "SELECT 1") == [(1,)]
    database.dispose()
