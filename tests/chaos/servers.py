"""The two servers that a run ends: tests.servers with a crash of every process, and with a pause."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.servers import PostgresServer, ValkeyServer

GONE_SECONDS = 10.0


class CrashingPostgres(PostgresServer):
    """A PostgreSQL whose backends die with it, as on a machine that stops at once."""

    def crash(self) -> None:
        """End the postmaster and every process it has started. Raises: RuntimeError when one does not end."""
        assert self._process is not None
        children = list(_children_of(self._process.pid))
        self.kill()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # a postmaster that starts while a backend still lives refuses its data folder
        deadline = time.monotonic() + GONE_SECONDS
        while any(_runs(pid) for pid in children):
            if time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL's processes do not end")
            time.sleep(0.01)


class PausableValkey(ValkeyServer):
    """A Valkey that can be frozen."""

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Keep it frozen for as long as the `with` lasts."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


def _children_of(parent: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _stat(int(entry.name))[1:2] == [str(parent)]:
            yield int(entry.name)


def _runs(pid: int) -> bool:
    return _stat(pid)[:1] not in ([], ["Z"])


def _stat(pid: int) -> list[str]:
    """State, parent and so on; nothing when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
