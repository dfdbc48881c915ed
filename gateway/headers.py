"""Reading the raw headers of an ASGI scope: a list of pairs, names in lower case."""

from typing import Any

from starlette.types import Scope


def header_values(scope: Scope, name: bytes) -> list[bytes]:
    """Every value of one header, in the order sent."""
    return [value for key, value in scope["headers"] if key == name]


def header_text(scope: Scope, name: bytes) -> str | None:
    """The first value of one header."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


def raw_headers(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI sends them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def path_of(scope: Scope) -> str:
    """The path as it was sent, percent-encoding and all."""
    raw: Any = scope.get("raw_path") or scope["path"].encode()
    return str(raw, "latin-1")
