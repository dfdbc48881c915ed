"""JSON as partners send it: checked strictly, never changed.

Payloads travel as text, digit for digit; nothing here returns a parsed number. What is refused: bytes that are
not UTF-8, a byte order mark, NaN and infinities, numbers beyond a double's range, duplicate keys (RFC 7493),
lone surrogates, trailing data, nesting over the limit.
"""

import json
import re
from typing import Never

import msgspec

MAX_NESTING = 64
MAX_BYTES = 1024 * 1024
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_ANY = msgspec.json.Decoder()


class MalformedJson(ValueError):
    """The text is not JSON as the hub takes it; the message says why."""


class NestingTooDeep(ValueError):
    """Objects and arrays are nested deeper than MAX_NESTING."""


def check_json(text: bytes) -> None:
    """Check one JSON text without changing it.

    Raises: MalformedJson; NestingTooDeep.
    """
    if text.count(b"[") + text.count(b"{") > MAX_NESTING:
        _check_nesting(text)
    try:
        _ANY.decode(text)
        json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except msgspec.DecodeError as error:
        raise MalformedJson(str(error)) from error
    except RecursionError as error:
        raise NestingTooDeep(f"nesting is deeper than {MAX_NESTING}") from error
    except ValueError as error:
        raise MalformedJson(str(error)) from error


def _check_nesting(text: bytes) -> None:
    """Peel innermost pairs off, one level a round, all of it at C speed."""
    brackets = _STRINGS.sub(b"", text).translate(None, _NOT_BRACKETS)
    for _ in range(MAX_NESTING):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if brackets:
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
