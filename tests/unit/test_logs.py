"""Log lines: one JSON object each, ours and foreign ones alike, with the ids of the context and no local variable."""

import asyncio
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
import structlog

from chassis.logs import bind, configure_logs, get_logger
from chassis.testing import eventually

ROOT = Path(__file__).resolve().parents[2]


class _CountedWrites(io.RawIOBase):
    """What a pipe is to a process."""

    def __init__(self) -> None:
        self.text = b""
        self.calls = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.text += bytes(data)
        self.calls += 1
        return len(data)


class Lines:
    """Where the log of a test goes."""

    def __init__(self) -> None:
        self._bytes = _CountedWrites()
        self.stream = io.TextIOWrapper(io.BufferedWriter(self._bytes), encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        return self._bytes.text.decode()

    @property
    def written(self) -> int:
        """How often the system was called."""
        return self._bytes.calls

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def lines() -> Iterator[Lines]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Lines()
    vars(get_logger()).clear()
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_is_one_json_object_with_its_fields(lines: Lines) -> None:
    configure_logs("intake", level="info", log_format="json", stream=lines.stream)

    get_logger().info("Status updated", old_status="Received", new_status="Processing", at=3)

    (line,) = lines.read()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "message": "Status updated",
        "level": "info",
        "service": "intake",
        "old_status": "Received",
        "new_status": "Processing",
        "at": 3,
    }


