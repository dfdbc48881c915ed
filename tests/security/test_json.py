"""A12 and A13: bodies and names that were made to hurt. Refused with a 4xx, quickly, and nothing is stored."""

import time

import httpx
import pytest

from tests.security.attack import PATH, assert_safe, create

#: One call may take so long on a machine that does much else.
SECONDS = 5.0

BOMBS: dict[str, bytes] = {
    "depth_of_100_000": create("E", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "depth_without_end": create("E", '{"a":' + "[" * 100_000),
    "depth_65_of_objects": create("E", '{"a":' * 64 + "{}" + "}" * 64),
    "depth_hidden_behind_a_string": create("E", '{"s":"[[[[","a":' + "[" * 70 + "]" * 70 + "}"),
    "one_key_twice": create("E", '{"a":1,"a":2}'),
    "one_key_twice_escaped": create("E", '{"a":1,"\\u0061":2}'),
    "one_key_twice_far_down": create("E", '{"x":[{"y":{"a":1,"a":2}}]}'),
    "external_id_twice": b'{"externalId":"A",' + create("B")[1:],
    "number_of_1_mb": create("E", '{"a":' + "9" * 1_000_000 + "}"),
    "number_beyond_double": create("E", '{"a":1e400}'),
    "number_nan": create("E", '{"a":NaN}'),
    "number_infinity": create("E", '{"a":-Infinity}'),
    "number_with_leading_zero": create("E", '{"a":007}'),
    "number_hexadecimal": create("E", '{"a":0x10}'),
    "lone_surrogate": create("E", '{"a":"\\ud800"}'),
    "lone_surrogate_as_a_key": create("E", '{"\\udfff":1}'),
    "lone_surrogate_as_a_name": create("\ud800"),
    "surrogate_as_bytes": create("E", '{"a":"\ud800"}'),
    "byte_order_mark": b"\xef\xbb\xbf" + create("E"),
    "utf_16": create("E").decode().encode("utf-16"),
    "utf_16_without_mark": create("E").decode().encode("utf-16-le"),
    "latin_1": create("E").replace(b"Empresa", b"Empr\xe9sa"),
    "overlong_utf_8": create("E").replace(b"Empresa", b"\xc0\xaf"),
    "nul_outside": create("E") + b"\x00",
    "nul_inside_a_string": create("E").replace(b"Empresa", b"Emp\x00resa"),
    "two_documents": create("E") + create("F"),
    "trailing_comma": create("E")[:-1] + b",}",
    "comment": b"/* hello */ " + create("E"),
    "single_quotes": create("E").replace(b'"', b"'"),
    "cut_off": create("E")[:-2],
    "empty": b"",
    "blanks": b" " * 10_000,
    "a_list": b"[]",
    "a_string": b'"A"',
    "a_number": b"1",
    "null": b"null",
    "payload_a_list": create("E", "[]"),
    "payload_a_text": create("E", '"{}"'),
    "payload_null": create("E", "null"),
    "prototype": b'{"__proto__":{"a":1},' + create("E")[1:],
    "partner_id_in_the_body": create("E", partnerId="acme"),
    "status_in_the_body": create("E", status="Completed"),
    "over_1_mib": create("E", '{"a":"' + "x" * (1 << 20) + '"}'),
    "xml": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
    "pickle": b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94",
    "yaml": b"!!python/object/apply:os.system [id]",
}

NAME_RULE = "must be 1 to 128 characters out of A-Z a-z 0-9 . _ : / -"
NAMES: dict[str, str] = {
    "empty": "",
    "10_kb": "A" * 10_240,
    "129": "A" * 129,
    "line_break": "A\r\nX-Injected: 1",
    "nul": "A\x00B",
    "escape": "A\x1b[31mB",
    "script": "<script>alert(1)</script>",
    "sql": "A'; DROP TABLE integration_requests; --",
    "template": "{{7*7}}${7*7}",
    "blank": "A B",
    "percent": "A%0d%0aB",
    "backslash": "A\\B",
    "quote": 'A"B',
    "turned_around": "A\u202eB",
    "invisible": "A\u200bB",
    "joined": "A\u200dB",
    "cyrillic_a": "\u0410CME",
    "full_width": "\uff21CME",
    "combining": "A\u0301",
    "emoji": "\U0001f4a5",
    "newline_at_the_end": "A\n",
}


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS)
async def test_a_body_made_to_hurt_is_refused(mallory: httpx.AsyncClient, body: bytes) -> None:
    started = time.monotonic()

    response = await mallory.post(PATH, content=body)

    assert_safe(response, 400, 413, 422)
    assert time.monotonic() - started < SECONDS
    assert (await mallory.get(PATH)).json()["items"] == []


