"""Ids of requests, events and dead letters: UUIDs of version 7 (RFC 9562), so that new rows lie beside each other."""

import os
import threading
import time
import uuid

_lock = threading.Lock()
_last = [0]


def new_id() -> str:
    """Make a UUIDv7 that is greater than every earlier one of this process (RFC 9562, 6.2, method 3)."""
    with _lock:
        # 48 bits of milliseconds, then 12 bits of their fraction
        stamp = _last[0] = max(time.time_ns() * 4096 // 1_000_000, _last[0] + 1)
    tail = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0x2 << 62 | tail
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def parse_id(text: str) -> str:
    """Give the canonical lower-case form. Raises: ValueError when it is no UUID in its 36-character form."""
    if len(text) != 36 or text.count("-") != 4:
        raise ValueError("not a UUID")
    return str(uuid.UUID(text))
