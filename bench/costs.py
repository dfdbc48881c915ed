"""What one request costs on PostgreSQL: CPU by process, bytes in tables and indexes, in the WAL and in the streams.

These are the figures that docs/scaling.md reckons with. See bench.scale.
"""

from typing import Any

import psycopg
import redis

from bench.completions import EVENTS
from bench.hub import HUB_PROCESSES, started_hub
from bench.processes import cpu_seconds, family_cpu_seconds, parent
from tests.servers import PostgresServer

WARM_SECONDS = 2.0
PROCESSES = (*HUB_PROCESSES, "valkey")
TABLES = ("integration_requests", "integration_request_history")


async def measure(server: PostgresServer, seconds: float) -> int:
    """Measure and print; the exit code is 1 when a request did not complete."""
    url = server.create_database("costs")
    async with started_hub(database_url=url) as hub:
        await hub.full_load("warm", seconds=WARM_SECONDS)
        with (
            psycopg.connect(url, autocommit=True) as database,
            redis.Redis.from_url(hub.process.redis_url) as streams,
        ):
            before = _standing(database, streams, hub.pids)
            load = await hub.full_load("costs", seconds=seconds)
            after = _standing(database, streams, hub.pids)
    print(f"{load.accepted} requests in {load.took_seconds:.1f} s, {load.lost} lost; per request:")
    for figure, unit, scale in FIGURES:
        print(f"  {figure:44} {(after[figure] - before[figure]) / load.accepted * scale:8.1f} {unit}")
    return 1 if load.lost else 0


#: Name, unit, factor.
FIGURES = (
    *((f"CPU of {name}", "us", 1e6) for name in (*PROCESSES, "PostgreSQL")),
    ("rows in the history", "", 1.0),
    *((f"{part} of {table}", "bytes", 1.0) for table in TABLES for part in ("table", "indexes")),
    ("WAL", "bytes", 1.0),
    ("entries in the event stream", "", 1.0),
    ("bytes in the event stream", "bytes", 1.0),
)


def _standing(database: psycopg.Connection[Any], streams: Any, pids: dict[str, int]) -> dict[str, float]:
    """Everything that only grows, as it stands now."""
    figures = {f"CPU of {name}": cpu_seconds(pids[name]) for name in PROCESSES}
    figures["CPU of PostgreSQL"] = _cpu_of_postgresql(database)
    figures["WAL"] = float(_value(database, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
    figures["rows in the history"] = float(_value(database, "SELECT count(*) FROM integration_request_history"))
    for table in TABLES:
        figures[f"table of {table}"] = float(_value(database, f"SELECT pg_table_size('{table}')"))
        figures[f"indexes of {table}"] = float(_value(database, f"SELECT pg_indexes_size('{table}')"))
    figures["entries in the event stream"] = float(streams.xlen(EVENTS))
    figures["bytes in the event stream"] = float(streams.memory_usage(EVENTS, samples=0) or 0)
    return figures


def _value(database: psycopg.Connection[Any], query: str) -> Any:
    row = database.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def _cpu_of_postgresql(database: psycopg.Connection[Any]) -> float:
    """CPU time of all processes of the server; the parent of ours is the postmaster."""
    return family_cpu_seconds(parent(_value(database, "SELECT pg_backend_pid()")))
