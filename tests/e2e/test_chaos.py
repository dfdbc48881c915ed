"""A short run of `make chaos` on each database; the long one is described in docs/chaos.md.

Only the promises are held here. How long recovery took is a figure, which depends on what else the machine does.
"""

import asyncio
import sys

import pytest

#: Of tests.chaos, with what it prints then: the promises were kept; so they were, and recovery took too long.
KEPT = {0: "PASSED", 3: "TOO SLOW"}
#: The two runs share the machine. A run that has not done all of this within its limit fails.
SHORT = ("--seed", "20", "--requests", "600", "--faults", "18", "--seconds-limit", "240")


@pytest.mark.timeout(720)  # the limit, 300 s to settle, 60 s until the streams are empty, and the starts
async def test_nothing_is_lost_doubled_or_silent_whatever_dies() -> None:
    runs = [_run("--database", database, *SHORT) for database in ("sqlite", "postgresql")]

    for code, printed in await asyncio.gather(*runs):
        assert code in KEPT, printed
        assert KEPT[code] in printed, printed


async def test_a_run_that_was_never_started_is_no_pass() -> None:
    code, printed = await _run("--database", "no such database")

    assert code not in KEPT, printed


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
