"""The peers in their layouts: which processes run, and where the end of a request is on record.

The code of each is in bench/peers; what a layout changes beside the processes is said at the top of its file.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from bench.ledger import DBOS_WORKFLOWS, PROCRASTINATE_JOBS, REQUESTS_TABLE, Ledger
from bench.processes import family
from bench.servers import BenchValkey
from chassis.testing import free_port

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".cache" / "bench-venv" / "bin" / "python"
READY_SECONDS = 60.0
STOP_SECONDS = 15.0
Command = tuple[str, ...]


def _module(name: str, *arguments: str) -> Command:
    return (str(PYTHON), "-m", f"bench.peers.{name}", *arguments)


def _taskiq(*options: str) -> Command:
    return (str(PYTHON), "-m", "taskiq", "worker", "bench.peers.taskiq:make_broker", "--log-level", "ERROR", *options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One peer in one layout."""

    name: str
    layout: str
    #: A queue of its own beside the database: an order is committed, then enqueued.
    uses_redis: bool = False
    #: What runs beside the edge.
    workers: tuple[Command, ...]
    completed_sql: str = REQUESTS_TABLE

    @property
    def title(self) -> str:
        """How it is called in the tables."""
        return f"{self.name}, {self.layout}"

    @property
    def module(self) -> str:
        """Its code in bench/peers."""
        return self.name.lower()

    @property
    def is_durable(self) -> bool:
        """Whether everything that an accepted order needs is committed to the database before the 202."""
        return not self.uses_redis


_TASKIQ_TUNED = ("--workers", "1", "--no-parse", "--max-async-tasks", "256", "--max-prefetch", "256")
_PROCRASTINATE, _FASTSTREAM = _module("procrastinate", "worker"), _module("faststream", "worker")
_DBOS_WORKERS = tuple(_module("dbos", "worker", f"worker-{number}") for number in (1, 2))
PEERS = (
    Peer(name="Procrastinate", layout="plain", workers=(_PROCRASTINATE,)),
    Peer(name="Procrastinate", layout="tuned", workers=(_PROCRASTINATE,) * 2, completed_sql=PROCRASTINATE_JOBS),
    Peer(name="DBOS", layout="plain", workers=(), completed_sql=DBOS_WORKFLOWS),
    Peer(name="DBOS", layout="tuned", workers=_DBOS_WORKERS, completed_sql=DBOS_WORKFLOWS),
    Peer(name="Taskiq", layout="plain", uses_redis=True, workers=(_taskiq(),)),
    Peer(name="Taskiq", layout="tuned", uses_redis=True, workers=(_taskiq(*_TASKIQ_TUNED),)),
    Peer(name="FastStream", layout="plain", uses_redis=True, workers=(_FASTSTREAM,)),
    Peer(name="FastStream", layout="tuned", uses_redis=True, workers=(_FASTSTREAM,)),
    Peer(name="FastStream", layout="batched", uses_redis=True, workers=(_FASTSTREAM,)),
)


class PeerSystem:
    """A peer's processes, with a Valkey of its own where it needs one."""

    uses_postgres = True
    token = "none"
    events_url = None
    instruments = None

    def __init__(self, peer: Peer, folder: Path, *, endpoint_url: str, database_url: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.peer = peer
        self.name = peer.title
        self.ledger = Ledger(database_url, peer.completed_sql)
        self._log = folder / "peer.log"
        self._port = free_port()
        self._valkey = BenchValkey(folder / "valkey") if peer.uses_redis else None
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._is_prepared = False
        self._environment = {
            **os.environ,
            "BENCH_DATABASE_URL": database_url,
            "BENCH_REDIS_URL": self._valkey.url if self._valkey is not None else "",
            "BENCH_ENDPOINT_URL": endpoint_url,
            "BENCH_PORT": str(self._port),
            "BENCH_LAYOUT": peer.layout,
        }

    @property
    def base_url(self) -> str:
        """Its edge."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def processes(self) -> dict[str, int]:
        """Edge, workers and Valkey."""
        valkey = {"valkey": self._valkey.pid} if self._valkey is not None else {}
        return {name: process.pid for name, process in self._running.items()} | valkey

    async def start(self) -> None:
        """Wait until the edge answers; the workers were started before it. Raises: RuntimeError with its log."""
        await asyncio.to_thread(self._start)

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL for what does not obey."""
        await asyncio.to_thread(self._end, signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL."""
        await asyncio.to_thread(self._end, signal.SIGKILL)

    def _start(self) -> None:
        if self._valkey is not None:
            self._valkey.start()
        if not self._is_prepared:
            self._spawn("prepare", _module(self.peer.module, "prepare")).wait(READY_SECONDS)
            if self._running.pop("prepare").returncode != 0:
                raise RuntimeError(f"{self.name} cannot be prepared:\n{self._last_words()}")
            self._is_prepared = True
        for number, command in enumerate(self.peer.workers, start=1):
            self._spawn(f"worker {number}" if len(self.peer.workers) > 1 else "worker", command)
        self._spawn("web", _module(self.peer.module, "web"))
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            ended = any(each.poll() is not None for each in self._running.values())
            if ended or not self._running or time.monotonic() > deadline:  # none runs: killed while it was starting
                self._end(signal.SIGKILL)
                raise RuntimeError(f"{self.name} does not start:\n{self._last_words()}")
            time.sleep(0.05)

    def _spawn(self, name: str, command: Command) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stdout=log, stderr=log)
        self._running[name] = process
        return process

    def _is_ready(self) -> bool:
        with contextlib.suppress(URLError, OSError), urlopen(f"{self.base_url}/readyz", timeout=1):  # noqa: S310 - ours
            return True
        return False

    def _end(self, signum: signal.Signals) -> None:
        members = {process.pid: family(process.pid) for process in self._running.values()}
        for pids in members.values():
            for pid in pids if signum == signal.SIGKILL else pids[:1]:
                _signal(pid, signum)
        for process in self._running.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                for pid in members[process.pid]:
                    _signal(pid, signal.SIGKILL)
                process.wait(STOP_SECONDS)
        self._running.clear()
        if self._valkey is not None:
            self._valkey.kill() if signum == signal.SIGKILL else self._valkey.stop()

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]


def _signal(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
