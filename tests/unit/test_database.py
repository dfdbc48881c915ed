"""The group commit on a real SQLite file: what is one transaction, and whose error is whose."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from chassis.database import BATCH, Database, Store
from chassis.errors import ConfigurationError, StorageUnavailable
from chassis.many_rows import ManyRows
from chassis.testing import FakeClock

things = sa.Table(
    "things", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text, nullable=False)
)
_INSERT = ManyRows(things, ["id", "name"])


def add(connection: sa.Connection, _: int, items: Sequence[int]) -> list[int]:
    _INSERT.execute(connection, [(item, f"thing {item}") for item in items])
    return list(items)


def fail(connection: sa.Connection, _: int, items: Sequence[int]) -> list[int]:
    connection.execute(sa.insert(things), [{"id": -1, "name": "never to be seen"}])
    raise ValueError(f"{len(items)} of them")


def stored(connection: sa.Connection) -> list[int]:
    return list(connection.execute(sa.select(things.c.id).order_by(things.c.id)).scalars())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    database = Database(f"sqlite:///{tmp_path / 'things.sqlite3'}", clock=FakeClock(5))
    with database.engine.begin() as connection:
        things.metadata.create_all(connection)
    store = Store(database)
    await store.start()
    yield store
    await store.stop()


async def test_what_arrives_together_is_committed_together(tmp_path: Path) -> None:
    sizes: list[int] = []
    database = Database(f"sqlite:///{tmp_path / 'things.sqlite3'}")
    with database.engine.begin() as connection:
        things.metadata.create_all(connection)
    store = Store(database, on_batch=sizes.append)

    results = await asyncio.gather(*(store.write(add, number) for number in range(100)))

    assert results == list(range(100))
    assert sum(sizes) == 100
    assert len(sizes) < 100
    await store.stop()


async def test_an_error_of_one_is_not_the_others(store: Store) -> None:
    writes = [store.write(add, 1), store.write(fail, 2), store.write(add, 3)]

    first, second, third = await asyncio.gather(*writes, return_exceptions=True)

    assert (first, third) == (1, 3)
    assert isinstance(second, ValueError)
    assert await store.read(stored) == [1, 3]


async def test_a_constraints_violation_is_its_own_items_error(store: Store) -> None:
    await store.write(add, 1)

    results = await store.write_many(add, [2, 1, 3])

    assert [result if isinstance(result, int) else type(result) for result in results] == [2, IntegrityError, 3]
    assert await store.read(stored) == [1, 2, 3]


async def test_the_error_of_a_single_item_stands_at_its_place(store: Store) -> None:
    (result,) = await store.write_many(fail, [1])

    assert isinstance(result, ValueError)
    assert await store.write(add, 1) == 1


async def test_no_transaction_grows_beyond_its_limit(tmp_path: Path) -> None:
    sizes: list[int] = []
    database = Database(f"sqlite:///{tmp_path / 'things.sqlite3'}")
    with database.engine.begin() as connection:
        things.metadata.create_all(connection)
    store = Store(database, on_batch=sizes.append)

    small, large = await asyncio.gather(
        store.write_many(add, range(600)), store.write_many(add, range(1000, 1000 + 2 * BATCH + 1))
    )

    assert small == list(range(600))
    assert large == list(range(1000, 1000 + 2 * BATCH + 1))
    assert sizes == [600, BATCH, BATCH, 1]
    await store.stop()


async def test_a_failed_write_leaves_nothing(store: Store) -> None:
    with pytest.raises(ValueError, match="1 of them"):
        await store.write(fail, 1)

    assert await store.read(stored) == []


async def test_every_result_is_told_even_when_nobody_waits_any_more(tmp_path: Path) -> None:
    told: list[Any] = []
    database = Database(f"sqlite:///{tmp_path / 'things.sqlite3'}")
    with database.engine.begin() as connection:
        things.metadata.create_all(connection)

    def give_up(_: int) -> None:
        writing.cancel()

    store = Store(database, on_batch=give_up, on_commit=lambda results, *_: told.extend(results))
    writing = asyncio.create_task(store.write(add, 7))

    await asyncio.wait([writing])
    await store.stop()

    assert writing.cancelled()
    assert told == [7]


async def test_a_locked_database_is_unavailable_and_stores_nothing(tmp_path: Path) -> None:
    path = tmp_path / "things.sqlite3"
    database = Database(f"sqlite:///{path}")
    with database.engine.begin() as connection:
        things.metadata.create_all(connection)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=10")  # on every pooled connection: there is one
    holder = Database(f"sqlite:///{path}")
    store = Store(database)

    with holder.engine.begin(), pytest.raises(StorageUnavailable, match="repeat the call"):
        await store.write(add, 1)

    assert await store.read(stored) == []
    assert await store.write(add, 1) == 1
    await store.stop()
    holder.dispose()


async def test_who_waits_behind_a_locked_write_does_not_wait_for_the_lock_once_more(tmp_path: Path) -> None:
    path = tmp_path / "things.sqlite3"
    database = Database(f"sqlite:///{path}")
    with database.engine.begin() as connection:
        things.metadata.create_all(connection)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=400")
    holder = Database(f"sqlite:///{path}")
    store = Store(database)

    with holder.engine.begin():
        started = time.monotonic()
        first = asyncio.create_task(store.write(add, 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # a turn for the write, a turn for its batch
        behind = await asyncio.gather(*(store.write(add, number) for number in (2, 3)), return_exceptions=True)
        waited = time.monotonic() - started
        with pytest.raises(StorageUnavailable):
            await first

    assert [type(error) for error in behind] == [StorageUnavailable] * 2
    assert waited < 0.7  # 400 ms, and not twice as long
    assert await store.read(stored) == []
    await store.stop()
    holder.dispose()


async def test_a_missing_database_is_unavailable(tmp_path: Path) -> None:
    store = Store(Database(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.sqlite3'}"))

    with pytest.raises(StorageUnavailable):
        await store.start()

    await store.stop()


async def test_a_full_database_is_unavailable_and_goes_on_when_there_is_room(store: Store) -> None:
    engine = store.database.engine
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    with pytest.raises(StorageUnavailable):
        await store.write_many(add, list(range(5000)))
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")

    assert await store.read(stored) == []
    assert await store.write(add, 1) == 1


async def test_writes_are_made_by_one_thread_and_durable(store: Store) -> None:
    threads: set[str] = set()

    def note(connection: sa.Connection, now: int, items: Sequence[int]) -> list[tuple[int, int, str]]:
        threads.add(threading.current_thread().name)
        synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        return [(now, synchronous, mode) for _ in items]

    results = await asyncio.gather(*(store.write(note, None) for _ in range(20)))

    full = 2
    assert set(results) == {(5, full, "wal")}
    assert len(threads) == 1


@pytest.mark.parametrize("url", ["", "garbage", "mysql://u:hunter2@h/db", "postgres://h/db", "http://h", "sqlite"])
def test_a_url_of_no_database_of_ours_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="HUB_DATABASE_URL") as caught:
        Database(url)

    assert "hunter2" not in caught.value.message
