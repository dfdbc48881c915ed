"""An external system's words: read whatever their encoding, kept small, without secrets."""

import json
import time

import pytest

from adapter_service.answers import MAX_RESPONSE_BYTES, NOT_JSON, Answer, fold, make_sentence, read_answer, repair
from adapter_service.redaction import redact_json, redact_text
from chassis.http_client import HttpAnswer


def read(body: bytes, *, content_type: str = "application/json", secrets: tuple[str, ...] = ()) -> Answer:
    answer = HttpAnswer(status=200, headers={"Content-Type": content_type}, body=body, is_complete=True)
    return read_answer(answer, secrets)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"OK",
        b'{"a":',
        b'{"a":1}x',
        b'{"a":NaN}',
        b"[" * 100_000,
        b"[" * 65 + b"]" * 65,
        b'{"a":1e999}',
        b"<html><body>1</body></html>",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_no_json_has_no_value(body: bytes) -> None:
    assert read(body).value is NOT_JSON


@pytest.mark.parametrize("body", [b"[" * 64 + b"]" * 64, b'{"a":1,"a":2}', b"null", b"\xef\xbb\xbf{}", b'"x"'])
def test_odd_json_is_json(body: bytes) -> None:
    assert read(body).is_json


def test_an_answer_that_was_cut_has_no_value() -> None:
    answer = read_answer(HttpAnswer(status=200, headers={}, body=b"{}", is_complete=False))

    assert not answer.is_json


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "cp1252", "latin-1"])
def test_accents_survive_every_encoding(charset: str) -> None:
    assert read('{"m":"não há licença"}'.encode(charset)).value == {"m": "não há licença"}


def test_every_byte_can_be_read() -> None:
    assert json.loads(read(bytes(range(256)), content_type="text/plain").response_json)


def test_digits_are_kept() -> None:
    body = b'{"total":15000.00,"id":9007199254740993}'

    assert read(body).response_json == body.decode()


def test_digits_are_kept_beside_a_masked_secret() -> None:
    kept = read(b'{"total":15000.00,"deep":{"list":[{"apiKey":"x","n":1.50}]}}').response_json

    assert kept == '{"total":15000.00,"deep":{"list":[{"apiKey":"***","n":1.50}]}}'


def test_plain_text_becomes_a_json_string() -> None:
    assert read(b'He said "no"\n', content_type="text/plain").response_json == '"He said \\"no\\""'


def test_an_empty_body_is_kept_as_nothing() -> None:
    assert read(b"").response_json == ""


def test_a_page_is_kept_by_its_title_alone() -> None:
    page = b"<html><head><title>502 Bad &amp; Gateway</title></head><body>secret</body></html>"

    assert read(page, content_type="text/html").response_json == '"an HTML page, 502 Bad & Gateway"'


def test_a_page_is_recognised_whatever_it_claims_to_be() -> None:
    assert read(b"<!DOCTYPE html><p>x", content_type="application/json").is_html


def test_of_a_big_object_the_small_members_are_kept() -> None:
    body = json.dumps({"id": "ORD-1", "attachment": "x" * 100_000, "status": "Created"}).encode()

    assert json.loads(read(body).response_json) == {"id": "ORD-1", "status": "Created"}


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(["x" * 1000] * 200).encode(),
        json.dumps({f"k{number}": "x" for number in range(20_000)}).encode(),
        json.dumps({f"token{number}": 1 for number in range(20_000)}).encode(),
        b"\x01" * 500_000,
        "é".encode() * 200_000,
        ("<" * 500_000).encode(),
    ],
    ids=["list", "many members", "many secrets", "control characters", "two-byte letters", "markup"],
)
def test_what_is_kept_is_capped_and_json(body: bytes) -> None:
    kept = read(body).response_json

    assert len(kept.encode()) <= MAX_RESPONSE_BYTES
    json.loads(kept)


