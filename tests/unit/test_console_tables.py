"""JSON on a terminal: nothing in it can steer the screen, and its values stay what they were."""

import io
import json
import sys
from collections.abc import Callable

import pytest

from console.tables import print_json, print_text_json

#: Whatever JSON lets stand unescaped in a string: DEL, a C1 control that starts a sequence, bidi, a tag character.
STEERING = "a\x7fb\x9b2Jc\u202ed\u2066e\U000e0041f"
BODY = json.dumps({"detail": STEERING, "city": "São Paulo 😀", "amount": 1}, ensure_ascii=False)


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def shown_by(printing: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a terminal gets."""
    screen = Screen()
    with monkeypatch.context() as at_terminal:
        at_terminal.setattr(sys, "stdout", screen)
        printing()
    return screen.getvalue()


@pytest.mark.parametrize("verbatim", [True, False])
def test_a_body_cannot_steer_the_terminal_and_keeps_its_values(
    monkeypatch: pytest.MonkeyPatch, *, verbatim: bool
) -> None:
    shown = shown_by(lambda: print_json(BODY.encode(), verbatim=verbatim), monkeypatch)

    assert shown.replace("\n", "").isprintable()
    assert json.loads(shown) == json.loads(BODY)
    assert "\\u202e" in shown
    assert "São Paulo 😀" in shown


def test_a_carriage_return_between_values_does_not_overwrite_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = shown_by(lambda: print_text_json('{"status":"Failed",\r"a":\t1}'), monkeypatch)

    assert shown == '{"status":"Failed",\n"a":\t1}\n'


def test_a_program_reads_the_body_to_the_byte(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(BODY.encode(), verbatim=True)

    assert capsys.readouterr().out == BODY + "\n"
