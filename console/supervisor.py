"""Keeps a set of processes running: start, health, restart with back-off, drain in order.

It knows processes, not the hub: what to run is a Plan, where lines go is an Output. How a child is kept from
outliving its supervisor is in console.child; who listens to signals is in console.supervise.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from console.child import CANNOT_RUN
from console.output import LineBuffer, Output
from console.plan import ChildPlan
from console.probes import is_healthy

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
#: A child that was healthy this long starts with a clean record.
STEADY_SECONDS = 30.0
#: A child that ends this often before anybody saw it healthy has a fault that time does not heal.
START_TRIES = 3
#: How often a slow start is explained.
NOTE_SECONDS = 15.0
PROBE_EVERY_SECONDS = 0.05
#: What a pipe holds; to ask for more costs the memory for it.
CHUNK_BYTES = 64 * 1024
LAST_WORDS_BYTES = 2_000

_STARTER = str(Path(__file__).with_name("child.py"))


class StartFailed(Exception):
    """The children did not all become healthy; the message says which and why."""


def restart_pause(failures: int) -> float:
    """Seconds to wait after that many failures in a row: 0.2, 0.4, 0.8, ... 10."""
    doublings = min(failures - 1, 10)  # far past the longest pause, and no giant number after a bad night
    return float(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**doublings))


def count_failures(before: int, healthy_seconds: float) -> int:
    """Failures in a row after one more, whose life was healthy for `healthy_seconds`."""
    return 1 if healthy_seconds >= STEADY_SECONDS else before + 1


def describe_end(status: int) -> str:
    """Say how a process ended, from its exit status (negative: the signal)."""
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "signal"
    return f"was ended by {name} ({-status})"


class Child:
    """One process and its successors."""

    def __init__(self, plan: ChildPlan, output: Output, *, before: "Child | None", death_pipe: int) -> None:
        self.name = plan.name
        #: Set while the current process answers its probe.
        self.healthy = asyncio.Event()
        #: Set when it is not started again: it never became healthy.
        self.given_up = asyncio.Event()
        self._last_words = b""
        self._plan = plan
        self._output = output
        self._before = before
        self._death_pipe = death_pipe
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._healthy_since: float | None = None
        self._was_healthy = False

    def start(self) -> None:
        """Start the process and keep it running until `stop`."""
        self._task = asyncio.create_task(self._keep_running(), name=self.name)

    async def stop(self) -> bool:
        """Stop with SIGTERM and, after the grace, SIGKILL. Returns whether the grace was enough."""
        self._stopping.set()
        if self._task is None:
            return True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        done, _ = await asyncio.wait([self._task], timeout=self._plan.grace_seconds)
        if not done:
            self._output.say(f"{self.name} did not stop within {self._plan.grace_seconds:g} s; it is killed")
            self.kill()
        await self._task
        return bool(done)

    def kill(self) -> None:
        """End the process and whatever it started, at once; it is not started again."""
        self._stopping.set()
        if self._process is not None:
            _kill_group(self._process.pid)

    async def _keep_running(self) -> None:
        failures = 0
        while True:
            status = await self._live_once()
            if self._stopping.is_set():
                return
            healthy_seconds = 0.0 if self._healthy_since is None else time.monotonic() - self._healthy_since
            failures = count_failures(failures, healthy_seconds)
            if not self._was_healthy and failures >= START_TRIES:
                self._output.repeat(self.name, self._last_words)
                self._output.say(f"{self.name} {describe_end(status)}")
                self.given_up.set()
                return
            pause = restart_pause(failures)
            self._output.say(f"{self.name} {describe_end(status)}; it is started again in {pause:g} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
                return

    async def _live_once(self) -> int:
        """Run the process once, from start to end."""
        reader, writer = os.pipe()
        try:
            self._process = await self._spawn(writer)
        except OSError as error:  # no memory, no free process: as temporary as a crash
            os.close(reader)
            self._output.say(f"{self.name} cannot be started: {error}")
            return CANNOT_RUN
        finally:
            os.close(writer)
        pid = self._process.pid
        with _Lines(reader, self._take_lines):
            if self._stopping.is_set():  # `stop` came before there was a process to tell
                self._process.terminate()
            self._healthy_since = None
            probing = asyncio.create_task(self._wait_until_healthy(), name=f"{self.name} probe")
            status = await self._process.wait()
            self._process = None
            probing.cancel()
            self.healthy.clear()
            _kill_group(pid)  # what it may have started would hold its port
        return status

    async def _spawn(self, output: int) -> asyncio.subprocess.Process:
        on_linux = sys.platform == "linux"
        mode = "deathsig" if on_linux else "watch"
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", _STARTER, mode, str(os.getpid()), *self._plan.command),
            stdin=subprocess.DEVNULL if on_linux else self._death_pipe,
            stdout=output,
            stderr=output,
            start_new_session=True,  # the terminal's Ctrl-C is for the supervisor alone
        )

    async def _wait_until_healthy(self) -> None:
        if self._before is not None:  # a service that waits for another would only log each refusal
            await self._before.healthy.wait()
        while not await is_healthy(self._plan.probe):  # noqa: ASYNC110 (it is another process; nobody tells us)
            await asyncio.sleep(PROBE_EVERY_SECONDS)
        self._healthy_since = time.monotonic()
        if self._was_healthy:
            self._output.say(f"{self.name} is back")
        self._was_healthy = True
        self.healthy.set()

    def _take_lines(self, lines: bytes) -> None:
        self._last_words = (self._last_words + lines)[-LAST_WORDS_BYTES:]
        self._output.relay(self.name, lines)


class Supervisor:
    """Starts children together and stops them one by one, last first."""

    def __init__(self, plans: Sequence[ChildPlan], output: Output) -> None:
        # Never written to: its other end, the children's stdin, reads "closed" when this process is gone.
        self._pipe = [*os.pipe()]
        self._children: list[Child] = []
        for plan in plans:
            before = self._children[-1] if self._children else None
            self._children.append(Child(plan, output, before=before, death_pipe=self._pipe[0]))
        self._output = output

    async def start(self, stop: asyncio.Event) -> bool:
        """Start every child and wait until all are healthy; False when `stop` came first.

        There is no time limit: a long migration or a large append-only file takes as long as it takes.

        Raises: StartFailed. The others still run; call `stop`.
        """
        for child in self._children:
            child.start()
        all_healthy = asyncio.gather(*(child.healthy.wait() for child in self._children))
        failures = {asyncio.create_task(child.given_up.wait()): child for child in self._children}
        waits: set[asyncio.Future[Any]] = {all_healthy, asyncio.create_task(stop.wait()), *failures}
        done: set[asyncio.Future[Any]] = set()
        while not done:
            done, _ = await asyncio.wait(waits, timeout=NOTE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                late = ", ".join(child.name for child in self._children if not child.healthy.is_set())
                self._output.say(f"still waiting for {late}")
        for wait in waits - done:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        for wait, child in failures.items():
            if wait in done:
                raise StartFailed(f"{child.name} cannot start")
        return all_healthy in done

    async def stop(self) -> bool:
        """Stop every child, last first. Returns whether each kept its grace; may be called twice."""
        in_time = True
        for child in reversed(self._children):
            in_time = await child.stop() and in_time
        while self._pipe:
            os.close(self._pipe.pop())
        return in_time

    def kill(self) -> None:
        """End every child at once."""
        for child in self._children:
            child.kill()


class _Lines:
    """Reads a pipe as it fills, for as long as the `with` lasts; the rest is read at its end."""

    def __init__(self, descriptor: int, take: Callable[[bytes], None]) -> None:
        self._descriptor = descriptor
        self._take = take
        self._buffer = LineBuffer()

    def __enter__(self) -> None:
        os.set_blocking(self._descriptor, False)
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        while self._read():
            pass
        if lines := self._buffer.flush():
            self._take(lines)
        os.close(self._descriptor)

    def _read(self) -> bool:
        try:
            chunk = os.read(self._descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not chunk:  # every writer is gone; a reader left in the loop would spin
            asyncio.get_running_loop().remove_reader(self._descriptor)
            return False
        if lines := self._buffer.feed(chunk):
            self._take(lines)
        return True


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        os.killpg(pid, signal.SIGKILL)
