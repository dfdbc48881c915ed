"""The table of the flow: what two snapshots of the services' metrics say of rates, stages and targets. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from console.tables import span

SERVICES = ("gateway", "intake", "orchestrator", "adapter")
BREAKERS = {0.0: "closed", 1.0: "half-open", 2.0: "OPEN"}
NOTHING = "-"
CREATES = {"route": "/api/integration-requests", "status": "202"}
#: The seed's section 5: stage, metric, labels, quantile and limit in milliseconds.
STAGES: tuple[tuple[str, str, Mapping[str, str], int], ...] = (
    ("API to 202", "http_request_duration_ms", CREATES, 50),
    ("persist", "integration_requests_persist_duration_ms", {}, 50),
    ("publish", "events_publish_lag_ms", {}, 10),
    ("event to worker", "events_consume_lag_ms", {}, 100),
    ("external call", "external_system_call_duration_ms", {}, 2000),
    ("total", "integration_requests_total_duration_ms", {}, 3000),
)

Values = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Every sample of the services that answered, at one moment in seconds."""

    at: float
    values: Values
    answering: frozenset[str]


def draw(before: Snapshot, now: Snapshot) -> list[str]:
    """Draw the table of what happened between two snapshots."""
    in_work, lag = total(now.values, "worker_active_tasks"), total(now.values, "outbox_lag_seconds")
    return [
        *_columns(("SERVICE", *SERVICES), [("", *("up" if name in now.answering else "DOWN" for name in SERVICES))]),
        "",
        *_columns(("REQUESTS", "PER SECOND"), _rates(before, now)),
        "",
        *_columns(("STAGE", "PER SECOND", "P50", "P95", "LIMIT"), [_stage(before, now, *stage) for stage in STAGES]),
        "",
        *_columns(
            ("TARGET", "BREAKER", "IN FLIGHT", "WAITING", "OLDEST", "DEAD", "CALLS/S", "RETRIES/S"),
            [_target(before, now, name) for name in _targets(now)],
        ),
        "",
        f"in work {in_work:.0f}, outbox lag {span(lag)}",
    ]


def fit(lines: list[str], *, columns: int, rows: int) -> list[str]:
    """Cut a table to a terminal, whose last row the cursor needs: a line that wraps or scrolls moves its top away."""
    room = rows - 1
    shown = lines if len(lines) <= room else [*lines[: room - 1], f"... ({len(lines) - room + 1} more lines)"]
    return [line[:columns] for line in shown]


def total(values: Values, name: str, **labels: str) -> float:
    """Add up the series of a metric that carry these labels."""
    wanted = labels.items()
    return sum(value for (each, found), value in values.items() if each == name and wanted <= dict(found).items())


def rate(before: Snapshot, now: Snapshot, name: str, **labels: str) -> float:
    """How much a counter rose per second; after a restart of its service, since then."""
    rise = total(now.values, name, **labels) - total(before.values, name, **labels)
    return (rise if rise >= 0 else total(now.values, name, **labels)) / max(now.at - before.at, 1e-9)


def quantile(share: float, before: Snapshot, now: Snapshot, name: str, **labels: str) -> float | None:
    """A histogram's quantile between two snapshots, as PromQL reckons it; None when nothing was observed."""
    rises: dict[float, float] = {}
    for (each, found), value in now.values.items():
        if each == f"{name}_bucket" and labels.items() <= dict(found).items():
            limit = float(dict(found)["le"])
            rises[limit] = rises.get(limit, 0.0) + max(0.0, value - before.values.get((each, found), 0.0))
    limits = sorted(rises)
    if not limits or rises[limits[-1]] == 0:
        return None
    rank = share * rises[limits[-1]]
    index = next(i for i, limit in enumerate(limits) if rises[limit] >= rank)
    if limits[index] == float("inf"):
        return limits[index - 1]
    low, below = (limits[index - 1], rises[limits[index - 1]]) if index else (0.0, 0.0)
    inside = rises[limits[index]] - below
    return low + (limits[index] - low) * ((rank - below) / inside if inside else 1.0)


def _rates(before: Snapshot, now: Snapshot) -> list[tuple[str, ...]]:
    names = {
        "accepted": "integration_requests_received_total",
        "completed": "integration_requests_completed_total",
        "failed": "integration_requests_failed_total",
    }
    return [(text, f"{rate(before, now, name):.1f}") for text, name in names.items()]


def _stage(
    before: Snapshot, now: Snapshot, text: str, name: str, labels: Mapping[str, str], limit: int
) -> tuple[str, ...]:
    p50, p95 = (quantile(share, before, now, name, **labels) for share in (0.50, 0.95))
    return text, f"{rate(before, now, f'{name}_count', **labels):.1f}", _ms(p50), _ms(p95), _ms(limit)


def _targets(now: Snapshot) -> list[str]:
    return sorted({dict(labels)["target"] for name, labels in now.values if name == "integration_requests_waiting"})


def _target(before: Snapshot, now: Snapshot, name: str) -> tuple[str, ...]:
    def value(metric: str) -> float:
        return total(now.values, metric, target=name)

    oldest = value("integration_requests_oldest_waiting_seconds")
    return (
        name,
        BREAKERS.get(value("target_breaker_state"), NOTHING),
        f"{value('target_in_flight'):.0f} of {value('target_concurrency_limit'):.0f}",
        f"{value('integration_requests_waiting'):.0f}",
        span(oldest) if oldest else NOTHING,
        f"{value('dead_letters_open'):.0f}",
        f"{rate(before, now, 'external_system_calls_total', system=name):.1f}",
        f"{rate(before, now, 'delivery_retries_total', target=name):.1f}",
    )


def _ms(milliseconds: float | None) -> str:
    if milliseconds is None:
        return NOTHING
    return f"{milliseconds:.1f} ms" if milliseconds < 100 else span(milliseconds / 1000)


def _columns(headers: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (headers, *rows)
    ]
