"""The life of a process: start, ready, drain, stop.

Components start in the order of the list and stop in the reverse order. SIGTERM and SIGINT drain: readiness goes
first, what is in flight is finished or handed back within the grace, and only then is the rest closed. A second
signal ends the process at once.
"""

import asyncio
import ctypes
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import uvloop

from chassis.errors import ConfigurationError, HubError
from chassis.logs import configure_logs, get_logger
from chassis.settings import HubSettings, read_settings

log = get_logger()

#: mallopt's names for its settings (glibc, malloc.h).
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_PR_SET_PDEATHSIG = 1  # prctl's, of Linux
_LARGE_BLOCK_BYTES = 256 * 1024
_ARENAS = 2
TIDY_SECONDS = 20.0


class Component(Protocol):
    """A part of a service with a life of its own; `stop` may be called twice, or before `start`."""

    async def start(self) -> None:
        """Start; returns when ready."""
        ...

    async def stop(self) -> None:
        """Stop; returns when stopped."""
        ...


class Service:
    """The components of one process, in start order."""

    def __init__(self, name: str, components: Sequence[Component]) -> None:
        self.name = name
        self.components = tuple(components)
        self._started: list[Component] = []

    async def start(self) -> None:
        """Start every component; on a failure stop those that run, then raise it."""
        try:
            for component in self.components:
                self._started.append(component)
                await component.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop what was started, last first; one that fails does not keep the others from stopping."""
        while self._started:
            component = self._started.pop()
            try:
                await component.stop()
            except Exception:  # the others must still be stopped
                log.exception("Component failed to stop", component=type(component).__name__)


def run_service(
    name: str,
    build: Callable[[HubSettings], Awaitable[Service]],
    before_start: Callable[[HubSettings], None] | None = None,
) -> int:
    """Run one service until it is told to stop; the exit code is the result. Called by each __main__ only.

    `before_start` runs in a process of its own, without an event loop.
    """
    try:
        settings = read_settings()
    except ConfigurationError as error:
        configure_logs(name, level="info", log_format="auto")
        log.error("Service cannot start", reason=error.reason, detail=error.message)
        return 1
    configure_logs(name, level=settings.log_level, log_format=settings.log_format)
    if before_start is not None:
        code = _in_child(lambda: _exit_code(lambda: before_start(settings)))
        if code != 0:
            return code
    return _exit_code(lambda: uvloop.run(_run(build, settings)))


def _exit_code(work: Callable[[], None]) -> int:
    try:
        work()
    except HubError as error:
        log.error("Service cannot start", reason=error.reason, detail=error.message)
    except OSError as error:
        log.error("Service cannot start", reason="OS_ERROR", detail=str(error))
    except Exception:  # the outermost frame of the process: its last line has the form of all others
        log.exception("Service cannot start", reason="INTERNAL")
    else:
        return 0
    return 1


def _in_child(work: Callable[[], int]) -> int:
    """Work in a process of its own, and give its exit code: what it loads, and fills, is gone with it.

    No other thread runs yet: a forked child has only the one that forked.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if (prctl := getattr(ctypes.CDLL(None), "prctl", None)) is not None:
                prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            code = work()
        finally:
            os._exit(code)  # without what this process does at its own end
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        log.error("Service cannot start", reason="KILLED", detail=f"Its preparation was ended by signal {-code}.")
    return abs(code)


async def _run(build: Callable[[HubSettings], Awaitable[Service]], settings: HubSettings) -> None:
    _bound_the_heap()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, lambda: os._exit(130) if stop.is_set() else stop.set())
    service = await build(settings)
    await service.start()
    _calm_the_collector()
    log.info("Service ready", pid=os.getpid())
    tidying = asyncio.create_task(_tidy(), name="tidy")
    await stop.wait()
    tidying.cancel()
    log.info("Service draining")
    await service.stop()
    log.info("Service stopped")


def _calm_the_collector() -> None:
    """Keep the garbage collector from walking again and again through what lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _bound_the_heap() -> None:
    """Have large blocks given back to the system when they are freed.

    glibc takes the largest block it ever freed for a sign of more to come and keeps twice as much, in an arena for
    each thread: a few messages of many megabytes would make a process large for the rest of its life. Other C
    libraries have no such call.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
        mallopt(_M_ARENA_MAX, _ARENAS)


async def _tidy() -> None:
    """Give back again and again what is free: an error that was answered holds its call's message until it is found."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while True:
        await asyncio.sleep(TIDY_SECONDS)
        gc.collect()
        if trim is not None:
            await asyncio.to_thread(trim, 0)


class Loop:
    """A component that runs one coroutine again and again; an error is logged and followed by a pause."""

    def __init__(
        self, step: Callable[[], Awaitable[None]], *, name: str, pause_after_error_seconds: float = 1.0
    ) -> None:
        self._step = step
        self._name = name
        self._pause = pause_after_error_seconds
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def start(self) -> None:
        """Start the loop."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Cancel the loop and wait for its end."""
        self._is_stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        # the flag, since a step may swallow its cancellation: redis-py's wait_for does so when it meets its result
        # (python/cpython#86296, before Python 3.12)
        while not self._is_stopping:
            try:
                await self._step()
            except Exception as error:  # the outermost loop of a worker: it must go on
                reason = error.reason if isinstance(error, HubError) else type(error).__name__
                log.warning(
                    "Loop step failed", loop=self._name, reason=reason, exc_info=not isinstance(error, HubError)
                )
                await asyncio.sleep(self._pause)
