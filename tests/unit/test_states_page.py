"""docs/states.md says what the status machine does."""

from intake_service.integration_request import TRANSITIONS, FailureReason, Status
from tools.states import PAGE, REASONS, STATUSES, diagram, page


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python tools/states.py write`"


def test_the_page_names_every_status_and_every_reason() -> None:
    assert (list(STATUSES), list(REASONS)) == (list(Status), list(FailureReason))


def test_the_diagram_has_one_arrow_for_each_move() -> None:
    arrows = [line.strip().partition(":")[0] for line in diagram().splitlines() if "-->" in line]

    assert arrows == [
        "[*] --> Received",
        *(f"{before} --> {after}" for before, after in TRANSITIONS),
        "Completed --> [*]",
        "Failed --> [*]",
    ]
