"""Where the children's lines go: each to its own log file of bounded size and, with its name in front, to the terminal.

The terminal is written by a thread of its own behind a bounded buffer. A terminal that stands still (Ctrl-S, a pipe
nobody reads) then costs lines on the screen; it never makes a service wait in the middle of logging.
"""

import contextlib
import json
import os
import threading
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol, TextIO

MAX_FILE_BYTES = 10 * 1024 * 1024
MAX_LINE_BYTES = 1024 * 1024
MAX_WAITING_BYTES = 4 * 1024 * 1024
CLOSE_SECONDS = 2.0
OWN_NAME = "hub"

_COLOURS = (36, 32, 34, 35, 96, 92, 94)
_LEVEL_COLOURS = {"warning": 33, "error": 31, "critical": 31}
_HIDDEN_FIELDS = {"message", "level", "timestamp", "service"}


class Sink(Protocol):
    """Takes finished lines for people."""

    def write(self, data: bytes) -> None:
        """Take whole lines; never waits and never raises."""
        ...


class Terminal:
    """Writes to a stream from a thread; drops lines rather than wait."""

    def __init__(self, stream: TextIO) -> None:
        self._descriptor = stream.fileno()
        self._changed = threading.Condition()
        self._waiting = bytearray()
        self._dropped = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="terminal", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Take whole lines; never waits and never raises."""
        with self._changed:
            if len(self._waiting) + len(data) > MAX_WAITING_BYTES:
                self._dropped += data.count(b"\n")
            else:
                self._waiting += data
            self._changed.notify()

    def close(self) -> None:
        """Write what waits, for two seconds at most."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while data := self._take():
            with contextlib.suppress(OSError):  # the terminal is gone; the files go on
                while data:
                    data = data[os.write(self._descriptor, data) :]

    def _take(self) -> bytes:
        """Wait for lines and take them all; nothing once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            data = bytes(self._waiting)
            self._waiting.clear()
            if self._dropped:
                data += f"({self._dropped} lines were too fast for this terminal; the log files have them)\n".encode()
                self._dropped = 0
        return data


class LogFile:
    """A file that moves to NAME.1 when it is full, so that the two never hold more than twice the limit."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file: BinaryIO | None = None
        self._bytes = 0

    def write(self, data: bytes) -> None:
        """Append. A full disk loses lines, not the hub."""
        with contextlib.suppress(OSError):
            if self._file is not None and self._bytes + len(data) > self._max_bytes:
                self.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            if self._file is None:
                self._file = self._path.open("ab", buffering=0)
                self._bytes = self._file.tell()
            self._bytes += self._file.write(data)

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class LineBuffer:
    """Cuts a stream of bytes into whole lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return the lines that are whole now; an endless line is cut at 1 MiB."""
        whole, newline, rest = (self._rest + chunk).rpartition(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            whole, newline, rest = whole + newline + rest, b"\n", b""
        self._rest = rest
        return whole + newline

    def flush(self) -> bytes:
        """Return the last line, which has no end."""
        rest, self._rest = self._rest, b""
        return rest + b"\n" if rest else b""


class Output:
    """All lines of one supervisor and its children."""

    def __init__(
        self, folder: Path, names: list[str], terminal: Sink, *, hidden: Collection[str], readable: bool, colour: bool
    ) -> None:
        width = max(map(len, [OWN_NAME, *names]))
        self._prefixes = {OWN_NAME: f"{OWN_NAME:<{width}} | ".encode()}
        for position, name in enumerate(names):
            self._prefixes[name] = (
                _paint(f"{name:<{width}} |", _COLOURS[position % len(_COLOURS)], colour).encode() + b" "
            )
        self._files = {name: LogFile(folder / f"{name}.log") for name in [OWN_NAME, *names]}
        self._terminal = terminal
        self._hidden = hidden
        self._readable = readable
        self._colour = colour

    def relay(self, name: str, lines: bytes) -> None:
        """Pass on whole lines of a child."""
        self._files[name].write(lines)
        if name not in self._hidden:
            self._show(name, lines)

    def repeat(self, name: str, lines: bytes) -> None:
        """Show the last lines of a child that failed, where they were kept off the terminal."""
        if name in self._hidden and lines:
            self._show(name, lines)

    def say(self, text: str) -> None:
        """Tell people something about the hub as a whole."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._files[OWN_NAME].write(f"{now} {text}\n".encode())
        self._terminal.write(self._prefixed(OWN_NAME, text.encode() + b"\n"))

    def show(self, text: str) -> None:
        """Put text on the terminal as it is; no log file has it."""
        self._terminal.write(text.encode())

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _show(self, name: str, lines: bytes) -> None:
        if self._readable:
            lines = b"".join(readable_line(line, colour=self._colour) + b"\n" for line in lines.splitlines())
        self._terminal.write(self._prefixed(name, lines))

    def _prefixed(self, name: str, lines: bytes) -> bytes:
        prefix = self._prefixes[name]
        return prefix + lines[:-1].replace(b"\n", b"\n" + prefix) + b"\n"


def readable_line(line: bytes, *, colour: bool) -> bytes:
    """Write a JSON log line for people; any other line stays as it is."""
    try:
        event = json.loads(line)
        message = event["message"]
    except (ValueError, TypeError, KeyError):
        return line
    level = str(event.get("level", "info"))
    fields = " ".join(f"{key}={_plain(value)}" for key, value in event.items() if key not in _HIDDEN_FIELDS)
    text = f"{str(event.get('timestamp', ''))[11:19]} {level:<7} {_plain(message, quoted=False)}  {fields}".rstrip()
    return _paint(text, _LEVEL_COLOURS[level], colour).encode() if level in _LEVEL_COLOURS else text.encode()


def _plain(value: object, *, quoted: bool = True) -> str:
    """Write a value on one line; what could steer the terminal comes out as an escape."""
    text = value if isinstance(value, str) else json.dumps(value)
    if text.isprintable() and not (quoted and (" " in text or not text)):
        return text
    return json.dumps(text)


def _paint(text: str, colour: int, on: bool) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if on else text