@pytest.mark.parametrize(
    "name",
    ["authorization", "Authorization", "access_token", "refreshToken", "password", "senha", "client_secret", "apiKey"],
)
def test_a_member_with_a_credentials_name_is_masked(name: str) -> None:
    assert json.loads(redact_json(json.dumps({name: "s3cret"}), ())) == {name: "***"}


def test_a_credentials_name_in_escapes_is_masked() -> None:
    assert "s3cret" not in redact_json('{"\\u0074oken":"s3cret"}', ())


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Authorization: Bearer abc.def123", "Authorization: *** ***"),
        ("sent Basic aHViOnBhc3M= to it", "sent Basic *** to it"),
        ("?grant_type=password&username=u&password=p4ss&x=1", "?grant_type=password&username=u&password=***&x=1"),
        ('{"token":"abc"', '{"token":"***"'),
        ('{\\"token\\":\\"abc\\"', '{\\"token\\":\\"***\\"'),
        ("Basic requirements are not met", "Basic requirements are not met"),
        ("the key is k3y-of-ours", "the key is ***"),
    ],
)
def test_credentials_in_text_are_masked(text: str, redacted: str) -> None:
    assert redact_text(text, ("k3y-of-ours",)) == redacted


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ('{"password":"correct horse battery"}', '{"password":"***"}'),
        ('{"senha":["abc12345"],"n":1.50}', '{"senha":"***","n":1.50}'),
        ('{"credentials":{"user":"u","pw":"p-99999"}}', '{"credentials":"***"}'),
        ('"a text"', "a text"),
        ("[1.50]", "[1.50]"),
    ],
)
def test_the_summary_says_no_more_than_the_answer_that_is_kept(body: str, kept: str) -> None:
    assert read(body.encode()).summary == f"HTTP 200: {kept}"


@pytest.mark.parametrize("secret", ['abc"def12', "aGVsbG8/aGVsbG8=", "back\\slash", "não-é-segredo"])
@pytest.mark.parametrize(
    "body",
    [
        '{"seen":%s,"n":1.50}',
        '{"cut":%s,"n":',
        '{"seen":"a text with %s in it"}',
    ],
)
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("slash", ["/", "\\/"])
def test_a_secret_is_found_however_json_spells_it(secret: str, body: str, ascii_only: bool, slash: str) -> None:
    text = json.dumps(secret, ensure_ascii=ascii_only)[1:-1].replace("/", slash)
    quoted = text if "text" in body else f'"{text}"'

    answer = read((body % quoted).encode(), secrets=(secret,))

    assert text not in answer.response_json + answer.summary
    assert "***" in answer.response_json
    assert "***" in answer.summary


@pytest.mark.parametrize("unit", ["x", "token", "token ", "bearer ", "basic ", '"', "secret-", "\\"])
def test_redaction_takes_linear_time(unit: str) -> None:
    text = unit * (500_000 // len(unit))
    started = time.process_time()

    redact_text(text, ("some-secret",))

    assert time.process_time() - started < 2


def test_a_sentence_is_one_short_line() -> None:
    sentence = make_sentence("a\r\n\x1b[31mb\t" + "c" * 10_000)

    assert sentence.startswith("a [31mb ccc")
    assert len(sentence) == 500


def test_a_secret_across_the_cut_is_masked() -> None:
    sentence = make_sentence("x" * 495 + "our-secret-value", ("our-secret-value",))

    assert "our" not in sentence


@pytest.mark.parametrize(
    ("text", "repaired"), [("nÃ£o", "não"), ("jÃ¡ incluÃ\xaddo", "já incluído"), ("não", "não"), ("Ã", "Ã")]
)
def test_text_that_was_decoded_twice_is_repaired(text: str, repaired: str) -> None:
    assert repair(text) == repaired


def test_folding_drops_accents_and_case() -> None:
    assert fold("JÁ INCLUÍDO") == "ja incluido"
