"""`hub up`, the command; what it does is in console.launch."""

from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  hub up
  hub up --quiet
  hub up --watch
  HUB_REDIS_URL=redis://127.0.0.1:6379/0 hub up --no-simulator
"""


def up(
    *,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Keep the services' lines in the log files only.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show a live table of the flow instead of the services' lines.")
    ] = False,
    no_simulator: Annotated[bool, typer.Option("--no-simulator", help="Start no simulated external system.")] = False,
) -> None:
    """Run the whole hub on this machine until Ctrl-C.

    Starts and supervises Valkey (unless HUB_REDIS_URL names a Redis), the simulator (when a target points at it) and
    the four services. Prints one line `ready URL` on stdout when all of them are healthy.
    """
    from console.launch import launch

    launch(quiet=quiet or watch, no_simulator=no_simulator, watch=watch)
