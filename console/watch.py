"""`python -m console.watch`: the live table that `hub up --watch` shows, made of the four services' /metrics.

A process of its own beside the supervisor, so that what it imports does not stay in the supervisor's memory. It reads
and draws; what stands in the table is console.flow_table.
"""

import os
import sys
import time
import urllib.request
from collections import deque

from prometheus_client.parser import text_string_to_metric_families

from chassis.settings import HubSettings
from console.configuration import connectable, read_settings
from console.flow_table import SERVICES, Snapshot, draw, fit

PERIOD_SECONDS = 2.0
#: Rates and quantiles are of this long.
WINDOW_SECONDS = 10.0
READ_SECONDS = 1.0
HOME = "\x1b[H"
TO_END_OF_LINE = "\x1b[K"
TO_END_OF_SCREEN = "\x1b[J"
#: The environment's proxies are for the way out of a network.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main() -> int:
    """Draw until the supervisor tells us to stop, or is gone."""
    settings = read_settings()
    parent = os.getppid()
    on_terminal = sys.stderr.isatty()
    window: deque[Snapshot] = deque([take_snapshot(settings)])
    try:
        while os.getppid() == parent:
            time.sleep(PERIOD_SECONDS)
            window.append(take_snapshot(settings))
            while window[-1].at - window[1].at >= WINDOW_SECONDS:
                window.popleft()
            _show(draw(window[0], window[-1]), on_terminal=on_terminal)
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    return 0


def take_snapshot(settings: HubSettings) -> Snapshot:
    """Read every service's metrics; one that does not answer is left out."""
    at = time.monotonic()
    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    answering = []
    for service in SERVICES:
        address = connectable(settings.metrics_address_of(service))
        try:
            with _DIRECT.open(f"http://{address}/metrics", timeout=READ_SECONDS) as answer:
                text = answer.read().decode()
        except OSError:
            continue
        answering.append(service)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return Snapshot(at=at, values=values, answering=frozenset(answering))


def _show(lines: list[str], *, on_terminal: bool) -> None:
    if on_terminal:
        size = os.get_terminal_size(sys.stderr.fileno())
        fitting = fit(lines, columns=size.columns, rows=size.lines) if size.lines else lines
        text = HOME + "".join(f"{line}{TO_END_OF_LINE}\n" for line in fitting) + TO_END_OF_SCREEN
    else:
        text = "".join(f"{line}\n" for line in [*lines, ""])
    sys.stderr.write(text)
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
