"""One supervisor per state folder: a lock that the kernel drops when its holder dies, however it dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class AlreadyRunning(Exception):
    """Another supervisor holds the state folder."""

    def __init__(self, state_dir: Path, pid: str) -> None:
        super().__init__(
            f"Another `hub up` (pid {pid or 'unknown'}) runs with the state folder {state_dir}; "
            f"stop it with Ctrl-C or `kill {pid or 'PID'}`, or set HUB_STATE_DIR to another folder."
        )
        self.pid = pid


@contextmanager
def hold_lock(state_dir: Path) -> Iterator[None]:
    """Hold the state folder. Raises: AlreadyRunning with the holder's pid."""
    descriptor = os.open(state_dir / "hub.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(state_dir, os.pread(descriptor, 32, 0).decode().strip()) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
