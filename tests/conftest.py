"""Servers, empty databases and keys for the tests; each is made when the first test asks for it.

A session (with `pytest -n`, each worker's) has one PostgreSQL and one Valkey; every test finds an empty database and
an empty Valkey. A test that stops a server starts one of its own.
"""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from chassis.testing import TestKeys
from intake_service.migrations import migrate
from intake_service.store.tables import metadata
from tests.servers import PostgresServer, ValkeyServer

DATABASES = ("sqlite", "postgresql")
_END_OTHER_SESSIONS = b"""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> TestKeys:
    """A key pair and tokens signed with it."""
    return TestKeys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The session's PostgreSQL; no test may stop it."""
    server = PostgresServer()
    try:
        server.start()
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # a power loss is not among the tests
            connection.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """The session's Valkey; no test may stop it."""
    server = ValkeyServer(tmp_path_factory.mktemp("valkey")).start()
    yield server
    server.stop()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A running Valkey that the test may kill, empty and start again."""
    server = ValkeyServer(tmp_path / "valkey").start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """The session's Valkey, emptied."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("migrated") / "hub.sqlite3"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres: PostgresServer) -> str:
    """The name of a migrated database."""
    name = "migrated"
    migrate(postgres.create_database(name))
    return name


@pytest.fixture
def empty_postgres_url(postgres: PostgresServer) -> str:
    """A PostgreSQL database without tables."""
    return postgres.create_database(_fresh_name())


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """A migrated SQLite file of the test's own."""
    path = tmp_path / "hub.sqlite3"
    shutil.copyfile(migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_url(postgres: PostgresServer, migrated_postgres: str) -> str:
    """The session's migrated PostgreSQL database, emptied: a new one for each test is 7 MB of files each."""
    url = postgres.url(migrated_postgres)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_END_OTHER_SESSIONS)
        connection.execute(f"TRUNCATE {', '.join(table.name for table in metadata.sorted_tables)}".encode())
    return url


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database; a test that asks for it runs once on each kind."""
    url: str = request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param])
    return url


def _fresh_name() -> str:
    return f"hub_{uuid.uuid4().hex}"
