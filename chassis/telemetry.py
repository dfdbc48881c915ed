"""Every metric of the product in one table, and the small object that a process records them with.

Names are exact, as the seed has them; labels come from configuration or from the code, never from a partner.
Spans live in chassis.tracing, logs in chassis.logs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, start_http_server

from chassis.settings import split_address

#: Milliseconds; floats, and with the seed's limits 10, 50, 100, 2000 and 3000 among them.
BUCKETS_MS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0, 3000.0, 10000.0, 60000.0)
BUCKETS_ITEMS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1000.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One row of the table: which service exports what, under which labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    services: tuple[str, ...]
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = BUCKETS_MS


EVERY_RPC_SERVICE = ("intake", "orchestrator", "adapter")

METRICS = (
    Metric(
        name="integration_requests_received_total",
        kind="counter",
        services=("intake",),
        text="Requests accepted (seed, step 1)",
    ),
    Metric(
        name="integration_requests_persist_duration_ms",
        kind="histogram",
        services=("intake",),
        text="From arrival at intake to the durable commit (seed, step 2)",
    ),
    Metric(
        name="events_published_total",
        kind="counter",
        services=("intake",),
        labels=("type",),
        text="Events added to the event stream (seed, step 3)",
    ),
    Metric(
        name="worker_active_tasks",
        kind="gauge",
        services=("orchestrator",),
        text="Requests being processed now (seed, step 4)",
    ),
    Metric(
        name="integration_validation_failures_total",
        kind="counter",
        services=("orchestrator",),
        labels=("field",),
        text="Payloads refused, by the schema's field (seed, step 6)",
    ),
    Metric(
        name="external_system_call_duration_ms",
        kind="histogram",
        services=("adapter",),
        labels=("system",),
        text="Calls to an external system (seed, step 8)",
    ),
    Metric(
        name="integration_requests_completed_total",
        kind="counter",
        services=("intake",),
        text="Requests that ended Completed (seed, step 9)",
    ),
    Metric(
        name="integration_requests_failed_total",
        kind="counter",
        services=("intake",),
        labels=("reason",),
        text="Requests that ended Failed (seed, 3.1)",
    ),
    Metric(
        name="outbox_lag_seconds",
        kind="gauge",
        services=("intake",),
        text="Age of the oldest event that is not published",
    ),
    Metric(
        name="due_rings_total",
        kind="counter",
        services=("intake",),
        labels=("target",),
        text="Times the scheduler rang the bell for a due request",
    ),
    Metric(
        name="orphan_event_total",
        kind="counter",
        services=("orchestrator",),
        text="Stream entries that name no request, or are no entries of ours",
    ),
    Metric(
        name="batch_items",
        kind="histogram",
        services=("gateway", *EVERY_RPC_SERVICE),
        labels=("batch",),
        buckets=BUCKETS_ITEMS,
        text="Sizes of natural batches",
    ),
    Metric(
        name="rpc_duration_ms",
        kind="histogram",
        services=EVERY_RPC_SERVICE,
        labels=("method", "code"),
        text="Calls served, by method and gRPC code",
    ),
    Metric(
        name="http_request_duration_ms",
        kind="histogram",
        services=("gateway",),
        labels=("route", "status"),
        text="Partners' calls, by route and HTTP status",
    ),
    Metric(
        name="rate_limit_open_total",
        kind="counter",
        services=("gateway",),
        text="Calls let through because the rate limit could not be asked",
    ),
)


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

    def start_at_zero(self, name: str, label_values: Sequence[Mapping[str, str]]) -> None:
        """Create series before their first event, so that a rate over them sees the first rise."""
        for labels in label_values:
            self._metrics[name].labels(**labels)

    def _make(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric.kind == "histogram":
            return Histogram(metric.name, metric.text, metric.labels, buckets=metric.buckets, registry=self.registry)
        cls = Counter if metric.kind == "counter" else Gauge
        return cls(metric.name, metric.text, metric.labels, registry=self.registry)


class MetricsServer:
    """Shows a process' metrics over HTTP; a component of the service."""

    def __init__(self, telemetry: Telemetry, address: str) -> None:
        self._telemetry = telemetry
        self._address = address

    async def start(self) -> None:
        """Listen. Raises: OSError when the port is taken."""
        host, port = split_address(self._address)
        self._server, self._thread = start_http_server(port, host, registry=self._telemetry.registry)

    async def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
