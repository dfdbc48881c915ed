"""Runs the intake service: `python -m intake_service`."""

import sys

from chassis.service import run_service
from intake_service.bootstrap import build, prepare

if __name__ == "__main__":
    sys.exit(run_service("intake", build, prepare))
