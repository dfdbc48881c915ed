"""Logs: one line per event, constant text with fields; JSON, or readable on a terminal.

Correlation and request ids come from the context (`bound`), not from each call. Never a payload, token or secret.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, BinaryIO, TextIO

import orjson
import structlog
from structlog.contextvars import bound_contextvars

from chassis.clock import to_rfc3339_micros

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logs(service: str, *, level: str, log_format: str, stream: TextIO = sys.stdout) -> None:
    """Set up logging for this process, foreign loggers (uvicorn, grpc, alembic) included."""
    as_json = log_format == "json" or (log_format == "auto" and not stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
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
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            renderer,
        ]
        if as_json
        else [*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=(
            structlog.BytesLoggerFactory(_OncePerTurn(stream.buffer))  # type: ignore[arg-type]  # all that it uses
            if as_json
            else structlog.PrintLoggerFactory(stream)
        ),
        cache_logger_on_first_use=True,
    )
    _configure_foreign(shared, renderer, as_json, stream, _LEVELS[level])


class _OncePerTurn:
    """A stream whose flush, on the event loop, waits for the end of the loop's turn: one write for all its lines.

    A line of its own costs the service a system call and its reader a wake-up. What a SIGKILL can take is the lines of
    one turn.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.write = stream.write
        self._is_due = False

    def flush(self) -> None:
        """Write now where no loop runs, else with the rest of this turn."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._stream.flush()
            return
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._is_due = False
        self._stream.flush()


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Add fields to every line logged inside."""
    with bound_contextvars(**fields):
        yield


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
