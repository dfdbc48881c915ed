"""Logs: one line per event, constant text with fields; JSON, or readable on a terminal.

Correlation and request ids come from the context (`bound`), not from each call. Never a payload, token or secret.
"""

import asyncio
import atexit
import logging
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, BinaryIO, TextIO

import orjson
import structlog

from chassis.clock import to_rfc3339_micros

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
#: How long a line may wait for others, so that they are written together.
FLUSH_SECONDS = 0.02
#: One variable for all fields: structlog has one for each, and looks through the whole context for every line.
_fields: ContextVar[Mapping[str, str]] = ContextVar("log_fields")
_NONE: Mapping[str, str] = {}


def configure_logs(service: str, *, level: str, log_format: str, stream: TextIO = sys.stdout) -> None:
    """Set up logging for this process, foreign loggers (uvicorn, grpc, alembic) included."""
    as_json = log_format == "json" or (log_format == "auto" and not stream.isatty())
    shared: list[Any] = [
        add_bound_fields,
        structlog.processors.add_log_level,
        _stamp,
        _add_service(service),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(serializer=_to_json)
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=stream.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # the other one prints local variables: payloads, tokens
        )
    )
    structlog.configure(
        processors=[_JsonLine(service)] if as_json else [*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=(
            structlog.BytesLoggerFactory(_Together(stream.buffer))  # type: ignore[arg-type]  # all that it uses
            if as_json
            else structlog.PrintLoggerFactory(stream)
        ),
        cache_logger_on_first_use=True,
    )
    _configure_foreign(shared, renderer, as_json, stream, _LEVELS[level])


class _JsonLine:
    """All of structlog's steps for one of our own lines in one: a call for each costs as much as the line."""

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, logger: Any, level: str, event: MutableMapping[str, Any]) -> bytes:
        if "exc_info" in event:
            event = structlog.processors.format_exc_info(logger, level, event)
        line = {**_fields.get(_NONE), **event}
        line["message"] = line.pop("event")
        line["level"] = level
        line["timestamp"] = to_rfc3339_micros(time.time_ns() // 1000)
        line["service"] = self._service
        return orjson.dumps(line, default=str)


class _Together:
    """A stream whose flush, on the event loop, waits for what else is logged within FLUSH_SECONDS.

    A line of its own costs the service a system call and its reader a wake-up. What a SIGKILL can take is the lines of
    that time.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines: list[bytes] = []
        self._is_due = False
        atexit.register(self._flush_now)

    def write(self, line: bytes) -> None:
        """Keep a line until the flush."""
        self._lines.append(line)

    def flush(self) -> None:
        """Write now where no loop runs, else soon."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._flush_now()
            return
        if not self._is_due:
            self._is_due = True
            loop.call_later(FLUSH_SECONDS, self._flush_now)

    def _flush_now(self) -> None:
        self._is_due = False
        lines, self._lines = self._lines, []
        if lines:
            self._stream.write(b"".join(lines))
            self._stream.flush()


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Add fields to every line logged inside."""
    token = _fields.set({**_fields.get(_NONE), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def bind(**fields: str) -> None:
    """Add fields to every line logged from here on in this context, which must be a task's own."""
    _fields.set({**_fields.get(_NONE), **fields})


def add_bound_fields(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put the context's fields on a line, where it has none of that name (structlog processor)."""
    return {**_fields.get(_NONE), **event}


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """A logger; the same configuration for all."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def _configure_foreign(shared: list[Any], renderer: Any, as_json: bool, stream: TextIO, level: int) -> None:
    final: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if as_json:
        final += [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            _as_text(renderer),
        ]
    else:
        final += [renderer]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def _stamp(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["timestamp"] = to_rfc3339_micros(time.time_ns() // 1000)
    return event


def _add_service(service: str) -> Any:
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return add


def _to_json(event: Any, **_: Any) -> bytes:
    return orjson.dumps(event, default=str)


def _as_text(renderer: Any) -> Any:
    def render(logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
        return bytes(renderer(logger, name, event)).decode()

    return render
