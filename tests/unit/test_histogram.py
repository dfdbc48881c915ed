"""The hub's histogram shows what prometheus_client's own would."""

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from chassis.histogram import Histogram

BUCKETS = (1.0, 2.5, 10.0)
#: Below the first limit, on each, between two, beyond the last.
VALUES = (0.0, 0.3, 1.0, 1.1, 2.5, 9.99, 10.0, 10.01, 1e9)


@pytest.fixture(autouse=True)
def without_created_series() -> None:
    """As Telemetry has them."""
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no hints here


def _pair(labels: tuple[str, ...] = ()) -> tuple[list[prometheus_client.Histogram], list[CollectorRegistry]]:
    registries = [CollectorRegistry(), CollectorRegistry()]
    histograms = [
        kind("wait_ms", "How long", labels, buckets=BUCKETS, registry=registry)
        for kind, registry in zip((Histogram, prometheus_client.Histogram), registries, strict=True)
    ]
    return histograms, registries


def test_the_text_is_the_librarys() -> None:
    histograms, registries = _pair()

    before = [generate_latest(registry) for registry in registries]
    for histogram in histograms:
        for value in VALUES:
            histogram.observe(value)
    after = [generate_latest(registry) for registry in registries]

    assert before[0] == before[1]
    assert after[0] == after[1]
    assert before[0] != after[0]


def test_the_text_of_labelled_series_is_the_librarys() -> None:
    histograms, registries = _pair(("target",))

    for histogram in histograms:
        histogram.labels(target="quiet")
        for value in VALUES:
            histogram.labels(target="busy").observe(value)

    ours, theirs = map(generate_latest, registries)
    assert ours == theirs


def test_a_value_that_many_share_counts_for_each() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("wait_ms", "How long", buckets=BUCKETS, registry=registry)

    histogram.observe(2.0, 3)
    histogram.observe(20.0, 0)

    assert registry.get_sample_value("wait_ms_count") == 3
    assert registry.get_sample_value("wait_ms_sum") == pytest.approx(6)
    assert registry.get_sample_value("wait_ms_bucket", {"le": "1.0"}) == 0
    assert registry.get_sample_value("wait_ms_bucket", {"le": "2.5"}) == 3
