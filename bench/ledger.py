"""What the database has on record, read without any of the competitors' code: what is completed, and since when."""

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import psycopg

#: Each gives (id, the transaction that recorded the completion) of every completed request. SQLite keeps no time of a
#: commit: there it is the hub's own clock at BEGIN.
HUB = "SELECT id, xmin FROM integration_requests WHERE status = 'Completed'"
HUB_ON_SQLITE = "SELECT id, updated_at / 1000000.0 FROM integration_requests WHERE status = 'Completed'"
REQUESTS_TABLE = "SELECT id::text, xmin FROM requests WHERE status = 'Completed'"
PROCRASTINATE_JOBS = "SELECT id::text, xmin FROM procrastinate_jobs WHERE status = 'succeeded'"
DBOS_WORKFLOWS = "SELECT workflow_uuid AS id, xmin FROM dbos.workflow_status WHERE status = 'SUCCESS'"
_COMMITTED_AT = "SELECT id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM ({}) AS completed"


class Ledger:
    """The completed requests of one database."""

    def __init__(self, database_url: str, completed_sql: str) -> None:
        self._url = database_url
        self._sql = completed_sql

    @property
    def knows_commits(self) -> bool:
        """Whether its times are those of the commits."""
        return not self._url.startswith("sqlite:///")

    def completed_at(self) -> dict[str, float]:
        """Unix time of each completion by request id."""
        sql = _COMMITTED_AT.format(self._sql) if self.knows_commits else self._sql
        with self._connected() as connection:
            return {request_id: float(at) for request_id, at in connection.execute(sql)}

    def count(self) -> int:
        """How many are completed."""
        with self._connected() as connection:
            counted = connection.execute(f"SELECT count(*) FROM ({self._sql}) AS completed").fetchone()  # noqa: S608 - ours
        return int(counted[0])

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        if self._url.startswith("sqlite:///"):
            path = self._url.removeprefix("sqlite:///")
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
                yield connection
        else:
            with psycopg.connect(self._url, autocommit=True) as connection:
                yield connection
