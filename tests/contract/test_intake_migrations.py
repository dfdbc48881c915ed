"""Starting on a database that another version has migrated, or that another intake is migrating."""

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from chassis.database import Database
from chassis.errors import StorageUnavailable
from chassis.testing import eventually
from intake_service.migrations import _LOCK, migrate

_LOCK_TIMEOUT, _SHORT_LOCK_TIMEOUT = "lock_timeout=5000", "lock_timeout=100"
_STATEMENT_TIMEOUT, _SHORT_STATEMENT_TIMEOUT = "statement_timeout=15000", "statement_timeout=100"
_WAITS_FOR_LONG = """
    SELECT count(*) FROM pg_stat_activity
    WHERE wait_event = 'advisory' AND clock_timestamp() - query_start > interval '0.5 s'
"""
_VERSION = sa.table("alembic_version", sa.column("version_num"))


def test_a_schema_newer_than_the_code_is_left_as_it_is(database_url: str) -> None:
    # a rolling restart, or its way back: migrations are safe while the code before them runs
    database = Database(database_url)
    try:
        with database.engine.begin() as connection:
            before = connection.execute(sa.select(_VERSION.c.version_num)).scalar_one()
            connection.execute(sa.update(_VERSION).values(version_num="9999"))

        with capture_logs() as lines:
            migrate(database_url)

        assert [(line["log_level"], line["revision"]) for line in lines] == [("warning", "9999")]
        assert database.read(lambda connection: connection.execute(sa.select(_VERSION)).scalar_one()) == "9999"
    finally:
        with database.engine.begin() as connection:  # the session's PostgreSQL keeps its tables
            connection.execute(sa.update(_VERSION).values(version_num=before))
        database.dispose()


@pytest.fixture
def short_patience() -> Iterator[None]:
    """PostgreSQL's connections give a lock and a statement up after 100 ms, not after 5 and 15 s."""

    def shorten(_: Any, __: Any, ___: Any, parameters: dict[str, Any]) -> None:
        options = parameters["options"]
        assert _LOCK_TIMEOUT in options
        assert _STATEMENT_TIMEOUT in options
        shortened = options.replace(_LOCK_TIMEOUT, _SHORT_LOCK_TIMEOUT)
        parameters["options"] = shortened.replace(_STATEMENT_TIMEOUT, _SHORT_STATEMENT_TIMEOUT)

    sa.event.listen(sa.Engine, "do_connect", shorten)
    yield
    sa.event.remove(sa.Engine, "do_connect", shorten)


@pytest.mark.usefixtures("short_patience")
async def test_an_intake_waits_for_another_that_migrates_however_long_that_takes(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as other, psycopg.connect(postgres_url, autocommit=True) as watcher:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        waiting = asyncio.create_task(asyncio.to_thread(migrate, postgres_url))
        await eventually(lambda: waiting.done() or watcher.execute(_WAITS_FOR_LONG).fetchone() == (1,))
        was_done = waiting.done()
        other.commit()

    await waiting

    assert not was_done


@pytest.mark.usefixtures("short_patience")
async def test_a_table_that_stays_locked_is_given_up_as_ever(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        migrating = asyncio.create_task(asyncio.to_thread(migrate, postgres_url))
        await eventually(migrating.done)

    with pytest.raises(StorageUnavailable):
        await migrating
