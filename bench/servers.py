"""The servers of a measurement: one PostgreSQL for all in turn, and a Valkey for each that needs one.

They are those of the tests, with fsync on, and can be killed as a crash of every process kills them.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from bench.processes import family
from tests.servers import PostgresServer, ValkeyServer

GONE_SECONDS = 10.0


class BenchPostgres(PostgresServer):
    """A PostgreSQL with its default durability, that remembers when each transaction was committed."""

    settings = (*PostgresServer.settings, "track_commit_timestamp=on")

    @property
    def pid(self) -> int:
        """The postmaster's."""
        assert self._process is not None
        return self._process.pid

    def durability(self) -> str:
        """Version, fsync and synchronous_commit as the server has them."""
        with psycopg.connect(self.url()) as connection:
            values = [
                str(connection.execute(f"SHOW {name}").fetchone()[0])  # type: ignore[index]  # SHOW gives a row
                for name in ("server_version", "fsync", "synchronous_commit")
            ]
        return "PostgreSQL {}, fsync {}, synchronous_commit {}".format(*values)

    def start_again(self) -> None:
        """Start it if it does not run: a measurement that failed may have left it dead."""
        if self._process is None or self._process.poll() is not None:
            self._process = None
            self.start()

    def crash(self) -> None:
        """SIGKILL for the postmaster and every process it has started."""
        assert self._process is not None
        pids = family(self._process.pid)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(GONE_SECONDS)
        self._process = None
        deadline = time.monotonic() + GONE_SECONDS
        while any(_runs(pid) for pid in pids[1:]) and time.monotonic() < deadline:
            time.sleep(0.02)  # a postmaster that starts while a backend still lives refuses its data folder


class BenchValkey(ValkeyServer):
    """A Valkey with an append-only file, synced every second: the hub's own configuration."""

    @property
    def pid(self) -> int:
        """The server's."""
        assert self._process is not None
        return self._process.pid


@asynccontextmanager
async def started_module(module: str) -> AsyncIterator[tuple[str, int]]:
    """Run a module of the benchmark that prints its port as a process; gives its URL and its pid."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C is for us: this one is ended below
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.kill()
        await process.wait()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
