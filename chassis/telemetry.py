"""The small object that a process records its metrics with, and the server that shows them.

Which metrics there are is chassis.metrics; spans live in chassis.tracing, logs in chassis.logs.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from chassis.histogram import Histogram
from chassis.metrics import METRICS, Metric
from chassis.settings import split_address

#: The label of whatever a stranger named: a path, a method.
UNMATCHED = "unmatched"
#: The label of what came after the last value that a LabelValues lets through.
OTHER = "other"
LOOP_SAMPLE_SECONDS = 1.0


class Telemetry:
    """The metrics of one process. Ask once for each at start; unknown names fail there."""

    def __init__(self, service: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no hints here
        self.service = service
        self.registry = CollectorRegistry()
        self._metrics: dict[str, Counter | Gauge | Histogram] = {}
        for metric in METRICS:
            if service in metric.services:
                self._metrics[metric.name] = self._make(metric)

    def counter(self, name: str) -> Counter:
        """The counter of that name."""
        metric = self._metrics[name]
        assert isinstance(metric, Counter), name
        return metric

    def gauge(self, name: str) -> Gauge:
        """The gauge of that name."""
        metric = self._metrics[name]
        assert isinstance(metric, Gauge), name
        return metric

    def histogram(self, name: str) -> Histogram:
        """The histogram of that name."""
        metric = self._metrics[name]
        assert isinstance(metric, Histogram), name
        return metric

    def watch(self, name: str, value: Callable[[], float], **labels: str) -> None:
        """Let a gauge show what `value` gives whenever the metrics are read."""
        gauge = self.gauge(name)
        (gauge.labels(**labels) if labels else gauge).set_function(value)

    def start_at_zero(self, name: str, label_values: Sequence[Mapping[str, str]]) -> None:
        """Create series before their first event, so that a rate over them sees the first rise."""
        for labels in label_values:
            self._metrics[name].labels(**labels)

    def _make(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric.kind == "histogram":
            return Histogram(metric.name, metric.text, metric.labels, buckets=metric.buckets, registry=self.registry)
        cls = Counter if metric.kind == "counter" else Gauge
        return cls(metric.name, metric.text, metric.labels, registry=self.registry)


class LabelValues:
    """Bounds a label whose values are not known beforehand: after so many different ones the rest are OTHER."""

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self._seen: set[str] = set()

    def bound(self, value: str) -> str:
        """The label to use for `value`."""
        if value not in self._seen:
            if len(self._seen) >= self._most:
                return OTHER
            self._seen.add(value)
        return value


class MetricsServer:
    """Shows a process' metrics over HTTP, those of the process itself included; a component of the service."""

    def __init__(self, telemetry: Telemetry, address: str) -> None:
        self.telemetry = telemetry
        self._address = address
        self._loop_lag = telemetry.histogram("event_loop_lag_ms")
        self._sampling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Raises: OSError when the port is taken."""
        host, port = split_address(self._address)
        try:
            self._server, self._thread = start_http_server(port, host, registry=self.telemetry.registry)
        except OSError as error:
            raise OSError(
                f"The port of {self._address} is taken or not allowed; free it or set another address"
            ) from error
        ProcessCollector(registry=self.telemetry.registry)
        self._sampling = asyncio.create_task(self._sample_loop_lag(), name="loop-lag")

    async def stop(self) -> None:
        """Stop listening."""
        if self._sampling is None:
            return
        self._sampling.cancel()
        self._sampling = None
        self._server.shutdown()
        self._server.server_close()

    async def _sample_loop_lag(self) -> None:
        while True:
            due_at = time.perf_counter() + LOOP_SAMPLE_SECONDS  # uvloop's own clock counts whole milliseconds
            await asyncio.sleep(LOOP_SAMPLE_SECONDS)
            self._loop_lag.observe(max(0.0, (time.perf_counter() - due_at) * 1000))
