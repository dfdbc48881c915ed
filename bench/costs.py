"""What one request costs on PostgreSQL: CPU by process, bytes in tables and indexes, in the WAL and in the streams.

These are the figures that docs/scaling.md reckons with. See bench.scale.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import redis

from bench.completions import EVENTS, Completions
from bench.load import Partners
from bench.processes import cpu_seconds
from console.testing import HubProcess
from tests.servers import PostgresServer

WARM_SECONDS = 2.0
PROCESSES = ("gateway", "intake", "orchestrator", "adapter", "valkey")
TABLES = ("integration_requests", "integration_request_history")
TARGETS = """
[targets.TotvsProtheus]
adapter = "totvs_protheus"
base_url = "{simulator}"
auth = {{ kind = "bearer", token = "env:PROTHEUS_TOKEN" }}
concurrency = 256
timeout_seconds = 10
"""


async def measure(server: PostgresServer, seconds: float) -> int:
    """Measure and print; the exit code is 1 when a request did not complete."""
    url = server.create_database("costs")
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name:
        folder = Path(name)
        hub = HubProcess(folder, targets=str(folder / "targets.toml"), database_url=url, partner_rate_per_minute="0")
        (folder / "targets.toml").write_text(TARGETS.format(simulator=hub.simulator_url))
        async with hub, Completions(hub.redis_url) as completions:
            warm = await Partners(hub.base_url, hub.token("bench"), prefix="warm").send_flat_out(seconds=WARM_SECONDS)
            await completions.all_of(set(warm.accepted_at), seconds=60)
            pids = hub.child_pids()
            with psycopg.connect(url, autocommit=True) as database, redis.Redis.from_url(hub.redis_url) as streams:
                before = _standing(database, streams, pids)
                partners = Partners(hub.base_url, hub.token("bench"), prefix="costs")
                started = time.time()
                sent = await partners.send_flat_out(seconds=seconds)
                missing = await completions.all_of(set(sent.accepted_at), seconds=120)
                took = time.time() - started
                after = _standing(database, streams, pids)
    count = len(sent.accepted_at)
    print(f"{count} requests in {took:.1f} s, {len(missing)} missing; per request:")
    for figure, unit, scale in FIGURES:
        print(f"  {figure:44} {(after[figure] - before[figure]) / count * scale:8.1f} {unit}")
    return 1 if missing else 0


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
    """CPU time of all processes of the server: each names the postmaster as its parent."""
    stat = Path(f"/proc/{_value(database, 'SELECT pg_backend_pid()')}/stat").read_text()
    postmaster = int(stat.rpartition(")")[2].split()[1])
    total = cpu_seconds(postmaster)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _parent(entry) == postmaster:
            total += cpu_seconds(int(entry.name))
    return total


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
