"""`python -m bench`: the hub beside its peers; with --hub or --telemetry one hub alone. See --help."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import msgspec
import uvloop

from bench.chart import draw
from bench.command import run
from bench.comparison import Comparison, Run, Scope
from bench.report import insert, is_sound, page
from bench.single import measure_hub
from bench.telemetry import compare as compare_telemetry

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURE = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.svg"
LINK = f"![Completions per second of the hub and its peers]({PICTURE.name})"
RECORD = ROOT / ".cache" / "bench.json"


async def compare(arguments: argparse.Namespace) -> int:
    """Measure, or take what a run before has recorded; 1 when a request was lost, counts differ or a part failed."""
    if arguments.recorded:
        if not RECORD.exists():
            print(f"no run is on record in {RECORD}", file=sys.stderr)
            return 1
        comparison = msgspec.json.decode(RECORD.read_bytes(), type=Comparison)
        is_whole = comparison.finished_rounds == comparison.rounds
    else:
        measuring = Run(_scope(arguments), command=_command(arguments), record=_record)
        comparison, is_whole = measuring.comparison, await _measure(measuring)
    text = page(comparison)
    print(text)
    if arguments.write and any(each.flats for each in comparison.figures):
        PAGE.write_text(insert(PAGE.read_text(encoding="utf-8"), f"{LINK}\n\n{text}"), encoding="utf-8")
        PICTURE.write_text(draw(comparison.figures, machine=comparison.machine), encoding="utf-8")
    return 0 if is_whole and is_sound(comparison) else 1


async def _measure(measuring: Run) -> bool:
    """Measure until done, interrupted (Ctrl-C, SIGTERM) or failed; says whether it was done."""
    task = asyncio.create_task(measuring.measure())

    def interrupt() -> None:
        if not task.cancelling():  # a second time would only keep it from ending what it has started
            print("interrupted: ending what runs", file=sys.stderr, flush=True)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupt)
    await asyncio.wait([task])
    if task.cancelled():
        measuring.comparison.trouble.append("interrupted")
    elif error := task.exception():
        measuring.comparison.trouble.append(f"ended by {error!r}")
    _record(measuring.comparison)
    return not task.cancelled() and task.exception() is None


def _record(comparison: Comparison) -> None:
    """Keep what there is: `--recorded` prints it, whatever becomes of this run."""
    RECORD.parent.mkdir(exist_ok=True)
    new = RECORD.with_suffix(".new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(comparison), indent=1))
    new.replace(RECORD)


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


def _command(arguments: argparse.Namespace) -> str:
    if arguments.repeats or arguments.seconds or arguments.only:
        return "python -m bench " + " ".join(sys.argv[1:])
    return "make bench-quick" if arguments.quick else "make bench"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the hub on this machine.")
    parser.add_argument("--seconds", type=float, help="length of each measurement (default 5, quick 2)")
    parser.add_argument("--repeats", type=int, help="repeats of each measurement (default 3, quick 1)")
    parser.add_argument("--quick", action="store_true", help="two minutes: short, once, and only the tuned peers")
    parser.add_argument("--only", default="", help="only competitors whose name holds this text")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/benchmarks.md and .svg")
    parser.add_argument(
        "--recorded",
        action="store_true",
        help=f"measure nothing: print what the last run has left in {RECORD.relative_to(ROOT)}, even if it was ended",
    )
    parser.add_argument("--hub", action="store_true", help="one hub alone, with its simulator, as `make run` starts it")
    parser.add_argument("--telemetry", action="store_true", help="measure instead what logs, metrics and traces cost")
    parser.add_argument("--log-level", default="info", help="the hub's log level with --hub (default info)")
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    if given.hub or given.telemetry:
        given.seconds, given.repeats = given.seconds or 5.0, given.repeats or 3
        run(compare_telemetry if given.telemetry else measure_hub, given)
    sys.exit(uvloop.run(compare(given)))
