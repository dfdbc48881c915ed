"""How the measurements are called from the command line, alike for all."""

import argparse
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

import uvloop

from bench.processes import machine


def parser(
    program: str, description: str, *, seconds: float | None = None, repeats: int | None = None
) -> argparse.ArgumentParser:
    """One with the options that most have; those without a default are left out."""
    made = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    if seconds is not None:
        made.add_argument("--seconds", type=float, default=seconds, help=f"of each measurement (default {seconds:g})")
    if repeats is not None:
        made.add_argument("--repeats", type=int, default=repeats, help=f"of each measurement (default {repeats})")
    return made


def run(measure: Callable[[argparse.Namespace], Awaitable[int]], arguments: argparse.Namespace) -> NoReturn:
    """Measure, with the machine named first; what `measure` gives is the exit code."""
    print(f"machine  {machine()}")
    sys.exit(uvloop.run(measure(arguments)))  # type: ignore[arg-type]  # its hint wants a coroutine
