"""One process of a run: started, kept running as a supervisor would, and killed or stopped on purpose.

What the run ends it starts again after a pause of its choosing; what ends by itself is started again as well, and is
counted. No part outlives the run: the kernel kills it with the run's process (console.child).
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from console import child
from console.probes import is_healthy

PAUSE_SECONDS = 0.5
PROBE_EVERY_SECONDS = 0.1
STOP_SECONDS = 30.0


class Part:
    """A process and its successors; `kind` is the service, `name` this instance of it."""

    def __init__(
        self,
        name: str,
        *,
        kind: str,
        module: tuple[str, ...],
        probe: str,
        root: Path,
        environment: Mapping[str, str],
        log: Path,
    ) -> None:
        self.name = name
        self.kind = kind
        self.log = log
        #: Exit statuses of ends that the run did not cause.
        self.own_ends: list[int] = []
        self._command = (sys.executable, "-I", "-S", child.__file__, "deathsig", str(os.getpid()))
        self._program = (sys.executable, "-m", *module)
        self._probe = probe
        self._root = root
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._restart_after_seconds: float | None = None
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it and keep it running."""
        self._task = asyncio.create_task(self._keep_running(), name=self.name)

    def kill(self, restart_after_seconds: float) -> bool:
        """End it as a crash does, to be started again after that pause; False when it does not run."""
        if not self._signal(signal.SIGKILL):
            return False
        self._restart_after_seconds = restart_after_seconds
        return True

    async def drain(self) -> int:
        """End it as a rolling restart does and wait for its end; the next one starts at once. Gives its exit status."""
        process = self._process
        assert process is not None, f"{self.name} is not running"
        self._restart_after_seconds = 0.0
        self._signal(signal.SIGTERM)
        return await process.wait()

    async def pause(self, seconds: float) -> bool:
        """Stop it as a frozen machine does, and let it go on after that time; False, at once, when it does not run."""
        process = self._process
        if not self._signal(signal.SIGSTOP):
            return False
        try:
            await asyncio.sleep(seconds)
        finally:
            if process is self._process:
                self._signal(signal.SIGCONT)
        return True

    async def healthy(self) -> None:
        """Wait until it answers its probe."""
        while not await is_healthy(self._probe):  # noqa: ASYNC110 (it is another process; nobody tells us)
            await asyncio.sleep(PROBE_EVERY_SECONDS)

    async def stop(self) -> None:
        """End it with SIGTERM, or SIGKILL where that does not help."""
        self._is_stopping = True
        if self._task is None:
            return
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        await asyncio.wait([self._task], timeout=STOP_SECONDS)
        self._signal(signal.SIGKILL)
        await self._task

    def _signal(self, number: signal.Signals) -> bool:
        """Send it a signal; False when there is no process to take it."""
        if self._process is None:
            return False
        try:
            self._process.send_signal(number)
        except ProcessLookupError:
            return False
        return True

    async def _keep_running(self) -> None:
        while not self._is_stopping:
            with self.log.open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    *self._program,
                    cwd=self._root,
                    env=self._environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            status = await self._process.wait()
            self._process = None
            seconds, self._restart_after_seconds = self._restart_after_seconds, None
            if seconds is None and not self._is_stopping:
                self.own_ends.append(status)
            if not self._is_stopping:
                await asyncio.sleep(PAUSE_SECONDS if seconds is None else seconds)
