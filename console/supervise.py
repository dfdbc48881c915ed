"""`python -m console.supervise PLAN`: the process that stays while the hub runs; `hub up` becomes it.

Standard library only: whatever is imported here stays in memory for the hub's whole life.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from console.lock import AlreadyRunning, hold_lock
from console.output import Output, Terminal
from console.plan import Plan, read_plan
from console.supervisor import StartFailed, Supervisor

KILLED = 130


def main() -> int:
    """Run the plan named on the command line; the exit code is the result."""
    plan = read_plan(Path(sys.argv[1]))
    terminal = Terminal(sys.stderr)
    try:
        with hold_lock(Path(plan.state_dir)), contextlib.closing(_make_output(plan, terminal)) as output:
            return asyncio.run(_supervise(plan, output))
    except KeyboardInterrupt:  # before the loop took the signals over: nothing has been started
        return KILLED
    except AlreadyRunning as error:
        terminal.write(f"hub: {error}\n".encode())
        return 1
    finally:
        terminal.close()


async def _supervise(plan: Plan, output: Output) -> int:
    supervisor = Supervisor(plan.children, output)
    stop, kill = asyncio.Event(), asyncio.Event()

    def take_signal(name: str) -> None:
        if not stop.is_set():
            output.say(f"{name}: stopping (once more ends everything at once)")
            stop.set()
        else:
            kill.set()
            supervisor.kill()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            loop.add_signal_handler(number, take_signal, number.name)
    code = 0
    started_at = time.monotonic()
    try:
        if await supervisor.start(stop):
            output.say(f"ready in {time.monotonic() - started_at:.1f} s")
            output.show(plan.summary)
            _print_ready(plan.ready_line)
            async with _watching(plan.watcher):
                await stop.wait()
    except StartFailed as error:
        output.say(f"{error}; its log is in {plan.logs}. Stopping")
        code = 1
    kept_grace = await supervisor.stop()
    output.say("stopped")
    if kill.is_set():
        return KILLED
    return code if kept_grace else 1


@contextlib.asynccontextmanager
async def _watching(command: Sequence[str]) -> AsyncIterator[None]:
    """Let the watcher draw meanwhile; it is a process of its own, and the hub does not depend on it."""
    if not command:
        yield
        return
    watcher = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            watcher.terminate()
        await watcher.wait()


def _make_output(plan: Plan, terminal: Terminal) -> Output:
    plan.logs.mkdir(mode=0o700, exist_ok=True)
    is_terminal = sys.stderr.isatty()
    return Output(
        plan.logs,
        [child.name for child in plan.children],
        terminal,
        hidden={child.name for child in plan.children if child.hidden},
        readable=plan.log_format == "console" or (plan.log_format == "auto" and is_terminal),
        colour=is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
    )


def _print_ready(line: str) -> None:
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:  # whoever waited for the line has gone; the hub goes on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
