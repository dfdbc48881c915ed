"""Logs: one line per event, constant text with fields; JSON, or readable on a terminal.

Correlation and request ids come from the context (`bind`), not from each call. Never a payload, token or secret.
"""

import asyncio
import atexit
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, BinaryIO, TextIO

import orjson

from chassis.clock import to_rfc3339_micros

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
#: How long a line may wait for others, so that they are written together.
FLUSH_SECONDS = 0.02
#: One variable for all fields: structlog has one for each, and looks through the whole context for every line.
_fields: ContextVar[Mapping[str, str]] = ContextVar("log_fields")
_NONE: Mapping[str, str] = {}


class Logger:
    """What every module logs with: a constant text, and fields for what varies.

    Its methods are set by `configure_logs` for JSON; without them, as in tests and on a terminal, they are structlog's,
    which takes 6 MB of a process, most of them for rich.
    """

    debug: Callable[..., None]
    info: Callable[..., None]
    warning: Callable[..., None]
    error: Callable[..., None]
    exception: Callable[..., None]

    def info_each(self, event: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Log what happened to many at once: a line for each, with its own fields."""
        for fields in lines:
            self.info(event, **fields)

    def __getattr__(self, name: str) -> Any:
        import structlog

        return getattr(structlog.get_logger(), name)


_logger = Logger()


def configure_logs(service: str, *, level: str, log_format: str, stream: TextIO = sys.stdout) -> None:
    """Set up logging for this process, foreign loggers (uvicorn, grpc, alembic) included."""
    as_json = log_format == "json" or (log_format == "auto" and not stream.isatty())
    least = _LEVELS[level]
    vars(_logger).clear()
    if as_json:
        methods = _json_methods(service, least, _Together(stream.buffer))
        vars(_logger).update(methods)
        handler: logging.Handler = _JsonLines(methods)
    else:
        from chassis.terminal_logs import configure_terminal  # its imports are paid for only where they are used

        handler = configure_terminal(service, least, stream)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(least, logging.WARNING))
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


class _Together:
    """A stream to which the event loop writes, in one call, what is logged within FLUSH_SECONDS; threads may log too.

    A line of its own costs the service a system call and its reader a wake-up. What a SIGKILL can take is the lines of
    that time.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._is_due = False
        atexit.register(self._flush)

    def write(self, line: bytes) -> None:
        """Write a line: with those that wait already, at once where no loop runs, else soon."""
        self._lines.append(line)
        if self._is_due:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._flush()
            return
        self._is_due = True
        loop.call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._is_due = False  # before the lines are taken: what comes from here on asks for another flush
        with self._lock:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if lines:
                self._stream.write(b"".join(lines))
                self._stream.flush()


def _json_methods(service: str, least: int, together: _Together) -> dict[str, Callable[..., None]]:
    """Make a logger's methods that write JSON: structlog's way through its processors costs as much as the line."""
    write = together.write

    def method(level: str) -> Callable[..., None]:
        def log(event: str, /, **fields: Any) -> None:
            if "exc_info" in fields:
                fields = _with_stack(**fields)
            line = {
                **_fields.get(_NONE),
                **fields,
                "message": event,
                "level": level,
                "timestamp": to_rfc3339_micros(time.time_ns() // 1000),
                "service": service,
            }
            write(orjson.dumps(line, default=str) + b"\n")  # a copy of its size: what waits from orjson is a kilobyte

        return log if _LEVELS[level] >= least else _leave_out

    methods = {level: method(level) for level in _LEVELS}

    def exception(event: str, /, **fields: Any) -> None:
        methods["error"](event, **{"exc_info": True, **fields})

    def info_each(event: str, lines: Iterable[Mapping[str, Any]]) -> None:
        timestamp = to_rfc3339_micros(time.time_ns() // 1000)
        same = {"message": event, "level": "info", "timestamp": timestamp, "service": service}
        bound_fields = _fields.get(_NONE)
        for fields in lines:
            write(orjson.dumps({**bound_fields, **fields, **same}, default=str) + b"\n")

    return {
        **methods,
        "exception": exception,
        "info_each": info_each if _LEVELS["info"] >= least else _leave_out,
    }


def _leave_out(event: str, /, *_: object, **fields: object) -> None:
    """Log nothing: the level is below the one that is wanted."""


def bind(**fields: str) -> None:
    """Add fields to every line logged from here on in this context, which must be a task's own."""
    _fields.set({**_fields.get(_NONE), **fields})


def add_bound_fields(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put the context's fields on a line, where it has none of that name (a structlog processor)."""
    return {**_fields.get(_NONE), **event}


def get_logger() -> Logger:
    """The logger; there is one, for all modules."""
    return _logger


class _JsonLines(logging.Handler):
    """What libraries log, as lines like our own."""

    def __init__(self, methods: Mapping[str, Callable[..., None]]) -> None:
        super().__init__()
        self._methods = methods

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; what is worse than an error is one."""
        try:
            method = self._methods.get(record.levelname.lower(), self._methods["error"])
            stack = {"exc_info": record.exc_info[1]} if record.exc_info else {}
            method(record.getMessage(), **stack)
        except Exception:  # noqa: BLE001 - its text and its values do not fit; whom it logs about must not suffer
            self.handleError(record)


def _with_stack(*, exc_info: BaseException | bool | None, **fields: Any) -> dict[str, Any]:
    """Write the stack of an error, or of the one at hand, without local variables: payloads, tokens."""
    error = exc_info if isinstance(exc_info, BaseException) else sys.exception() if exc_info else None
    return fields if error is None else {**fields, "exception": "".join(traceback.format_exception(error)).rstrip()}
