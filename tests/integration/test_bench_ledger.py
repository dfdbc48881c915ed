"""What the benchmark takes for the end of a request."""

import time
from collections.abc import Iterator

import psycopg
import pytest

from bench.ledger import REQUESTS_TABLE, Ledger
from bench.servers import BenchPostgres


@pytest.fixture
def postgres() -> Iterator[BenchPostgres]:
    server = BenchPostgres()
    server.start()
    yield server
    server.stop()


def test_a_completion_is_dated_by_its_commit(postgres: BenchPostgres) -> None:
    with psycopg.connect(postgres.url()) as connection:
        connection.execute("CREATE TABLE requests (id text, status text)")
        connection.execute("INSERT INTO requests VALUES ('r-1', 'Completed')")
        written = time.time()
        connection.commit()
    committed = time.time()

    completed_at = Ledger(postgres.url(), REQUESTS_TABLE).completed_at()

    assert list(completed_at) == ["r-1"]
    assert written <= completed_at["r-1"] <= committed
