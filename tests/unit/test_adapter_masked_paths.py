"""What an operator wants masked in a target's answers."""

import pytest

from adapter_service.masked_paths import mask_paths, read_paths
from chassis.errors import ConfigurationError

ANSWER = '{"id":1.50,"customer":{"taxId":"123","name":"A"},"items":[{"price":1},{"price":2,"name":"b"}]}'


@pytest.mark.parametrize(
    ("path", "masked"),
    [
        ("$.customer.taxId", ANSWER.replace('"123"', '"***"')),
        ("$.customer", ANSWER.replace('{"taxId":"123","name":"A"}', '"***"')),
        ("$.items[*].price", ANSWER.replace('"price":1', '"price":"***"').replace('"price":2', '"price":"***"')),
        ("$.items[*]", ANSWER.replace('{"price":1},{"price":2,"name":"b"}', '"***","***"')),
        ("$.items.price", ANSWER),
        ("$.nothing.there", ANSWER),
        ("$[*].id", ANSWER),
    ],
)
def test_masks_what_the_path_names_and_leaves_the_digits_of_the_rest(path: str, masked: str) -> None:
    assert mask_paths(ANSWER, read_paths([path], "ERP")) == masked


def test_masks_a_list_at_the_top() -> None:
    assert mask_paths('[{"a":1},{"b":2}]', read_paths(["$[*].a"], "ERP")) == '[{"a":"***"},{"b":2}]'


def test_masks_the_whole_of_an_answer_that_was_cut() -> None:
    paths = read_paths(["$.a"], "ERP")

    assert mask_paths('"{\\"a\\":\\"secret\\",\\"b"', paths) == '"***"'
    assert mask_paths('"a page of text"', paths) == '"a page of text"'


def test_without_paths_nothing_is_touched() -> None:
    assert mask_paths(ANSWER, ()) is ANSWER
    assert mask_paths("", read_paths(["$.a"], "ERP")) == ""


@pytest.mark.parametrize("path", ["", "$", "a.b", "$..a", "$.a[0]", "$.a b", "$.*", "$['a']"])
def test_refuses_a_path_that_it_would_not_follow(path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"targets\.ERP: redact"):
        read_paths([path], "ERP")
