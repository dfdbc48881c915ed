"""`python -m tests.chaos.intake_with_clock FILE`: intake, whose clock is the machine's moved by what FILE says.

FILE holds seconds. Only the clock that decides what is due is moved: tokens and logs keep the machine's time.
"""

import sys
from functools import partial
from pathlib import Path

from chassis.clock import Micros, SystemClock, seconds_to_micros
from chassis.service import run_service
from intake_service.bootstrap import build, prepare


class MovedClock:
    """The machine's clock, moved by a number of seconds that a file holds and another process may change."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._clock = SystemClock()

    def now(self) -> Micros:
        """The current instant, moved."""
        return self._clock.now() + seconds_to_micros(float(self._file.read_text()))


if __name__ == "__main__":
    sys.exit(run_service("intake", partial(build, clock=MovedClock(Path(sys.argv[1]))), prepare))
