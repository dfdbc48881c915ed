"""Correlation ids and trace contexts: what is taken from a caller and what is replaced."""

import re

import pytest

from chassis.correlation import clean_correlation_id, clean_traceparent

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.mark.parametrize("good", ["a", "550e8400-e29b-41d4-a716-446655440000", "A.b_c-9", "x" * 128])
def test_a_safe_correlation_id_is_kept(good: str) -> None:
    assert clean_correlation_id(good) == good


@pytest.mark.parametrize(
    "bad",
    [None, "", " ", "a b", "a\r\nX-Evil: 1", "a%0d%0ab", "a\n", "é", "\u202ea", "\x1b[31m", "<script>", "x" * 129],
)
def test_every_other_one_is_replaced_by_a_fresh_uuid(bad: str | None) -> None:
    first, second = clean_correlation_id(bad), clean_correlation_id(bad)

    assert UUID.fullmatch(first)
    assert first != second


def test_fresh_ids_rise_so_that_their_index_grows_at_its_end() -> None:
    ids = [clean_correlation_id(None) for _ in range(1000)]

    assert all(UUID.fullmatch(each) for each in ids)
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)


def test_a_trace_context_is_kept_when_it_is_well_formed() -> None:
    good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    assert clean_traceparent(good) == good
    assert [clean_traceparent(bad) for bad in (None, "", good.upper(), good + "\n", good[:-1])] == [""] * 5
