"""What only a PostgreSQL server does: it undoes a deadlocked transaction, refuses a commit, ends connections."""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from chassis.database import VANISHED_SECONDS, Database, Store
from chassis.errors import OutcomeNotKnown, StorageUnavailable
from chassis.testing import eventually


@pytest.fixture
async def store(empty_postgres_url: str) -> AsyncIterator[Store]:
    with psycopg.connect(empty_postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE things (id int PRIMARY KEY, changes int NOT NULL)")
        connection.execute("INSERT INTO things VALUES (1, 0), (2, 0)")
    store = Store(Database(empty_postgres_url))
    await store.start()
    yield store
    await store.stop()


@contextlib.asynccontextmanager
async def losing_the_answer_to_commit(url: str) -> AsyncIterator[str]:
    """A way to the server that breaks when it answers a COMMIT; gives the URL to use."""
    target = sa.make_url(url)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(target.host, target.port)
        is_committing = False

        async def pass_on_questions() -> None:
            nonlocal is_committing
            while data := await reader.read(65536):
                is_committing = is_committing or b"COMMIT" in data
                server_writer.write(data)

        questions = asyncio.create_task(pass_on_questions())
        while (data := await server_reader.read(65536)) and not is_committing:
            writer.write(data)
        questions.cancel()
        server_writer.close()
        writer.close()

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as way:
        host, port = way.sockets[0].getsockname()
        yield target.set(host=host, port=port).render_as_string(hide_password=False)


def change(thing: int) -> sa.TextClause:
    return sa.text(f"UPDATE things SET changes = changes + 1 WHERE id = {int(thing)}")  # noqa: S608 - a number


def changes(connection: sa.Connection) -> dict[int, int]:
    return {row.id: row.changes for row in connection.execute(sa.text("SELECT id, changes FROM things"))}


async def test_a_deadlocked_transaction_is_run_again_whole(store: Store, empty_postgres_url: str) -> None:
    has_first = threading.Event()
    runs = 0

    def first_2_then_1(connection: sa.Connection, _: int, items: Sequence[None]) -> list[int]:
        nonlocal runs
        runs += 1
        connection.execute(change(2))
        has_first.set()
        connection.execute(change(1))
        return [runs for _ in items]

    with psycopg.connect(empty_postgres_url) as other:
        other.execute("SET deadlock_timeout = '30s'")  # so that the other side is not the one that is undone
        other.execute("UPDATE things SET changes = changes + 100 WHERE id = 1")
        writing = asyncio.create_task(store.write(first_2_then_1, None))
        await asyncio.to_thread(has_first.wait, 5)
        await asyncio.to_thread(other.execute, "UPDATE things SET changes = changes + 100 WHERE id = 2")
        other.commit()

    assert await writing >= 2  # more when it was back at the row before the other side had woken
    assert await store.read(changes) == {1: 101, 2: 101}


async def test_a_commit_that_the_server_refuses_is_unavailable_and_stores_nothing(
    store: Store, empty_postgres_url: str
) -> None:
    with psycopg.connect(empty_postgres_url, autocommit=True) as connection:
        connection.execute("""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$
        """)
        connection.execute("""
            CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON things
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()
        """)

    def write(connection: sa.Connection, _: int, items: Sequence[None]) -> list[str]:
        connection.execute(change(1))
        return ["stored, or so it seems" for _ in items]

    with pytest.raises(StorageUnavailable):
        await store.write(write, None)

    assert await store.read(changes) == {1: 0, 2: 0}


async def test_a_commit_whose_answer_is_lost_is_not_called_refused(store: Store, empty_postgres_url: str) -> None:
    def write(connection: sa.Connection, _: int, items: Sequence[None]) -> list[None]:
        connection.execute(change(1))
        return list(items)

    async with losing_the_answer_to_commit(empty_postgres_url) as url:
        behind = Store(Database(url))
        outcomes = [
            await asyncio.gather(each, return_exceptions=True)
            for each in (behind.write(write, None), behind.write_many(write, [None, None]))
        ]
        await behind.stop()

    assert [type(error) for (error,) in outcomes] == [OutcomeNotKnown, OutcomeNotKnown]
    assert await store.read(changes) == {1: 2, 2: 0}


async def test_items_beside_one_that_was_stored_are_not_called_refused(store: Store) -> None:
    def write(connection: sa.Connection, _: int, items: Sequence[str]) -> list[str]:
        if len(items) > 1:
            raise ValueError("not together")
        if items == ["unlucky"]:
            connection.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))
        connection.execute(change(1))
        return list(items)

    with pytest.raises(OutcomeNotKnown):
        await store.write_many(write, ["lucky", "unlucky"])
    with pytest.raises(StorageUnavailable):
        await store.write_many(write, ["unlucky", "unlucky"])

    assert await store.read(changes) == {1: 1, 2: 0}


