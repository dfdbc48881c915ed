"""Lines of children: cut, prefixed, made readable, kept in files of bounded size."""

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from console.output import MAX_LINE_BYTES, MAX_WAITING_BYTES, LineBuffer, LogFile, Output, Terminal, readable_line

NAMES = ["gateway", "intake"]


class Screen:
    """Remembers what a terminal would show."""

    def __init__(self) -> None:
        self.text = b""

    def write(self, data: bytes) -> None:
        self.text += data


@contextmanager
def open_output(
    folder: Path, screen: Screen, *, hidden: Collection[str] = (), readable: bool = False, colour: bool = False
) -> Iterator[Output]:
    output = Output(folder, NAMES, screen, hidden=hidden, readable=readable, colour=colour)
    yield output
    output.close()


def test_a_line_is_passed_on_when_it_is_whole() -> None:
    buffer = LineBuffer()

    assert [buffer.feed(b"on"), buffer.feed(b"e\ntw"), buffer.feed(b"o\nthree\nfo")] == [b"", b"one\n", b"two\nthree\n"]
    assert buffer.flush() == b"fo\n"
    assert buffer.flush() == b""


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    buffer = LineBuffer()

    assert buffer.feed(b"x" * (MAX_LINE_BYTES + 1)) == b"x" * (MAX_LINE_BYTES + 1) + b"\n"
    assert buffer.flush() == b""


def test_every_line_carries_the_name_of_its_child(tmp_path: Path) -> None:
    screen = Screen()
    with open_output(tmp_path, screen) as output:
        output.relay("intake", b"one\ntwo\n")
        output.say("ready")

    assert screen.text == b"intake  | one\nintake  | two\nhub     | ready\n"


def test_files_hold_the_lines_as_they_came(tmp_path: Path) -> None:
    with open_output(tmp_path, Screen(), hidden=NAMES, readable=True, colour=True) as output:
        output.relay("intake", b'{"message":"one"}\n')
        output.relay("gateway", b"two\n")

    assert (tmp_path / "intake.log").read_bytes() == b'{"message":"one"}\n'
    assert (tmp_path / "gateway.log").read_bytes() == b"two\n"


def test_a_hidden_childs_lines_stay_off_the_terminal(tmp_path: Path) -> None:
    screen = Screen()
    with open_output(tmp_path, screen, hidden=NAMES) as output:
        output.relay("intake", b"one\n")
        output.say("gateway ended with exit code 1")

    assert screen.text == b"hub     | gateway ended with exit code 1\n"


def test_the_last_words_of_a_hidden_child_are_shown(tmp_path: Path) -> None:
    screen = Screen()
    with open_output(tmp_path, screen, hidden=["intake"]) as output:
        output.repeat("intake", b"no database\n")
        output.repeat("gateway", b"was shown before\n")

    assert screen.text == b"intake  | no database\n"


def test_colours_are_used_only_where_they_are_wanted(tmp_path: Path) -> None:
    plain, coloured = Screen(), Screen()

    for screen in (plain, coloured):
        with open_output(tmp_path, screen, colour=screen is coloured) as output:
            output.relay("intake", b"one\n")

    assert b"\x1b" not in plain.text
    assert coloured.text == b"\x1b[32mintake  |\x1b[0m one\n"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            b'{"message":"Status updated","level":"info","timestamp":"2026-01-15T10:30:05.1Z","new_status":"Failed"}',
            b"10:30:05 info    Status updated  new_status=Failed",
        ),
        (b'{"message":"x","level":"error","detail":"two words"}', b' error   x  detail="two words"'),
        (b'{"message":"x","a":{"b":[1.50]}}', b' info    x  a="{\\"b\\": [1.5]}"'),
        (b"not JSON", b"not JSON"),
        (b'["JSON"]', b'["JSON"]'),
        (b'{"no":"message"}', b'{"no":"message"}'),
    ],
)
def test_json_lines_become_readable_and_others_stay(line: bytes, text: bytes) -> None:
    assert readable_line(line, colour=False) == text


def test_a_log_line_cannot_steer_the_terminal() -> None:
    line = b'{"message":"x\\u001b[2J","detail":"\\u001b]0;title\\u0007\\n"}'

    shown = readable_line(line, colour=False)

    assert b"\x1b" not in shown
    assert b"\n" not in shown


def test_a_full_log_file_makes_room_for_a_new_one(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "a.log", max_bytes=10)

    for line in (b"11111\n", b"22222\n", b"33333\n"):
        file.write(line)
    file.close()

    assert (tmp_path / "a.log").read_bytes() == b"33333\n"
    assert (tmp_path / "a.log.1").read_bytes() == b"22222\n"


def test_a_log_file_counts_what_it_held_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"old line\n")
    file = LogFile(tmp_path / "a.log", max_bytes=10)

    file.write(b"1\n")
    file.write(b"2\n")
    file.close()

    assert (tmp_path / "a.log.1").read_bytes() == b"old line\n1\n"
    assert (tmp_path / "a.log").read_bytes() == b"2\n"


def test_a_log_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    LogFile(tmp_path / "absent" / "a.log").write(b"line\n")

    assert not (tmp_path / "absent").exists()


def test_a_terminal_that_stands_still_loses_lines_and_says_how_many() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, os.fdopen(reader, "rb") as screen:
        terminal = Terminal(stream)
        line = b"x" * 999 + b"\n"
        written = 2 * MAX_WAITING_BYTES // len(line)

        for _ in range(written):
            terminal.write(line)
        shown, dropped = b"", 0
        while shown.count(line) + dropped < written:
            shown += screen.read1(1 << 20)
            notes = re.findall(rb"\((\d+) lines were too fast for this terminal; the log files have them\)\n", shown)
            dropped = sum(map(int, notes))
        terminal.close()

    assert dropped > 0
    assert shown.count(line) + dropped == written


def test_a_terminal_shows_what_waits_before_it_closes() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, os.fdopen(reader, "rb") as screen:
        terminal = Terminal(stream)

        terminal.write(b"last words\n")
        terminal.close()

        assert screen.read1() == b"last words\n"
