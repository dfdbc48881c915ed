"""A new request's rules, without a server: every field at fault is named at once."""

import pytest

from chassis.errors import InvalidRequest, PayloadTooLarge
from chassis.json_text import MAX_BYTES
from intake_service.validation import check_filter, check_new_request, check_payload, prose

GOOD = {"external_id": "PARTNER-12345", "source_system": "SAP", "target_system": "Protheus", "payload_json": "{}"}


def check(**changes: str) -> None:
    check_new_request(**{**GOOD, **changes}, targets={"Protheus"})


@pytest.mark.parametrize("name", ["a", "x" * 128, "A-Z_0.9:/-", "PARTNER-12345"])
def test_a_name_of_the_contract_passes(name: str) -> None:
    check(external_id=name, source_system=name)


@pytest.mark.parametrize(
    "name", ["", " ", "x" * 129, "a b", "a\n", "a\x00", "é", "a\u200b", "a;b", "a'b", 'a"b', "a\\b"]
)
def test_every_other_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(external_id=name, source_system=name)

    assert [violation.pointer for violation in caught.value.violations] == ["/externalId", "/sourceSystem"]


def test_everything_at_fault_is_named_in_one_answer() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(external_id="", source_system="", target_system="Nowhere", payload_json="[]")

    pointers = [violation.pointer for violation in caught.value.violations]
    assert pointers == ["/externalId", "/sourceSystem", "/targetSystem", "/payload"]
    assert all(pointer in caught.value.message for pointer in pointers)


def test_a_refusal_never_holds_what_was_sent() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(external_id="se cret", target_system="se cret", payload_json='{"a":"se cret", "a":1}')

    assert "se cret" not in str(caught.value) + str(caught.value.violations)


@pytest.mark.parametrize(("size", "fits"), [(MAX_BYTES, True), (MAX_BYTES + 1, False)])
def test_a_payload_may_have_one_mebibyte_of_utf8(size: int, fits: bool) -> None:
    payload = '{"é":"' + "x" * (size - 9) + '"}'
    assert len(payload.encode()) == size

    if fits:
        assert check_payload(payload) == []
    else:
        with pytest.raises(PayloadTooLarge):
            check_payload(payload)


@pytest.mark.parametrize("payload", ["", "1", "null", '"x"', "[{}]", "\ufeff{}", "{", "{}x"])
def test_a_payload_must_be_one_object(payload: str) -> None:
    assert [violation.pointer for violation in check_payload(payload)] == ["/payload"]


@pytest.mark.parametrize("value", ["", "SAP", "a b", "é", "x" * 255])
def test_a_filter_may_be_any_printable_text(value: str) -> None:
    assert check_filter(value, "/x") == value


@pytest.mark.parametrize("value", ["a\x00b", "a\nb", "\u202ea", "x" * 256])
def test_a_filter_that_can_match_nothing_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_filter(value, "/x")

    assert [violation.pointer for violation in caught.value.violations] == ["/x"]


@pytest.mark.parametrize(
    ("text", "kept"), [("a\nb", "a\nb"), ("a\x00b", "a\ufffdb"), ("x" * 2000, "x" * 1000), ("", "")]
)
def test_prose_is_made_fit_to_be_stored(text: str, kept: str) -> None:
    assert prose(text) == kept
