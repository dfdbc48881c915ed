"""What commands print: tables, times, JSON. Text that came from outside cannot steer the terminal."""

import re
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import typer


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under headers, columns aligned; a terminal's last column is cut at its edge."""
    texts = [[clean(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *texts, strict=True)]
    for line in [list(headers), *texts]:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        typer.echo(_cut(text))


def print_json(body: bytes, *, verbatim: bool) -> None:
    """Print JSON: as it is for programs, indented on a terminal; numbers keep every digit either way."""
    if not verbatim and sys.stdout.isatty():
        import msgspec  # only commands that talk to the hub pay for it

        body = msgspec.json.format(body, indent=2)
    print_text_json(body.decode())


def print_text_json(text: str) -> None:
    """Print JSON as it is; on a terminal what could steer it is escaped, which means the same in JSON."""
    if sys.stdout.isatty():
        text = "".join(map(_escaped, text.replace("\r", "\n")))  # outside a string both are blanks
    typer.echo(text)


def clean(text: str) -> str:
    """Replace line breaks and control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def instant_text(at: datetime) -> str:
    """Write an instant as RFC 3339 UTC, to the millisecond."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def span(seconds: float) -> str:
    """Write a duration as people say it: 850 ms, 12.3 s, 4 min, 3 h, 2 d."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    for limit, unit, name in ((7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} d"


def _escaped(character: str) -> str:
    """Write a character that is not printable as JSON's own escape; two of them beyond U+FFFF."""
    if character.isprintable() or character in "\n\t":
        return character
    return re.sub("....", r"\\u\g<0>", character.encode("utf-16-be").hex())


def _cut(text: str) -> str:
    if not sys.stdout.isatty():
        return text
    columns = shutil.get_terminal_size().columns
    return text if len(text) <= columns else text[: columns - 1] + "…"
