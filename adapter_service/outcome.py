"""What came of a call to an external system: values only, and how a Retry-After is read.

Which answer means which outcome is each adapter's knowledge (see adapters/); how they travel is mapping.py's.
"""

import email.utils
from dataclasses import dataclass
from datetime import UTC

#: A system that asks for more is asked again after this long.
MAX_RETRY_AFTER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The system has the document."""

    response_json: str
    #: How many it was found to hold, where it had to be asked; more than one are duplicates.
    hits: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Refused for good: a repetition would be refused as well."""

    code: str
    detail: str
    response_json: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """Certainly not applied: the system, the way to it, or our credentials for it are out of order."""

    detail: str
    code: str = ""
    retry_after_seconds: float | None = None
    response_json: str = ""
    #: The system does not take our credentials, or we not its certificate: no fault of the request.
    credentials_refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled:
    """Certainly not applied: the system is saturated, not broken."""

    detail: str
    code: str = ""
    retry_after_seconds: float | None = None
    response_json: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Sent, and no usable answer: it may have been applied."""

    detail: str
    code: str = ""
    timed_out: bool = False
    response_json: str = ""


DeliverOutcome = Delivered | Rejected | Unavailable | Throttled | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The system holds the document."""

    response_json: str
    detail: str = ""
    #: How many it holds; more than one are duplicates.
    hits: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """The system says that it does not hold it now."""

    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotKnown:
    """The lookup failed, or its answer says neither; `code` is the HTTP status where one tells why."""

    detail: str
    code: str = ""
    retry_after_seconds: float | None = None
    #: As in Unavailable: the system was not asked.
    credentials_refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """The target cannot be asked."""


LookupOutcome = Found | Absent | NotKnown | Unsupported


def parse_retry_after(text: str | None, *, now: float) -> float | None:
    """Read a Retry-After, seconds or an HTTP date; seconds from `now` (since 1970) are the result.

    None when there is none or it says nothing; never below 0 nor above MAX_RETRY_AFTER_SECONDS.
    """
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    try:
        moment = email.utils.parsedate_to_datetime(text)
        at = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, at - now), MAX_RETRY_AFTER_SECONDS)
