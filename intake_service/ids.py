"""Ids of requests, events and dead letters: UUIDs of version 7 (RFC 9562), so that new rows lie beside each other."""

import os
import re
import struct
import threading
import time
from collections.abc import Iterator

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_lock = threading.Lock()
_last = [0]
#: Drawn ahead: asking the system for 8 bytes costs as much as the rest of an id.
_tails: list[int] = []
_DRAWN = struct.Struct("256Q")


def new_id() -> str:
    """Make a UUIDv7 that is greater than every earlier one of this process (RFC 9562, 6.2, method 3)."""
    with _lock:
        # 48 bits of milliseconds, then 12 bits of their fraction
        stamp = _last[0] = max(time.time_ns() * 4096 // 1_000_000, _last[0] + 1)
        if not _tails:
            _tails.extend(_DRAWN.unpack(os.urandom(_DRAWN.size)))
        tail = _tails.pop()
    return _text(stamp, tail)


def new_ids() -> Iterator[str]:
    """Make ids one after the other, 65,536 at most: a UUIDv7 whose last 16 bits count."""
    return map(f"{new_id()[:-4]}{{:04x}}".format, range(0x10000))


def first_id_at(instant: int) -> str:
    """The smallest id of an instant in microseconds: those made before are smaller, those made later are not."""
    return _text(max(0, instant) * 4096 // 1000, 0)


def is_id(text: str) -> bool:
    """Whether it is a UUID in its 36-character form, in either case."""
    return _UUID.fullmatch(text.lower()) is not None


def parse_id(text: str) -> str:
    """Give the canonical lower-case form. Raises: ValueError when it is no UUID in its 36-character form."""
    if not is_id(text):  # uuid.UUID also takes underscores, other alphabets' digits and stray dashes
        raise ValueError("not a UUID")
    return text.lower()


def _text(stamp: int, tail: int) -> str:
    head = f"{stamp:015x}"
    # version 7; variant 10 and 14 bits; 48 bits
    return f"{head[:8]}-{head[8:12]}-7{head[12:]}-{0x8000 | tail >> 50:04x}-{tail & 0xFFFF_FFFF_FFFF:012x}"
