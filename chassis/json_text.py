"""JSON as partners send it: checked strictly, never changed.

Payloads travel as text, digit for digit; nothing here returns a parsed number. What is refused: bytes that are
not UTF-8, a byte order mark, NaN and infinities, numbers beyond a double's range, duplicate keys (RFC 7493),
lone surrogates, trailing data, nesting over the limit, more values than a document of its size needs.

The event loop waits while a text is checked, so what is hostile must be found out cheaply: only C loops go over it.
"""

import json
import re
from itertools import accumulate, chain
from math import isinf
from typing import Never

import msgspec

MAX_NESTING = 64
MAX_BYTES = 1024 * 1024
#: Checking a text of more bytes takes long enough to be done in turns (chassis.turns).
LONG_BYTES = 64 * 1024
#: An order of 12,000 lines of four members has fewer; checking more takes longer than others may wait.
MAX_VALUES = 50_000
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
#: Integers of fewer digits are within a double's range.
_LARGE_INTEGER_DIGITS = 308
#: Texts of so many characters may hold many numbers.
_MANY_NUMBERS = 16 * 1024
#: Checks the grammar and builds nothing; ranges, keys and UTF-8 are left to the last reading.
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
        _check_shape(text)
        _check_members(text.decode())
    except NestingTooDeep:
        raise
    except msgspec.DecodeError as error:
        raise MalformedJson(str(error)) from error
    except RecursionError as error:
        raise NestingTooDeep(f"nesting is deeper than {MAX_NESTING}") from error
    except ValueError as error:
        raise MalformedJson(str(error)) from error


def _check_shape(text: bytes) -> None:
    """Count values and nesting; `text` is well-formed, so that no string is left open."""
    opened = text.count(b"[") + text.count(b"{")
    if opened <= MAX_NESTING and opened + text.count(b",") < MAX_VALUES:
        return
    bare = _STRINGS.sub(b"", text)
    if bare.count(b"[") + bare.count(b"{") + bare.count(b",") >= MAX_VALUES:
        raise MalformedJson(f"it holds more than {MAX_VALUES} values")
    brackets = bare.translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_NESTING:
        raise NestingTooDeep(f"nesting is deeper than {MAX_NESTING}")


def _check_members(text: str) -> None:
    """Read everything: keys are compared, and numbers only checked."""
    if len(text) < _MANY_NUMBERS:
        _STRICT.raw_decode(text.lstrip())  # nothing can follow: the grammar is checked
        return
    fractions: list[str] = []
    integers: list[str] = []
    # a call of ours for each number would cost five times as much; a decoder of its own is worth it for long texts only
    decoder = json.JSONDecoder(
        object_pairs_hook=_unique,
        parse_constant=_no_constant,
        parse_float=fractions.append,  # what it returns is never looked at
        parse_int=integers.append,
    )
    decoder.decode(text)
    large = (digits for digits in integers if len(digits) > _LARGE_INTEGER_DIGITS)
    if any(map(isinf, map(float, chain(fractions, large)))):
        raise MalformedJson("a number is out of range")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedJson("a key stands twice in one object")
    return members


def _no_constant(_: str) -> Never:
    raise MalformedJson("NaN and Infinity are not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise MalformedJson("a number is out of range")
    return number


def _in_range(text: str) -> float:
    return _finite(text) if len(text) > _LARGE_INTEGER_DIGITS else 0


_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_in_range
)
