"""The page of faults names tests that exist, and leaves no case of its list out."""

import re
from pathlib import Path

from tests.sources import functions

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
LAST_CASE = 87


def names_in(path: Path) -> set[str]:
    return functions(path) if path.is_file() else set()


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)

    assert len(named) > 60
    assert [f"{file}::{test}" for file, test in named if test not in names_in(ROOT / "tests" / file)] == []


def test_every_row_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| (\d|- )", line)]

    assert [row for row in rows if "::test_" not in row] == []


def test_every_case_is_on_the_page() -> None:
    told = {int(number) for row in re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE) for number in row.split(",")}
    not_held = PAGE.partition("## What no test holds")[2]
    for first, last in re.findall(r"\b(\d+) (?:to|and) (\d+)\b", not_held):
        told |= set(range(int(first), int(last) + 1))
    told |= {int(number) for number in re.findall(r"(?:^\* |; )(\d+)", not_held, re.MULTILINE)}

    assert set(range(1, LAST_CASE + 1)) - told == set()
