"""Runs the adapter service: `python -m adapter_service`."""

import sys

from adapter_service.bootstrap import build
from chassis.service import run_service

if __name__ == "__main__":
    sys.exit(run_service("adapter", build))
