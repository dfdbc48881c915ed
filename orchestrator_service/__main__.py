"""`python -m orchestrator_service`: read the settings and work until told to stop."""

import sys

from chassis.service import run_service
from orchestrator_service.bootstrap import NAME, build

if __name__ == "__main__":
    sys.exit(run_service(NAME, build))
