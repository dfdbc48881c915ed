"""`make chaos`: kills the hub's processes under load and compares three ledgers. See docs/chaos.md.

The exit code is 1 when a promise was broken or the run did not do all of its plan, 3 when recovery took longer than its
goal (2 is argparse's own), else 0.
"""

import argparse
import asyncio
import secrets
import shutil
import sys

from tests.chaos.report import GOAL_SECONDS, is_kept, meets_goal, table
from tests.chaos.run import Plan, run, say

DATABASES = ("sqlite", "postgresql")
KEPT, BROKEN, SLOW = 0, 1, 3
#: A run that has not ended so long after its load is stuck.
MARGIN_SECONDS = 600.0


def main() -> int:
    """Run on each database asked for."""
    arguments = _arguments()
    wanted = DATABASES if arguments.database == "both" else (arguments.database,)
    seed = arguments.seed if arguments.seed is not None else secrets.randbelow(1_000_000)
    codes = []
    for database in wanted:
        plan = Plan(
            on_postgresql=database == "postgresql",
            seed=seed,
            requests=arguments.requests,
            faults=arguments.faults,
            rate=arguments.rate,
            seconds_limit=arguments.seconds_limit,
            log_level=arguments.log_level,
        )
        say(f"{database}: seed {seed} (repeat with --database {database} --seed {seed})")
        codes.append(asyncio.run(_run(plan)))
    return min((code for code in codes if code != KEPT), default=KEPT)  # BROKEN before SLOW


async def _run(plan: Plan) -> int:
    async with asyncio.timeout(plan.seconds_limit + MARGIN_SECONDS):
        outcome = await run(plan)
    print(table(outcome), flush=True)
    if not is_kept(outcome):
        print(f"FAILED: databases and logs are kept in {outcome.folder}\n", flush=True)
        return BROKEN
    await asyncio.to_thread(shutil.rmtree, outcome.folder)
    if not meets_goal(outcome):
        print(f"TOO SLOW: the goal after a lone SIGKILL is {GOAL_SECONDS:g} s where the key is honoured\n", flush=True)
        return SLOW
    print("PASSED\n", flush=True)
    return KEPT


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Break the hub on purpose.")
    parser.add_argument("--database", choices=[*DATABASES, "both"], default="both")
    parser.add_argument("--seed", type=int, help="of the faults (default: a new one, printed)")
    parser.add_argument("--short", action="store_true", help="1,000 requests and 18 faults on each database")
    parser.add_argument("--requests", type=int, help="to send at least (default 20,000)")
    parser.add_argument("--faults", type=int, help="to inject (default 210)")
    parser.add_argument("--rate", type=float, default=50.0, help="requests per second (default 50)")
    parser.add_argument("--seconds-limit", type=float, default=1200.0, help="end of the load (default 1200)")
    parser.add_argument("--log-level", default="warning", help="the hub's (default warning)")
    arguments = parser.parse_args()
    arguments.requests = arguments.requests or (1_000 if arguments.short else 20_000)
    arguments.faults = arguments.faults or (18 if arguments.short else 210)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
