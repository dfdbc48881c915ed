"""`python -m gateway`: run the REST door."""

import sys

from chassis.service import run_service
from gateway.bootstrap import build

sys.exit(run_service("gateway", build))
