"""A short run of `make chaos` on each database; the long one is described in docs/chaos.md.

Only the promises are held here. How long recovery took is a figure, which depends on what else the machine does.
"""

import asyncio
import sys

import pytest

#: Of tests.chaos: the promises were kept; they were kept, and recovery took longer than its goal.
KEPT = (0, 2)
SHORT = ("--seed", "20", "--requests", "600", "--faults", "18", "--seconds-limit", "90")


@pytest.mark.timeout(300)
async def test_nothing_is_lost_doubled_or_silent_whatever_dies() -> None:
    runs = [_run("--database", database, *SHORT) for database in ("sqlite", "postgresql")]

    for code, printed in await asyncio.gather(*runs):
        assert code in KEPT, printed


async def _run(*arguments: str) -> tuple[int | None, str]:
    """Run to its end; gives the exit code and what was printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return process.returncode, printed.decode(errors="replace")
