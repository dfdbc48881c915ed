"""The metrics' table and the object that records by it."""

import re

import pytest

from chassis.metrics import ADAPTER, EVERY_SERVICE, INTAKE, METRICS, ORCHESTRATOR
from chassis.telemetry import OTHER, LabelValues, Telemetry

#: Exactly as the seed has them, with their labels and the service that exports each.
SEED = {
    "integration_requests_received_total": ("counter", (), (INTAKE,)),
    "integration_requests_persist_duration_ms": ("histogram", (), (INTAKE,)),
    "events_published_total": ("counter", ("type",), (INTAKE,)),
    "worker_active_tasks": ("gauge", (), (ORCHESTRATOR,)),
    "integration_validation_failures_total": ("counter", ("field",), (ORCHESTRATOR,)),
    "external_system_call_duration_ms": ("histogram", ("system",), (ADAPTER,)),
    "integration_requests_completed_total": ("counter", (), (INTAKE,)),
    "integration_requests_failed_total": ("counter", ("reason",), (INTAKE,)),
}
#: Everything a label may be: from the configuration, the schemas or the code.
BOUNDED = {
    *("type", "field", "system", "reason", "target", "outcome", "operation", "method", "code", "route", "status"),
    "batch",
}


def test_the_seeds_metrics_have_the_seeds_names_and_labels() -> None:
    table = {metric.name: (metric.kind, metric.labels, metric.services) for metric in METRICS}

    assert {name: table[name] for name in SEED} == SEED


def test_no_name_is_there_twice_and_each_says_its_unit() -> None:
    names = [metric.name for metric in METRICS]

    assert len(names) == len(set(names))
    assert all(metric.name.endswith("_total") == (metric.kind == "counter") for metric in METRICS)
    assert [name for name in names if not re.fullmatch(r"[a-z][a-z_]*", name)] == []


def test_no_label_is_a_partners_to_choose() -> None:
    assert {label for metric in METRICS for label in metric.labels} <= BOUNDED


def test_every_histogram_of_milliseconds_has_the_seeds_limits_as_floats() -> None:
    for metric in METRICS:
        if metric.kind == "histogram" and metric.name.endswith("_ms"):
            assert {10.0, 50.0, 100.0, 2000.0, 3000.0} <= set(metric.buckets)
            assert all(isinstance(limit, float) for limit in metric.buckets)


@pytest.mark.parametrize("service", EVERY_SERVICE)
def test_a_service_has_its_own_metrics_only(service: str) -> None:
    telemetry = Telemetry(service)

    mine = {metric.name for metric in METRICS if service in metric.services}
    assert {family.name.removesuffix("_total") for family in telemetry.registry.collect()} == {
        name.removesuffix("_total") for name in mine
    }


def test_a_metric_of_another_service_is_refused_at_start() -> None:
    with pytest.raises(KeyError):
        Telemetry("gateway").counter("integration_requests_received_total")


def test_a_gauge_shows_what_is_at_the_moment_it_is_read() -> None:
    telemetry = Telemetry("orchestrator")
    in_flight = [0]
    telemetry.watch("target_in_flight", lambda: in_flight[0], target="SAP")

    in_flight[0] = 3

    assert telemetry.registry.get_sample_value("target_in_flight", {"target": "SAP"}) == 3


def test_a_label_without_end_is_cut_after_so_many_values() -> None:
    values = LabelValues(most=2)

    bounded = [values.bound(text) for text in ("a", "b", "c", "a", "d")]

    assert bounded == ["a", "b", OTHER, "a", OTHER]
