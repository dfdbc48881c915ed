"""`python -m tests.chaos.external_system`: the simulator, whose targets are from the first call as the run needs them.

A simulator forgets its targets' settings when it is killed, and a target that honours the key must do so at once.
"""

import os
import sys

from simulator.server import run
from simulator.settings import read_settings
from simulator.targets import Targets, TargetSettings
from tests.chaos.targets import HONOURS_KEY, LATENCY_SECONDS, TARGETS


def prepare(targets: Targets) -> None:
    """Give every target its settings."""
    for name in TARGETS:
        settings = TargetSettings(latency_seconds=LATENCY_SECONDS, idempotency=name == HONOURS_KEY)
        targets.get(name).settings = settings


if __name__ == "__main__":
    run(read_settings(sys.argv[1:], os.environ), prepare)
