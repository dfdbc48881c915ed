"""Bad input over REST: a problem that says what to do, nothing sent to intake, never a 500."""

import json
import time

import httpx
import pytest

from chassis.json_text import MAX_BYTES
from tests.fakes import GatewayUnderTest
from tests.rest import CORRELATION_ID, PATH, SEED_BODY, assert_problem, create_body, post

ENVELOPE = {"externalId": "A", "sourceSystem": "SAP", "targetSystem": "SAP", "payload": {}}
NAME_RULE = "must be 1 to 128 characters out of A-Z a-z 0-9 . _ : / -"


def body_with(**changes: object) -> bytes:
    fields = {**ENVELOPE, **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return create_body("A", payload='{"a":' + opening * depth + closing * depth + "}")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"{'externalId': 'A'}",
        create_body("A", payload="NaN"),
        create_body("A", payload='{"n": NaN}'),
        create_body("A", payload='{"n": Infinity}'),
        create_body("A", payload='{"n": 1e400}'),
        create_body("A", payload='{"n": 01}'),
        create_body("A", payload='{"a":1,"a":2}'),
        create_body("A", payload='{"a":{"b":1,"b":1}}'),
        create_body("A", payload='{"a":"\\ud800"}'),
        b'{"externalId":"A",' + create_body("B")[1:],
        create_body("A") + b"{}",
        create_body("A") + b"\x00",
        b"\xef\xbb\xbf" + create_body("A"),
        create_body("A").decode().encode("utf-16"),
        create_body("A", payload='{"a":"?"}').replace(b"?", b"\xff"),
        create_body("A", payload='{"a":"?"}').replace(b"?", b"\xed\xa0\x80"),
        create_body("A", payload='{"a":"?"}').replace(b"?", b"\n"),
    ],
    ids=lambda body: repr(body[-40:]),
)
async def test_what_is_not_json_is_malformed(client: httpx.AsyncClient, hub: GatewayUnderTest, body: bytes) -> None:
    answer = await post(client, hub, body)

    assert_problem(answer, 400, "malformed-request")
    assert hub.intake.batches == []


async def test_nesting_is_taken_up_to_64_levels(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    # the body and the payload are the first two
    taken = await post(client, hub, nested(62))
    refused = await post(client, hub, nested(63))

    assert taken.status_code == 202
    assert_problem(refused, 400, "malformed-request")


@pytest.mark.parametrize(
    "body",
    [nested(100_000), nested(100_000, '{"a":', "}"), b"[" * 500_000, create_body("A", payload="9" * 1_000_000)],
    ids=["arrays", "objects", "unclosed", "number"],
)
async def test_hostile_json_is_refused_quickly(client: httpx.AsyncClient, hub: GatewayUnderTest, body: bytes) -> None:
    started = time.process_time()
    answer = await post(client, hub, body)

    assert answer.status_code in (400, 413, 422)
    assert time.process_time() - started < 1  # a quadratic check would take minutes
    assert hub.intake.batches == []


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"null"])
async def test_json_that_is_no_object_is_invalid(client: httpx.AsyncClient, hub: GatewayUnderTest, body: bytes) -> None:
    problem = assert_problem(await post(client, hub, body), 422, "invalid-request")

    assert problem["errors"] == [{"pointer": "", "detail": "must be a JSON object"}]


@pytest.mark.parametrize(
    ("changes", "pointer", "detail"),
    [
        ({"externalId": ...}, "/externalId", "is required"),
        ({"sourceSystem": ...}, "/sourceSystem", "is required"),
        ({"targetSystem": ...}, "/targetSystem", "is required"),
        ({"payload": ...}, "/payload", "is required"),
        ({"externalId": 7}, "/externalId", "must be a string"),
        ({"externalId": None}, "/externalId", "must be a string"),
        ({"sourceSystem": ["SAP"]}, "/sourceSystem", "must be a string"),
        ({"targetSystem": {}}, "/targetSystem", "must be a string"),
        ({"externalId": ""}, "/externalId", NAME_RULE),
        ({"externalId": "x" * 129}, "/externalId", NAME_RULE),
        ({"externalId": "x" * 10_000}, "/externalId", NAME_RULE),
        ({"externalId": "A\r\nSet-Cookie: x"}, "/externalId", NAME_RULE),
        ({"externalId": "A\n"}, "/externalId", NAME_RULE),
        ({"externalId": "A\x00"}, "/externalId", NAME_RULE),
        ({"externalId": "A\u202eB"}, "/externalId", NAME_RULE),
        ({"externalId": "A\u200bB"}, "/externalId", NAME_RULE),
        ({"externalId": "\u0410"}, "/externalId", NAME_RULE),
        ({"externalId": "\u0661"}, "/externalId", NAME_RULE),
        ({"sourceSystem": "S AP"}, "/sourceSystem", NAME_RULE),
        ({"targetSystem": "<b>"}, "/targetSystem", NAME_RULE),
        ({"payload": []}, "/payload", "must be a JSON object"),
        ({"payload": "{}"}, "/payload", "must be a JSON object"),
        ({"payload": None}, "/payload", "must be a JSON object"),
        ({"payload": 1}, "/payload", "must be a JSON object"),
    ],
    ids=str,
)
async def test_a_bad_field_is_named(
    client: httpx.AsyncClient, hub: GatewayUnderTest, changes: dict[str, object], pointer: str, detail: str
) -> None:
    problem = assert_problem(await post(client, hub, body_with(**changes)), 422, "invalid-request")

    assert problem["errors"] == [{"pointer": pointer, "detail": detail}]
    assert hub.intake.batches == []


