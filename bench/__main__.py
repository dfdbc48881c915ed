"""`python -m bench`: the hub beside its peers; with --hub or --telemetry one hub alone. See --help."""

import argparse
import dataclasses
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from bench.chart import draw
from bench.comparison import Comparison, Scope, compare
from bench.processes import machine
from bench.report import insert, is_quiet, is_sound, tables
from bench.single import measure_hub
from bench.telemetry import compare as compare_telemetry

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURE = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.svg"
LINK = f"![Completions per second of the hub and its peers]({PICTURE.name})"
RAW = ROOT / ".cache" / "bench.json"


async def main(arguments: argparse.Namespace) -> int:
    """Run what the arguments ask for; the exit code is 1 when a request was lost or the counts disagree."""
    if arguments.telemetry or arguments.hub:
        arguments.seconds, arguments.repeats = arguments.seconds or 5.0, arguments.repeats or 3
        print(f"machine  {machine()}")
        return await (compare_telemetry if arguments.telemetry else measure_hub)(arguments)
    scope = _scope(arguments)
    started = datetime.now(UTC)
    comparison = await compare(scope)
    text = f"{_heading(arguments, scope, comparison, started)}\n\n{tables(comparison)}"
    print(text)
    RAW.parent.mkdir(exist_ok=True)
    RAW.write_text(json.dumps(dataclasses.asdict(comparison), indent=1))
    if arguments.write:
        _write(comparison, text)
    return 0 if is_sound(comparison) else 1


def _scope(arguments: argparse.Namespace) -> Scope:
    quick = arguments.quick
    return Scope(
        repeats=arguments.repeats or (1 if quick else 3),
        seconds=arguments.seconds or (2.0 if quick else 5.0),
        warm_seconds=0.5 if quick else 2.0,
        idle_seconds=1.0 if quick else 5.0,
        drain_seconds=20.0 if quick else 120.0,
        crash_seconds=0.0 if quick else 90.0,
        limit_seconds=0.5 if quick else 3.0,
        competitor_seconds=90.0 if quick else 420.0,
        with_plain_peers=not quick,
        at_half=not quick,
        only=arguments.only,
    )


def _heading(arguments: argparse.Namespace, scope: Scope, comparison: Comparison, started: datetime) -> str:
    warning = "" if is_quiet(comparison) else "**Other programs kept the machine busy.** "
    minutes = (datetime.now(UTC) - started).total_seconds() / 60
    return (
        f"{warning}{started:%d %B %Y}, {machine()}, {comparison.servers}. `{_command(arguments)}`: each measurement of "
        f"{scope.seconds:g} s, repeats: {scope.repeats}, minutes in all: {minutes:.0f}. Cells are minimum / median / "
        f"maximum of the repeats, or medians."
    )


def _command(arguments: argparse.Namespace) -> str:
    if arguments.repeats or arguments.seconds or arguments.only:
        return "python -m bench " + " ".join(sys.argv[1:])
    return "make bench-quick" if arguments.quick else "make bench"


def _write(comparison: Comparison, text: str) -> None:
    page = insert(PAGE.read_text(encoding="utf-8"), f"{LINK}\n\n{text}")
    PAGE.write_text(page, encoding="utf-8")
    PICTURE.write_text(draw(comparison.figures, machine=machine()), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the hub on this machine.")
    parser.add_argument("--seconds", type=float, help="length of each measurement (default 5, quick 2)")
    parser.add_argument("--repeats", type=int, help="repeats of each measurement (default 3, quick 1)")
    parser.add_argument("--quick", action="store_true", help="two minutes: short, once, and only the tuned peers")
    parser.add_argument("--only", default="", help="only competitors whose name holds this text")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md and .svg")
    parser.add_argument("--hub", action="store_true", help="one hub alone, with its simulator, as `make run` starts it")
    parser.add_argument("--telemetry", action="store_true", help="measure instead what logs, metrics and traces cost")
    parser.add_argument("--log-level", default="info", help="the hub's log level with --hub (default info)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(uvloop.run(main(_arguments())))
