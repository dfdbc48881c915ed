"""docs/threat-model.md names tests; each of them exists, every attack of the plan is there, and the count is true."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import functions

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
FEWEST_ATTACKS = 60


def named_tests() -> list[str]:
    return sorted(set(re.findall(r"`(test_\w+)`", PAGE)))


def functions_of_tests() -> set[str]:
    return set[str]().union(*map(functions, (ROOT / "tests").rglob("test_*.py")))


def test_every_test_that_the_page_names_exists() -> None:
    assert len(named_tests()) > FEWEST_ATTACKS
    assert set(named_tests()) - functions_of_tests() == set()


def test_every_threat_has_its_test() -> None:
    rows = [line for line in PAGE.partition("## Threats")[2].splitlines() if line.startswith("| ")]

    assert [row for row in rows[1:] if "`test_" not in row] == []


@pytest.mark.parametrize("attack", [f"A{number}" for number in range(1, 27)])
def test_every_attack_of_the_plan_has_its_row(attack: str) -> None:
    assert re.search(rf"^\|[^|]*\b{attack}\b[^|]*\|", PAGE, re.MULTILINE)


def test_there_are_as_many_attacks_as_the_page_says() -> None:
    stated = re.search(r"at least (\d+) named attacks", PAGE)
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests/security"]
    collected = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    attacks = {line for line in collected.splitlines() if "::" in line and "test_zz" not in line}

    assert stated is not None
    assert len(attacks) >= int(stated[1]) >= FEWEST_ATTACKS


def test_every_file_that_the_page_links_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE)

    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
