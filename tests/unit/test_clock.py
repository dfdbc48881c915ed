"""Instants and their texts."""

import time

import pytest

from chassis.clock import SystemClock, from_rfc3339, from_timestamp, seconds_to_micros, to_rfc3339, to_timestamp
from chassis.testing import FakeClock


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_705_314_600_123_000, "2024-01-15T10:30:00.123Z"),  # the seed's
        (1_705_314_600_000_999, "2024-01-15T10:30:00.000Z"),  # cut, not rounded: 999 µs is not a millisecond yet
        (1_705_314_600_999_999, "2024-01-15T10:30:00.999Z"),
        (1_709_164_800_000_000, "2024-02-29T00:00:00.000Z"),
        (-1_000, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_an_instant_is_written_in_utc_with_milliseconds(at: int, text: str) -> None:
    assert to_rfc3339(at) == text


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2024-01-15T10:30:00Z", 1_705_314_600_000_000),
        ("2024-01-15T10:30:00.123456Z", 1_705_314_600_123_456),
        ("2024-01-15T07:30:00-03:00", 1_705_314_600_000_000),  # São Paulo
    ],
)
def test_a_time_with_its_offset_is_read(text: str, at: int) -> None:
    assert from_rfc3339(text) == at


@pytest.mark.parametrize("text", ["2024-01-15T10:30:00", "2024-01-15", "yesterday", "", "2024-13-01T00:00:00Z"])
def test_a_time_without_an_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        from_rfc3339(text)


@pytest.mark.parametrize("at", [0, 1, 999_999, 1_000_000, 1_705_314_600_123_456, -1, -1_500_000])
def test_an_instant_survives_protobuf(at: int) -> None:
    assert from_timestamp(to_timestamp(at)) == at


@pytest.mark.parametrize(("seconds", "micros"), [(0, 0), (1.5, 1_500_000), (0.0000004, 0), (86_400, 86_400_000_000)])
def test_a_span_is_converted(seconds: float, micros: int) -> None:
    assert seconds_to_micros(seconds) == micros


def test_the_systems_clock_counts_microseconds() -> None:
    assert abs(SystemClock().now() - time.time() * 1e6) < 5e6


def test_a_fake_clock_moves_when_it_is_told() -> None:
    clock = FakeClock(1_000_000)
    clock.advance(2.5)

    assert clock.now() == 3_500_000
