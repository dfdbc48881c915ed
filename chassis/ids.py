"""Ids of what is stored, and of what is indexed with it: UUIDv7 (RFC 9562), so that new ones lie beside each other."""

import os
import re
import struct
import threading
import time

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_lock = threading.Lock()
_last = [0]
#: Ends of ids, drawn ahead: asking the system for 8 bytes costs as much as the rest of an id.
_tails: list[str] = []
_DRAWN = struct.Struct("256Q")


def new_id() -> str:
    """Make a UUIDv7 that is greater than every earlier one of this process (RFC 9562, 6.2, method 3)."""
    with _lock:
        # 48 bits of milliseconds, then 12 bits of their fraction
        stamp = _last[0] = max(time.time_ns() * 4096 // 1_000_000, _last[0] + 1)
        if not _tails:
            _tails.extend(map(_tail, _DRAWN.unpack(os.urandom(_DRAWN.size))))
        tail = _tails.pop()
    return _text(stamp, tail)


def first_id_at(instant: int) -> str:
    """The smallest id of an instant in microseconds: those made before are smaller, those made later are not."""
    return _text(max(0, instant) * 4096 // 1000, _tail(0))


def find_id(text: str) -> str | None:
    """Give the canonical lower-case form; None when it is no UUID in its 36-character form."""
    lower = text.lower()  # uuid.UUID also takes underscores, other alphabets' digits and stray dashes
    return lower if _UUID.fullmatch(lower) else None


def parse_id(text: str) -> str:
    """Give the canonical lower-case form. Raises: ValueError when it is no UUID in its 36-character form."""
    found = find_id(text)
    if found is None:
        raise ValueError("not a UUID")
    return found


def _text(stamp: int, tail: str) -> str:
    head = f"{stamp:015x}"
    return f"{head[:8]}-{head[8:12]}-7{head[12:]}-{tail}"  # version 7


def _tail(drawn: int) -> str:
    return f"{0x8000 | drawn >> 50:04x}-{drawn & 0xFFFF_FFFF_FFFF:012x}"  # variant 10 and 14 bits; 48 bits