@pytest.mark.parametrize(
    ("field", "pointer"), [("partner_id", "/partner_id"), ("externalid", "/externalid"), ("a/b~c", "/a~1b~0c")]
)
async def test_an_unknown_field_is_named(
    client: httpx.AsyncClient, hub: GatewayUnderTest, field: str, pointer: str
) -> None:
    problem = assert_problem(await post(client, hub, body_with(**{field: "other"})), 422, "invalid-request")

    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert hub.intake.batches == []


async def test_all_bad_fields_are_named_at_once(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    body = body_with(externalId="", sourceSystem=..., targetSystem=1, payload=[], more=1)

    problem = assert_problem(await post(client, hub, body), 422, "invalid-request")

    pointers = {error["pointer"] for error in problem["errors"]}
    assert pointers == {"/externalId", "/sourceSystem", "/targetSystem", "/payload", "/more"}


async def test_a_flood_of_unknown_fields_gets_a_short_answer(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    body = body_with(**{f"{number}{'x' * 1000}": 1 for number in range(500)})

    answer = await post(client, hub, body)

    assert_problem(answer, 422, "invalid-request")
    assert len(answer.content) < 10_000


async def test_an_unknown_target_is_named(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    problem = assert_problem(await post(client, hub, create_body("A", "Oracle")), 422, "invalid-request")

    assert problem["errors"] == [{"pointer": "/targetSystem", "detail": "must be one of TotvsProtheus, SAP"}]
    assert hub.intake.stored == {}


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/json",
        "application/xml",
        "application/jsonp",
        "application/json; charset=iso-8859-1",
        "application/json; charset=utf-16",
        "application/json, application/json",
        "json",
        "",
    ],
)
async def test_another_media_type_is_not_supported(
    client: httpx.AsyncClient, hub: GatewayUnderTest, content_type: str
) -> None:
    answer = await post(client, hub, headers={"Content-Type": content_type})

    assert_problem(answer, 415, "unsupported-media-type")
    assert hub.intake.batches == []


async def test_a_missing_media_type_is_not_supported(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    answer = await client.post(PATH, content=SEED_BODY, headers=hub.header())

    assert_problem(answer, 415, "unsupported-media-type")


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip"])
async def test_a_coded_body_is_not_supported(client: httpx.AsyncClient, hub: GatewayUnderTest, coding: str) -> None:
    answer = await post(client, hub, headers={"Content-Encoding": coding})

    assert_problem(answer, 415, "unsupported-media-type")
    assert answer.headers["Accept-Encoding"] == "identity"


async def test_a_body_of_one_mebibyte_is_taken_and_a_byte_more_refused(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    filler = "x" * (MAX_BYTES - len(create_body("A", payload='{"a":""}')))
    body = create_body("A", payload=f'{{"a":"{filler}"}}')

    taken = await post(client, hub, body)
    refused = await post(client, hub, body + b" ")

    assert (len(body), taken.status_code) == (MAX_BYTES, 202)
    assert_problem(refused, 413, "payload-too-large")
    assert len(hub.intake.stored) == 1


@pytest.mark.parametrize(
    "bad_id",
    [
        "1",
        "not-a-uuid",
        "3fa85f64-5717-4562-b3fc-2c963f66afa",
        "3fa85f6457174562b3fc2c963f66afa6",
        "3fa85f645-717-4562-b3fc-2c963f66afa6",
        "g" * 36,
        "x" * 10_000,
    ],
)
@pytest.mark.parametrize("suffix", ["", "/history"])
async def test_a_bad_id_in_the_path_is_invalid(
    client: httpx.AsyncClient, hub: GatewayUnderTest, bad_id: str, suffix: str
) -> None:
    answer = await client.get(f"{PATH}/{bad_id}{suffix}", headers=hub.header())

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/id"]


async def test_an_unknown_id_is_not_found(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    answer = await client.get(f"{PATH}/11111111-2222-4333-8444-555555555555", headers=hub.header())

    problem = assert_problem(answer, 404, "integration-request-not-found")
    assert "11111111-2222-4333-8444-555555555555" in problem["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nowhere",
        "/api",
        f"{PATH}/",
        f"/{PATH}",
        PATH.upper(),
        f"{PATH}/../integration-requests/x/y",
        f"{PATH}/%00",
        "/api%2Fintegration-requests",
        f"{PATH}/11111111-2222-4333-8444-555555555555/History",
        "/docs/../app.py",
        "/docs/%2e%2e%2fapp.py",
        "/docs/docs.html",
        "/metrics",
    ],
)
async def test_an_unknown_path_is_not_found(client: httpx.AsyncClient, hub: GatewayUnderTest, path: str) -> None:
    answer = await client.get(path, headers={**hub.header(), "X-Correlation-ID": CORRELATION_ID})

    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:integration-hub:problem:route-not-found"
    assert answer.headers["X-Correlation-ID"] == CORRELATION_ID


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", PATH, "GET, HEAD, POST"),
        ("PUT", PATH, "GET, HEAD, POST"),
        ("OPTIONS", PATH, "GET, HEAD, POST"),
        ("TRACE", PATH, "GET, HEAD, POST"),
        ("POST", f"{PATH}/11111111-2222-4333-8444-555555555555", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("QUERY", PATH, "GET, HEAD, POST"),
    ],
)
async def test_another_method_is_not_allowed(
    client: httpx.AsyncClient, hub: GatewayUnderTest, method: str, path: str, allow: str
) -> None:
    answer = await client.request(method, path, headers=hub.header())

    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == allow


async def test_a_method_override_is_ignored(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    answer = await client.get(PATH, headers={**hub.header(), "X-HTTP-Method-Override": "POST"})

    assert answer.status_code == 200
