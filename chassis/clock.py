"""Time: instants are microseconds since 1970 in UTC (`Micros`), as they are stored; text only at the edges."""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

Micros = int
SECOND: Micros = 1_000_000


class Clock(Protocol):
    """Tells the time of day; real code takes SystemClock, tests take chassis.testing.FakeClock."""

    def now(self) -> Micros:
        """The current instant."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> Micros:
        """The current instant."""
        return time.time_ns() // 1000


def seconds_to_micros(seconds: float) -> Micros:
    """Convert a span in seconds."""
    return round(seconds * SECOND)


def to_timestamp(at: Micros) -> Timestamp:
    """Convert an instant to the protobuf type."""
    return Timestamp(seconds=at // SECOND, nanos=at % SECOND * 1000)


def from_timestamp(timestamp: Timestamp) -> Micros:
    """Convert from the protobuf type."""
    return timestamp.seconds * SECOND + timestamp.nanos // 1000


@lru_cache(maxsize=16)  # a transaction has one instant for all that it writes
def to_rfc3339(at: Micros) -> str:
    """Write an instant as RFC 3339 UTC with Z and milliseconds, the form of the seed's events."""
    whole, micros = divmod(at, SECOND)
    return f"{_second_text(whole)}.{micros // 1000:03d}Z"


def to_rfc3339_micros(at: Micros) -> str:
    """Write an instant as RFC 3339 UTC with Z and microseconds."""
    whole, micros = divmod(at, SECOND)
    return f"{_second_text(whole)}.{micros:06d}Z"


@lru_cache(maxsize=256)
def _second_text(whole: int) -> str:
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}"


def from_rfc3339(text: str) -> Micros:
    """Read an RFC 3339 time that names its offset. Raises: ValueError otherwise."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("the time has no offset; write it in UTC with Z")
    return round(at.timestamp() * SECOND)