async def test_connections_that_the_server_ended_are_made_anew(store: Store, empty_postgres_url: str) -> None:
    def write(connection: sa.Connection, _: int, items: Sequence[None]) -> list[None]:
        connection.execute(change(1))
        return list(items)

    await store.write(write, None)
    with psycopg.connect(empty_postgres_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    async def is_written() -> bool:
        try:
            await store.write(write, None)
        except StorageUnavailable:
            return False
        return True

    await eventually(is_written)
    assert await store.read(changes) == {1: 2, 2: 0}


async def test_a_server_that_has_become_a_standby_is_unavailable_until_there_is_a_primary(
    store: Store, empty_postgres_url: str
) -> None:
    def write(connection: sa.Connection, _: int, items: Sequence[None]) -> list[None]:
        connection.execute(change(1))
        return list(items)

    await store.write(write, None)
    with psycopg.connect(empty_postgres_url, autocommit=True) as connection:
        name = connection.info.dbname.encode()
        connection.execute(b"ALTER DATABASE " + name + b" SET default_transaction_read_only = on")
        store.database.engine.dispose()
        refused = await asyncio.gather(store.write(write, None), store.write(write, None), return_exceptions=True)
        # the connections of then go on being refused, so it is new ones that find the primary
        connection.execute(b"SET default_transaction_read_only = off")
        connection.execute(b"ALTER DATABASE " + name + b" SET default_transaction_read_only = off")
    await store.write(write, None)

    assert [type(error) for error in refused] == [StorageUnavailable, StorageUnavailable]
    assert await store.read(changes) == {1: 2, 2: 0}


async def test_a_transaction_whose_process_has_stopped_lets_go_of_its_rows(store: Store) -> None:
    limit = await store.read(
        lambda connection: connection.execute(sa.text("SHOW idle_in_transaction_session_timeout")).scalar_one()
    )

    def stops(connection: sa.Connection, _: int, items: Sequence[None]) -> list[None]:
        connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = '100ms'"))
        connection.execute(change(1))
        time.sleep(0.5)  # as a process does that was stopped: the server must not wait for it
        connection.execute(change(2))
        return list(items)

    with pytest.raises(StorageUnavailable):
        await store.write(stops, None)

    assert limit == "15s"
    assert await store.read(changes) == {1: 0, 2: 0}


async def test_a_server_that_has_vanished_is_given_up_in_seconds(store: Store) -> None:
    def patience(connection: sa.Connection) -> int:
        driver: Any = connection.connection.driver_connection
        with socket.socket(fileno=os.dup(driver.fileno())) as link:
            return link.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    assert await store.read(patience) == VANISHED_SECONDS * 1000


@pytest.mark.parametrize("seconds_off", [300, -300])
async def test_the_servers_clock_decides_what_is_due(
    store: Store, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch, seconds_off: int
) -> None:
    right_seconds, right_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: right_seconds() + seconds_off)
    monkeypatch.setattr(time, "time_ns", lambda: right_ns() + seconds_off * 1_000_000_000)

    def write(_: sa.Connection, now: int, items: Sequence[None]) -> list[int]:
        return [now for _ in items]

    told = [await store.read(store.database.now), await store.write(write, None)]

    with psycopg.connect(empty_postgres_url) as connection:
        (server,) = connection.execute("SELECT extract(epoch FROM clock_timestamp()) * 1000000").fetchone() or (0,)
    assert [now for now in told if abs(int(server) - now) > 5_000_000] == []


async def test_a_lock_that_is_held_too_long_is_unavailable(store: Store, empty_postgres_url: str) -> None:
    def write(connection: sa.Connection, _: int, items: Sequence[None]) -> list[None]:
        connection.execute(sa.text("SET LOCAL lock_timeout = '50ms'"))
        connection.execute(change(1))
        return list(items)

    with psycopg.connect(empty_postgres_url) as other:
        other.execute("UPDATE things SET changes = 5 WHERE id = 1")
        with pytest.raises(StorageUnavailable):
            await store.write(write, None)
        other.rollback()

    assert await store.read(changes) == {1: 0, 2: 0}
