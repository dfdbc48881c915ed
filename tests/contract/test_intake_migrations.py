"""Starting on a database that another version has migrated."""

import sqlalchemy as sa
from structlog.testing import capture_logs

from chassis.database import Database
from intake_service.migrations import migrate

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
