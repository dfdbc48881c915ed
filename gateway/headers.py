"""Reading the raw headers of an ASGI scope: a list of pairs, names in lower case."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.types import Scope

#: Where the first question about a call's headers leaves them by name: several are asked for on every call.
_BY_NAME = "hub.headers"


Headers = Mapping[bytes, Sequence[bytes]]


def headers_of(scope: Scope) -> Headers:
    """The headers of a call by name, each with its values in the order sent."""
    by_name: Headers | None = scope.get(_BY_NAME)
    if by_name is None:
        by_name = scope[_BY_NAME] = _group(scope["headers"])
    return by_name


def header_text(headers: Headers, name: bytes) -> str | None:
    """The first value of one header."""
    return str(headers[name][0], "latin-1") if name in headers else None


def raw_headers(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI sends them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def path_of(scope: Scope) -> str:
    """The path as it was sent, percent-encoding and all."""
    raw: Any = scope.get("raw_path") or scope["path"].encode()
    return str(raw, "latin-1")


def _group(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    by_name = {name: [value] for name, value in headers}
    if len(by_name) < len(headers):  # some came twice
        by_name = {}
        for name, value in headers:
            by_name.setdefault(name, []).append(value)
    return by_name
