"""Logs for people at a terminal: structlog's readable lines, of foreign loggers too. Imported nowhere else."""

import logging
import time
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from chassis.clock import to_rfc3339_micros
from chassis.logs import add_bound_fields


def configure_terminal(service: str, least: int, stream: TextIO) -> logging.Handler:
    """Have structlog write to `stream` from level `least` on; gives the handler that writes foreign records alike."""

    def stamp(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["timestamp"] = to_rfc3339_micros(time.time_ns() // 1000)
        event["service"] = service
        return event

    shared: list[Any] = [add_bound_fields, structlog.processors.add_log_level, stamp]
    renderer = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(),
        exception_formatter=structlog.dev.plain_traceback,  # the other one prints local variables: payloads, tokens
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    final: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    return handler
