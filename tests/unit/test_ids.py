"""Ids: UUIDs of version 7 that rise, and the one form in which they are taken back."""

import threading
import time
import uuid

import pytest

from chassis.ids import find_id, first_id_at, new_id, parse_id


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_it() -> None:
    made = uuid.UUID(new_id())

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert abs((made.int >> 80) - time.time() * 1000) < 5000


def test_ids_rise() -> None:
    made = [new_id() for _ in range(20_000)]

    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_made_in_threads_are_all_different_and_rise_in_each() -> None:
    made: list[list[str]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda mine=mine: mine.extend(new_id() for _ in range(5000))) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({each for mine in made for each in mine}) == 20_000
    assert all(mine == sorted(mine) for mine in made)


def test_the_canonical_form_is_lower_case() -> None:
    made = new_id()

    assert parse_id(made.upper()) == parse_id(made) == made
    assert find_id(made.upper()) == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0198f0a0-0000-7000-8000-00000000000",
        "0198f0a0-0000-7000-8000-0000000000000",
        "0198f0a0000070008000000000000000----",
        "0198f0a0_0000_7000_8000_000000000000",
        "0_98f0a0-0000-7000-8000-000000000000",
        "\uff1098f0a0-0000-7000-8000-000000000000",  # a full-width zero
        "{198f0a0-0000-7000-8000-00000000000}",
        "0198f0a0-0000-7000-8000-000000000000\n",
        "0198f0a0-0000-7000-8000-00000000000\x00",
    ],
)
def test_what_is_no_uuid_is_refused(text: str) -> None:
    assert find_id(text) is None
    with pytest.raises(ValueError, match="not a UUID"):
        parse_id(text)


def test_the_first_id_of_an_instant_parts_those_made_before_from_those_made_after() -> None:
    now = time.time_ns() // 1000
    earlier, later = first_id_at(now - 1_000_000), first_id_at(now + 1_000_000)

    assert earlier < new_id() < later
    assert find_id(earlier) == earlier
