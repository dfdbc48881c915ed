"""What the database has on record, read without any of the competitors' code: what is completed, and since when."""

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import psycopg

#: Each gives (id, Unix time at which the completion was recorded) of every completed request. None is that of the
#: commit: the hub's is the clock at BEGIN, that of FastStream and Taskiq the clock within their UPDATE.
HUB = "SELECT id, updated_at / 1000000.0 FROM integration_requests WHERE status = 'Completed'"
REQUESTS_TABLE = "SELECT id::text, extract(epoch FROM completed_at)::float8 FROM requests WHERE status = 'Completed'"
PROCRASTINATE_JOBS = """
    SELECT job.id::text, extract(epoch FROM event.at)::float8
    FROM procrastinate_jobs job JOIN procrastinate_events event ON event.job_id = job.id AND event.type = 'succeeded'
    WHERE job.status = 'succeeded'
"""
DBOS_WORKFLOWS = (
    "SELECT workflow_uuid, completed_at / 1000.0::float8 FROM dbos.workflow_status WHERE status = 'SUCCESS'"
)


class Ledger:
    """The completed requests of one database."""

    def __init__(self, database_url: str, completed_sql: str) -> None:
        self._url = database_url
        self._sql = completed_sql

    def completed_at(self) -> dict[str, float]:
        """Unix time of each completion by request id."""
        with self._connected() as connection:
            return {request_id: float(at) for request_id, at in connection.execute(self._sql)}  # numeric: a Decimal

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