@pytest.mark.parametrize("name", [name for name in BOMBS if "_twice" in name])
async def test_a_key_that_stands_twice_is_refused_for_that(mallory: httpx.AsyncClient, name: str) -> None:
    response = await mallory.post(PATH, content=BOMBS[name])

    assert_safe(response, 400)
    assert "a key stands twice" in response.json()["detail"]


@pytest.mark.parametrize("field", ["externalId", "sourceSystem", "targetSystem"])
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_a_name_that_is_none_is_refused(mallory: httpx.AsyncClient, field: str, name: str) -> None:
    fields = {"external_id": "E", **({} if field == "externalId" else {field: name})}
    body = create(name) if field == "externalId" else create(**fields)

    response = await mallory.post(PATH, content=body)

    assert_safe(response, 422)
    assert response.json()["errors"] == [{"pointer": f"/{field}", "detail": NAME_RULE}]
    assert "X-Injected" not in response.headers
    assert (await mallory.get(PATH)).json()["items"] == []


WIDE = {
    "keys": "{" + ",".join(f'"{number}":0' for number in range(45_000)) + "}",
    "brackets": '{"a":[' + "[]," * 300_000 + "[]]}",
    "escapes": '{"a":"' + "\\u0041" * 150_000 + '"}',
    "exponents": '{"a":[' + "1e100," * 45_000 + "1]}",
    "objects": '{"a":[' + '{"a":1},' * 24_000 + "1]}",
    "chains": '{"a":[' + ('[{"":' * 30 + "1" + "}]" * 30 + ",") * 800 + "1]}",
    "more_objects_than_allowed": '{"a":[' + '{"a":1},' * 110_000 + "1]}",
}


@pytest.mark.parametrize("payload", WIDE.values(), ids=WIDE)
async def test_a_wide_payload_is_taken_or_refused_in_good_time(mallory: httpx.AsyncClient, payload: str) -> None:
    started = time.monotonic()

    response = await mallory.post(PATH, content=create("E", payload))

    assert_safe(response, 202, 400)
    assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize(
    ("media_type", "statuses"),
    [
        ("text/plain", (415,)),
        ("application/xml", (415,)),
        ("multipart/form-data; boundary=x", (415,)),
        ("application/x-www-form-urlencoded", (415,)),
        ("application/json; charset=utf-16", (415,)),
        ("application/json\t;charset=utf-7", (415,)),
        ("application/jsonx", (415,)),
        ("", (415,)),
    ],
    ids=["text", "xml", "form_data", "form", "utf_16", "utf_7", "almost_json", "nothing"],
)
async def test_another_media_type_is_refused(
    mallory: httpx.AsyncClient, media_type: str, statuses: tuple[int, ...]
) -> None:
    assert_safe(await mallory.post(PATH, content=create("E"), headers={"Content-Type": media_type}), *statuses)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, gzip", "identity, gzip", "x-gzip"])
async def test_a_compressed_body_is_refused_unread(mallory: httpx.AsyncClient, coding: str) -> None:
    import gzip

    bomb = gzip.compress(b"[" * 50_000_000)

    response = await mallory.post(PATH, content=bomb, headers={"Content-Encoding": coding})

    assert_safe(response, 415)
