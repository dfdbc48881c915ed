"""`python -m simulator`: read the settings and serve."""

import os
import sys

import msgspec

from simulator.server import run
from simulator.settings import read_settings


def main() -> int:
    """Run the simulator; 1 when it cannot start."""
    settings = read_settings(sys.argv[1:], os.environ)
    try:
        run(settings)
    except (OSError, msgspec.DecodeError) as error:
        sys.stderr.write(f"simulator cannot start: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