@pytest.mark.parametrize("level", ["info", "warning"])
def test_lines_of_many_are_those_of_each(lines: Lines, level: str) -> None:
    configure_logs("intake", level=level, log_format="json", stream=lines.stream)
    log = get_logger()
    fields: list[dict[str, Any]] = [{"request_id": "1", "at": 3}, {"request_id": "2"}, {"correlation_id": "own"}]

    def tell() -> None:
        bind(correlation_id="c-1")
        log.info_each("Status updated", fields)
        for each in fields:
            log.info("Status updated", **each)

    copy_context().run(tell)
    written = lines.read()
    together, alone = written[: len(written) // 2], written[len(written) // 2 :]

    assert len(written) == (2 * len(fields) if level == "info" else 0)
    assert [list(line) for line in together] == [list(line) for line in alone]
    assert [line | {"timestamp": ""} for line in together] == [line | {"timestamp": ""} for line in alone]


def test_lines_of_many_are_readable_on_a_terminal(lines: Lines) -> None:
    configure_logs("intake", level="info", log_format="console", stream=lines.stream)

    get_logger().info_each("Status updated", [{"request_id": "1"}, {"request_id": "2"}])

    assert [line.count("Status updated") for line in lines.text.splitlines()] == [1, 1]


async def test_lines_that_are_logged_together_are_written_together(lines: Lines) -> None:
    configure_logs("intake", level="info", log_format="json", stream=lines.stream)
    log = get_logger()

    log.info("One")
    await asyncio.sleep(0)
    log.info("Two")
    before = lines.written
    await eventually(lambda: lines.written)

    assert (before, lines.written) == (0, 1)
    assert [line["message"] for line in lines.read()] == ["One", "Two"]


def test_a_line_outside_the_loop_is_written_at_once(lines: Lines) -> None:
    configure_logs("intake", level="info", log_format="json", stream=lines.stream)

    get_logger().info("One")

    assert lines.written == 1


async def test_lines_of_threads_and_of_the_loop_are_all_written_once(lines: Lines) -> None:
    configure_logs("intake", level="info", log_format="json", stream=lines.stream)
    log = get_logger()

    def tell(thread: int) -> None:
        for number in range(200):
            log.info("Told", thread=thread, number=number)

    telling = [asyncio.to_thread(tell, thread) for thread in (1, 2, 3)]
    tell(0)
    await asyncio.gather(*telling)
    await eventually(lambda: len(lines.read()) == 800)

    told = [(line["thread"], line["number"]) for line in lines.read()]
    assert [[number for by, number in told if by == thread] for thread in range(4)] == [list(range(200))] * 4


def test_the_contexts_ids_are_in_every_line_inside_and_in_none_outside(lines: Lines) -> None:
    configure_logs("intake", level="info", log_format="json", stream=lines.stream)
    log = get_logger()

    def tell() -> None:
        bind(correlation_id="c-1", request_id="r-1")
        log.info("Inside")
        logging.getLogger("foreign").warning("Inside too")

    copy_context().run(tell)
    log.info("Outside")

    inside, foreign, outside = lines.read()
    assert [(line.get("correlation_id"), line.get("request_id")) for line in (inside, foreign, outside)] == [
        ("c-1", "r-1"),
        ("c-1", "r-1"),
        (None, None),
    ]


def test_a_foreign_logger_writes_the_same_shape(lines: Lines) -> None:
    configure_logs("gateway", level="info", log_format="json", stream=lines.stream)

    logging.getLogger("uvicorn.error").warning("It %s", "happened")

    (line,) = lines.read()
    assert (line["message"], line["level"], line["service"]) == ("It happened", "warning", "gateway")


def test_a_warning_of_a_library_is_a_line_like_any_other(lines: Lines) -> None:
    configure_logs("gateway", level="info", log_format="json", stream=lines.stream)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("it ends soon", DeprecationWarning, stacklevel=1)

    (line,) = lines.read()
    assert (line["level"], line["service"]) == ("warning", "gateway")
    assert "DeprecationWarning: it ends soon" in line["message"]


def test_a_foreign_error_shows_its_stack(lines: Lines) -> None:
    configure_logs("gateway", level="info", log_format="json", stream=lines.stream)

    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("uvicorn.error").critical("It fell", exc_info=True)

    (line,) = lines.read()
    assert (line["message"], line["level"]) == ("It fell", "error")
    assert line["exception"].endswith("RuntimeError: broken")


@pytest.mark.parametrize(("text", "value"), [("%d parts", "some"), ("%(count)d parts", {"size": 1})])
def test_a_foreign_line_whose_values_do_not_fit_harms_nobody(
    lines: Lines, capsys: pytest.CaptureFixture[str], text: str, value: object
) -> None:
    configure_logs("gateway", level="info", log_format="json", stream=lines.stream)

    logging.getLogger("uvicorn.error").warning(text, value)

    assert (lines.text, text in capsys.readouterr().err) == ("", True)


def test_a_service_that_writes_json_loads_nothing_that_is_for_people() -> None:
    """What a terminal wants takes 6 MB of each process."""
    script = (
        "import sys; import {service}.bootstrap; from chassis.logs import configure_logs;"
        "configure_logs('x', level='info', log_format='json');"
        "print([name for name in ('structlog', 'rich') if name in sys.modules])"
    )
    for service in ("gateway", "intake_service", "orchestrator_service", "adapter_service"):
        command = [sys.executable, "-c", script.format(service=service)]
        loaded = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
        assert loaded.stdout.strip() == "[]", service


def test_foreign_chatter_is_left_out(lines: Lines) -> None:
    configure_logs("gateway", level="debug", log_format="json", stream=lines.stream)

    logging.getLogger("httpx").info("GET https://erp.example/?token=x")

    assert lines.text == ""


def test_a_level_hides_what_is_below_it(lines: Lines) -> None:
    configure_logs("intake", level="warning", log_format="json", stream=lines.stream)
    log = get_logger()

    log.info("Hidden")
    log.warning("Shown")

    assert [line["message"] for line in lines.read()] == ["Shown"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_stack_shows_no_local_variable(lines: Lines, log_format: str) -> None:
    configure_logs("intake", level="info", log_format=log_format, stream=lines.stream)

    def fail() -> None:
        payload = "amount" + "-" + "15000.00"
        raise RuntimeError(str(len(payload)))

    try:
        fail()
    except RuntimeError:
        get_logger().exception("Call failed")

    assert "RuntimeError: 15" in lines.text
    assert "amount-15000.00" not in lines.text


def test_what_is_no_json_value_is_written_as_text(lines: Lines) -> None:
    configure_logs("intake", level="info", log_format="json", stream=lines.stream)

    get_logger().info("Odd", value={1}, other=b"x")

    assert [line["value"] for line in lines.read()] == ["{1}"]


def test_a_line_break_in_a_field_makes_no_second_line(lines: Lines) -> None:
    configure_logs("intake", level="info", log_format="json", stream=lines.stream)

    get_logger().info("Bad input", given='a\n{"level":"error"}\r\x1b[31m')

    assert len(lines.text.splitlines()) == 1
    assert "\x1b" not in lines.text


@pytest.mark.parametrize(("log_format", "is_json"), [("json", True), ("console", False), ("auto", True)])
def test_auto_means_json_where_nobody_watches(lines: Lines, log_format: str, is_json: bool) -> None:
    configure_logs("intake", level="info", log_format=log_format, stream=lines.stream)

    get_logger().info("Service ready")

    assert lines.text.startswith("{") is is_json
