"""Schema migrations: numbered, forward only, safe while the code before them still runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import OperationalError

from chassis.database import Database
from chassis.errors import StorageUnavailable

_LOCK = 7_246_851_903


def migrate(url: str) -> None:
    """Bring the database to the newest schema; several intakes that start together wait for each other.

    Raises: StorageUnavailable when the database is away.
    """
    database = Database(url)
    try:
        with database.engine.connect() as connection, _alone(connection):
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except OperationalError as error:
        raise StorageUnavailable("The database cannot be reached or written; check HUB_DATABASE_URL.") from error
    finally:
        database.dispose()


@contextmanager
def _alone(connection: sa.Connection) -> Iterator[None]:
    """One migration at a time: SQLite's write lock does it, PostgreSQL takes an advisory lock for the transaction."""
    with connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        yield
