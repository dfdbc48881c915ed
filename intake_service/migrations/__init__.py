"""Schema migrations: numbered, forward only, safe while the code before them still runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import OperationalError

from chassis.database import Database
from chassis.errors import StorageUnavailable
from chassis.logs import get_logger

log = get_logger()

_LOCK = 7_246_851_903


def migrate(url: str) -> None:
    """Bring the database to the newest schema; several intakes that start together wait for each other.

    A schema that is newer than this code is left as it is: migrations are safe while the code before them runs, and
    while a new version is rolled out, or back, an old intake may start once more.
    Raises: StorageUnavailable when the database is away.
    """
    database = Database(url)
    try:
        with database.engine.connect() as connection, _alone(connection):
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent))
            config.attributes["connection"] = connection
            current = MigrationContext.configure(connection).get_current_revision()
            known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
            if current is not None and current not in known:
                log.warning("Schema is newer than this code and left as it is", revision=current)
                return
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
            # another intake's migration may take longer than any lock or statement of the hub's own work
            _set_timeouts(connection, "0")
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            _set_timeouts(connection, "DEFAULT")
        yield


def _set_timeouts(connection: sa.Connection, value: str) -> None:
    for name in ("lock_timeout", "statement_timeout"):
        connection.execute(sa.text(f"SET LOCAL {name} TO {value}"))
