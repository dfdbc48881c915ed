"""JSON as partners send it: checked strictly, never changed.

Payloads travel as text, digit for digit; nothing here returns a parsed number. What is refused: bytes that are
not UTF-8, a byte order mark, NaN and infinities, numbers beyond a double's range, duplicate keys (RFC 7493),
lone surrogates, trailing data, nesting over the limit.
"""

import json
import re
from itertools import accumulate
from typing import Never

import msgspec

MAX_NESTING = 64
MAX_BYTES = 1024 * 1024
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
#: Integers of fewer digits are within a double's range.
_LARGE_INTEGER_DIGITS = 308
#: Checks the grammar and builds nothing; ranges, keys and UTF-8 are left to the second reading.
_GRAMMAR = msgspec.json.Decoder(msgspec.Raw)


class MalformedJson(ValueError):
    """The text is not JSON as the hub takes it; the message says why."""


class NestingTooDeep(ValueError):
    """Objects and arrays are nested deeper than MAX_NESTING."""


def check_json(text: bytes) -> None:
    """Check one JSON text without changing it.

    Raises: MalformedJson; NestingTooDeep.
    """
    try:
        _GRAMMAR.decode(text)
        _check_nesting(text)
        _STRICT.decode(text.decode())
    except NestingTooDeep:
        raise
    except msgspec.DecodeError as error:
        raise MalformedJson(str(error)) from error
    except RecursionError as error:
        raise NestingTooDeep(f"nesting is deeper than {MAX_NESTING}") from error
    except ValueError as error:
        raise MalformedJson(str(error)) from error


def _check_nesting(text: bytes) -> None:
    """Count brackets outside strings; `text` is well-formed, so that no string is left open."""
    if text.count(b"[") + text.count(b"{") <= MAX_NESTING:
        return
    brackets = _STRINGS.sub(b"", text).translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_NESTING:
        raise NestingTooDeep(f"nesting is deeper than {MAX_NESTING}")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedJson("a key stands twice in one object")
    return members


def _no_constant(_: str) -> Never:
    raise MalformedJson("NaN and Infinity are not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise MalformedJson("a number is out of range")
    return number


def _in_range(text: str) -> float:
    return _finite(text) if len(text) > _LARGE_INTEGER_DIGITS else 0


_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_in_range
)
