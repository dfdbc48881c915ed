"""JSON is checked strictly and at a bounded cost; what passes is never changed."""

import time
from itertools import product

import pytest

from chassis.json_text import MAX_BYTES, MAX_NESTING, MAX_VALUES, MalformedJson, NestingTooDeep, check_json


def nested(depth: int, kinds: str) -> bytes:
    """A text of `depth` levels whose brackets follow `kinds` again and again."""
    levels = [kinds[level % len(kinds)] for level in range(depth)]
    opening = "".join('{"a":' if kind == "{" else "[" for kind in levels)
    closing = "".join("}" if kind == "{" else "]" for kind in reversed(levels))
    return f"{opening}1{closing}".encode()


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b' {"a" : [1, 2.50, -0, 1e5, 1E-7, true, false, null, "x"]}\n',
        b'{"a":15000.00,"b":9007199254740993}',
        b'{"a":1e308}',
        b'{"a":1e-400}',  # nearly nothing is still a number
        b'{"a":' + b"9" * 308 + b"}",
        b'{"a":"\\u0000\\ud83d\\ude00"}',
        '{"ç":"日本"}'.encode(),
        b'{"a":{"b":1},"c":{"b":2}}',  # the same key in two objects
        b'{"a":"[[[[{{{{"}',
    ],
)
def test_what_is_json_passes(text: bytes) -> None:
    check_json(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b'{"a":1',
        b'{"a":"x',
        b"{} {}",
        b'{"a":1,}',
        b"[1,]",
        b"{a:1}",
        b"{'a':1}",
        b'{"a":01}',
        b'{"a":1.}',
        b'{"a":.5}',
        b'{"a":+1}',
        b'{"a":0x1}',
        b'{"a":tru}',
        b"/**/{}",
        b'{"a":"\t"}',
        b'{"a":"\x00"}',
        b'{"a":"\\x"}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-32"),
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',  # a surrogate in UTF-8
        b'{"a":"\xc0\xaf"}',  # an overlong form
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"\\ud800":1}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e309}',
        b'{"a":-1e309}',
        b'{"a":' + b"9" * 309 + b"}",
        b'{"a":-' + b"9" * 400 + b"}",
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'[{"a":{"b":1,"b":2}}]',
    ],
)
def test_what_is_not_json_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedJson) as caught:
        check_json(text)

    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(("kinds", "beyond"), list(product(["[", "{", "{[", "[[{"], [1, 2, 60, 1000, 50_000])))
def test_nesting_is_counted_whatever_the_brackets(kinds: str, beyond: int) -> None:
    check_json(nested(MAX_NESTING, kinds))

    with pytest.raises(NestingTooDeep, match="64"):
        check_json(nested(MAX_NESTING + beyond, kinds))


def test_brackets_beside_each_other_and_in_strings_are_no_nesting() -> None:
    check_json(b"[" + b",".join([b"[]", b"{}"] * 500) + b"]")
    check_json(b'{"a":"' + b'[{\\"\\\\' * 500 + b'"}')


@pytest.mark.parametrize("opening", ["[", '{"a":['])
@pytest.mark.parametrize("item", ["1", "1.5", '"a,b"', "null"])
def test_values_are_counted_and_what_stands_in_strings_is_none(opening: str, item: str) -> None:
    closing = opening.translate(str.maketrans("[{", "]}", '":a'))[::-1]
    most = MAX_VALUES - len(closing)

    check_json((opening + ",".join([item] * most) + closing).encode())

    with pytest.raises(MalformedJson, match="more than 50000 values"):
        check_json((opening + ",".join([item] * (most + 1)) + closing).encode())


@pytest.mark.parametrize("number", ["1e309", "-1e309", "9" * 309, "-" + "9" * 400 + ".5"])
def test_a_number_out_of_range_is_found_in_a_long_text_too(number: str) -> None:
    text = "[" + "1.5,2," * 10_000 + f"{number}]"

    with pytest.raises(MalformedJson, match="out of range"):
        check_json(text.encode())


#: Texts of about 1 MiB made to be slow.
HOSTILE = {
    "deep arrays": b"[" * 500_000 + b"]" * 500_000,
    "open arrays": b"[" * MAX_BYTES,
    "many brackets in a string": b'{"a":"' + b"[" * 1_000_000 + b'"}',
    "escaped quotes in an open string, then brackets": b'{"a":"' + b'\\"' * 500_000 + b"[" * 70,
    "open strings one in another": b'"' + b'\\"[' * 340_000,
    "a long number": b'{"a":' + b"1" * 1_000_000 + b"}",
    "a long fraction": b'{"a":0.' + b"1" * 1_000_000 + b"}",
    "many keys": b"{" + b",".join(b'"%d":1' % number for number in range(90_000)) + b"}",
    "empty arrays": b"[" + b"[]," * 100_000 + b"[]]",
    "many exponents": b"[" + b"1e100," * 49_000 + b"1]",
    "many objects": b"[" + b'{"a":1},' * 24_000 + b"1]",
    "many strings and too many values": b"[" + b'{"a":1},' * 110_000 + b"1]",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_text_is_judged_in_bounded_time(case: str) -> None:
    started = time.process_time()
    try:
        check_json(HOSTILE[case])
    except (MalformedJson, NestingTooDeep) as error:
        assert len(str(error)) < 120  # noqa: PT017 - some of them are good JSON

    assert time.process_time() - started < 3  # it takes 0.2 s; a quadratic scan takes minutes
