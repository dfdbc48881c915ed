"""Every metric of the product in one table: name, kind, labels, who exports it, what it means.

Names are exact, as the seed has them; labels come from configuration or from the code, never from a partner.
What a process records them with is chassis.telemetry; rules and dashboards in deploy/ may name these only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

#: Milliseconds; floats, and with the seed's limits 10, 50, 100, 2000 and 3000 among them.
BUCKETS_MS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0, 3000.0, 10000.0, 60000.0)
BUCKETS_ITEMS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1000.0)

GATEWAY, INTAKE, ORCHESTRATOR, ADAPTER = "gateway", "intake", "orchestrator", "adapter"
EVERY_SERVICE = (GATEWAY, INTAKE, ORCHESTRATOR, ADAPTER)
EVERY_RPC_SERVICE = (INTAKE, ORCHESTRATOR, ADAPTER)

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One row of the table: which service exports what, under which labels."""

    name: str
    kind: Kind
    services: tuple[str, ...]
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = BUCKETS_MS


def _rows(
    kind: Kind, *rows: tuple[str, tuple[str, ...], tuple[str, ...], str], buckets: tuple[float, ...] = BUCKETS_MS
) -> Iterator[Metric]:
    for name, services, labels, text in rows:
        yield Metric(name=name, kind=kind, services=services, labels=labels, text=text, buckets=buckets)


METRICS = (
    # The seed's, step by step.
    *_rows(
        "counter",
        ("integration_requests_received_total", (INTAKE,), (), "Requests accepted (seed, step 1)"),
        ("events_published_total", (INTAKE,), ("type",), "Events added to the event stream (seed, step 3)"),
        (
            "integration_validation_failures_total",
            (ORCHESTRATOR,),
            ("field",),
            "Faults in payloads, by the schema's field (seed, step 6)",
        ),
        ("integration_requests_completed_total", (INTAKE,), (), "Requests that ended Completed (seed, step 9)"),
        ("integration_requests_failed_total", (INTAKE,), ("reason",), "Requests that ended Failed (seed, 3.1)"),
    ),
    *_rows("gauge", ("worker_active_tasks", (ORCHESTRATOR,), (), "Requests being processed now (seed, step 4)")),
    # Latencies of the stages of the seed's section 5, in its order; the first is part of http_request_duration_ms.
    *_rows(
        "histogram",
        (
            "integration_requests_persist_duration_ms",
            (INTAKE,),
            (),
            "From arrival at intake to the durable commit (seed, step 2)",
        ),
        ("events_publish_lag_ms", (INTAKE,), (), "From an event's commit until it is in the stream"),
        ("events_consume_lag_ms", (ORCHESTRATOR,), ("target",), "From a stream entry to the lease of its request"),
        ("external_system_call_duration_ms", (ADAPTER,), ("system",), "Calls to an external system (seed, step 8)"),
        (
            "integration_requests_total_duration_ms",
            (INTAKE,),
            ("target",),
            "From acceptance to Completed; requests that were redriven are left out",
        ),
    ),
    # What waits, and why.
    *_rows(
        "gauge",
        ("integration_requests_waiting", (INTAKE,), ("target",), "Requests that have not ended"),
        ("integration_requests_oldest_waiting_seconds", (INTAKE,), ("target",), "Age of the oldest of them"),
        ("dead_letters_open", (INTAKE,), ("target",), "Dead letters that nobody has settled"),
        ("outbox_lag_seconds", (INTAKE,), (), "Age of the oldest event that is not published"),
        ("target_in_flight", (ORCHESTRATOR,), ("target",), "Calls of this worker that are in flight"),
        ("target_concurrency_limit", (ORCHESTRATOR,), ("target",), "How many it may process at once now"),
        ("target_breaker_state", (ORCHESTRATOR,), ("target",), "0 closed, 1 half-open, 2 open"),
    ),
    *_rows(
        "counter",
        ("due_rings_total", (INTAKE,), ("target",), "Times the scheduler rang the bell for a due request"),
        (
            "integration_requests_deleted_total",
            (INTAKE,),
            (),
            "Finished requests deleted when HUB_RETENTION_DAYS were over",
        ),
        ("orphan_event_total", (ORCHESTRATOR,), (), "Stream entries that name no request, or are no entries of ours"),
        ("delivery_retries_total", (ORCHESTRATOR,), ("target", "outcome"), "Attempts that will be repeated, and why"),
        (
            "external_system_calls_total",
            (ADAPTER,),
            ("system", "operation", "outcome"),
            "Calls to an external system and lookups, by what came of them",
        ),
        (
            "duplicates_in_target_total",
            (ADAPTER,),
            ("target",),
            "Times an external system was found to hold a request more than once",
        ),
        ("rate_limit_open_total", (INTAKE,), (), "Calls let through because the rate limit could not be asked"),
    ),
    # The processes and what runs between them.
    *_rows(
        "histogram",
        ("http_request_duration_ms", (GATEWAY,), ("route", "status"), "Partners' calls, by route and HTTP status"),
        ("rpc_duration_ms", EVERY_RPC_SERVICE, ("method", "code"), "Calls served, by method and gRPC code"),
        ("event_loop_lag_ms", EVERY_SERVICE, (), "How late the event loop comes to what is due, sampled each second"),
    ),
    *_rows("histogram", ("batch_items", EVERY_SERVICE, ("batch",), "Sizes of natural batches"), buckets=BUCKETS_ITEMS),
)

#: What prometheus_client says of each process.
PROCESS_METRICS = (
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
)
