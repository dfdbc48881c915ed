"""A1 to A7: whatever is wrong with a token, both doors refuse it and nobody learns why in detail."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from chassis.testing import eventually, free_port
from console.testing import HubProcess
from integrationhub.intake.v1.intake_pb2 import ListIntegrationRequestsRequest
from integrationhub.intake.v1.intake_pb2_grpc import IntakeServiceStub
from tests.certificates import replace_file
from tests.security.attack import PATH, Forge, assert_refused, assert_safe, b64, send_raw

Make = Callable[[Forge], str]


def hs256(forge: Forge, key: bytes) -> str:
    signed = f"{b64(json.dumps(forge.header(alg='HS256')).encode())}.{b64(json.dumps(forge.claims()).encode())}"
    return f"{signed}.{b64(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def public_pem(forge: Forge) -> bytes:
    return forge.own_public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def unsigned(alg: str) -> Make:
    return lambda forge: forge.token(forge.header(alg=alg), forge.claims()).rpartition(".")[0] + "."


def headed(**changes: object) -> Make:
    return lambda forge: forge.token(forge.header(**changes), forge.claims())


def strange(**changes: object) -> Make:
    """The header of an attacker who signs with a key of its own and says where to find it."""
    return lambda forge: forge.token(forge.header(**changes), forge.claims(), by_stranger=True)


def claiming(**changes: object) -> Make:
    return lambda forge: forge.token(forge.header(), forge.claims(**changes))


def claims_text(change: Callable[[str], str]) -> Make:
    return lambda forge: forge.token(forge.header(), change(json.dumps(forge.claims())))


def strangers_jwk(forge: Forge) -> dict[str, str]:
    numbers = forge.stranger.public_key().public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32)), "y": b64(numbers.y.to_bytes(32))}


def inline_jwk(forge: Forge) -> str:
    return forge.token(forge.header(jwk=strangers_jwk(forge), kid="mine"), forge.claims(), by_stranger=True)


def mixed(forge: Forge) -> str:
    header, _, signature = forge.good().split(".")
    return f"{header}.{b64(json.dumps(forge.claims(sub='root', scope='operations')).encode())}.{signature}"


def in_seconds(seconds: int) -> float:
    return time.time() + seconds


BAD: dict[str, Make] = {
    "alg_none": unsigned("none"),
    "alg_None": unsigned("None"),
    "alg_nOnE": unsigned("nOnE"),
    "alg_empty": unsigned(""),
    "alg_list": lambda forge: forge.token(forge.header(alg=["ES256"]), forge.claims()),
    "alg_missing": lambda forge: forge.token({"kid": forge.public["kid"]}, forge.claims()),
    "alg_of_another_kind": headed(alg="RS256"),
    "alg_of_another_curve": headed(alg="ES384"),
    "signature_stripped": lambda forge: forge.good().rpartition(".")[0] + ".",
    "signature_missing": lambda forge: forge.good().rpartition(".")[0],
    "signature_of_another_payload": mixed,
    "signature_of_zeros": lambda forge: forge.good().rpartition(".")[0] + "." + b64(bytes(64)),
    "signature_in_der": lambda forge: forge.good().rpartition(".")[0] + "." + b64(b"\x30\x06\x02\x01\x01\x02\x01\x01"),
    "hs256_with_a_public_key": lambda forge: hs256(forge, public_pem(forge)),
    "hs256_with_the_key_set": lambda forge: hs256(forge, json.dumps(forge.public).encode()),
    "hs256_with_an_empty_key": lambda forge: hs256(forge, b""),
    "hs256_with_a_common_word": lambda forge: hs256(forge, b"secret"),
    "kid_as_a_path": strange(kid="../../../../etc/passwd"),
    "kid_of_the_private_key": strange(kid="keys/private.json"),
    "kid_as_a_url": strange(kid="https://attacker.example/keys"),
    "kid_as_sql": strange(kid="' OR 1=1; DROP TABLE integration_requests; --"),
    "kid_of_10_kb": strange(kid="k" * 10_240),
    "kid_as_a_number": strange(kid=7),
    "kid_as_a_list": strange(kid=["a"]),
    "kid_as_nothing": strange(kid=None),
    "kid_with_a_line_break": strange(kid="a\r\nX-Injected: 1"),
    "kid_of_a_stranger": strange(kid="stranger"),
    "key_of_a_stranger": strange(),
    "jwk_inline": inline_jwk,
    "x5c_inline": strange(x5c=["MIIB"]),
    "crit_unknown": headed(crit=["exp", "surprise"], surprise=True),
    "crit_empty": headed(crit=[]),
    "b64_false": headed(crit=["b64"], b64=False),
    "typ_of_a_logout_token": headed(typ="logout+jwt"),
    "header_with_a_key_twice": lambda forge: forge.token(
        json.dumps(forge.header())[:-1] + ',"alg":"ES256"}', forge.claims()
    ),
    "claim_twice": claims_text(lambda text: text[:-1] + ',"sub":"root"}'),
    "claims_deep": claims_text(lambda text: text[:-1] + ',"x":' + "[" * 500 + "]" * 500 + "}"),
    "claims_no_object": lambda forge: forge.token(forge.header(), "[]"),
    "claims_no_json": lambda forge: forge.token(forge.header(), "sub=root"),
    "claims_nan": claims_text(lambda text: text[:-1] + ',"x":NaN}'),
    "claims_lone_surrogate": claims_text(lambda text: text[:-1] + ',"x":"\\ud800"}'),
    "exp_missing": claiming(exp=None),
    "exp_as_text": claiming(exp="4102444800"),
    "exp_as_a_list": claiming(exp=[4102444800]),
    "exp_as_true": claiming(exp=True),
    "exp_infinite": claims_text(lambda text: text[:-1].replace('"exp"', '"was"') + ',"exp":1e400}'),
    "exp_in_a_thousand_years": lambda forge: forge.good(exp=in_seconds(1000 * 365 * 86400)),
    "expired": lambda forge: forge.good(exp=in_seconds(-40)),
    "not_yet_valid": lambda forge: forge.good(nbf=in_seconds(3600)),
    "nbf_as_text": claiming(nbf="0"),
    "issued_in_the_future": lambda forge: forge.good(iat=in_seconds(3600)),
    "iss_missing": claiming(iss=None),
    "iss_of_another": claiming(iss="https://attacker.example"),
    "iss_as_a_list": claiming(iss=["integration-hub"]),
    "iss_in_other_letters": claiming(iss="Integration-Hub"),
    "aud_missing": claiming(aud=None),
    "aud_of_another": claiming(aud="another-hub"),
    "aud_list_of_others": claiming(aud=["a", "b"]),
    "aud_as_an_object": claiming(aud={"integration-hub": 1}),
    "sub_missing": claiming(sub=None),
    "sub_empty": claiming(sub=""),
    "sub_as_a_number": claiming(sub=7),
    "sub_with_a_line_break": claiming(sub="acme\r\nX-Injected: 1"),
    "sub_with_nul": claiming(sub="acme\x00"),
    "sub_turned_around": claiming(sub="\u202eemca"),
    "sub_of_10_kb": claiming(sub="s" * 5000),
    "partner_as_a_list": claiming(partner_id=["acme"]),
    "partner_invisible": claiming(partner_id="acme\u200b"),
    "limit_that_is_none": claiming(targets="TotvsProtheus"),
    "rate_as_text": claiming(rate_per_minute="0"),
    "encrypted_token": lambda _: ".".join([b64(b'{"alg":"dir","enc":"A256GCM"}'), "", b64(b"a"), b64(b"b"), b64(b"c")]),
    "token_of_20_kb": lambda forge: forge.good(x="x" * 20_000),
    "thousand_dots": lambda _: "." * 1000,
    "no_token_at_all": lambda _: "",
    "padding": lambda forge: forge.good() + "==",
    "plain_base64": lambda forge: base64.b64encode(forge.good().encode()).decode(),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
async def test_a_bad_token_opens_no_route(anybody: httpx.AsyncClient, forge: Forge, make: Make) -> None:
    response = await anybody.get(PATH, headers={"Authorization": f"Bearer {make(forge)}".strip()})

    assert_safe(response, 401)
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
async def test_a_bad_token_opens_no_rpc(intake: grpc.aio.Channel, forge: Forge, make: Make) -> None:
    call = IntakeServiceStub(intake).ListIntegrationRequests
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(ListIntegrationRequestsRequest(), metadata=(("authorization", f"Bearer {make(forge)}"),), timeout=20)

    assert_refused(refused.value, "UNAUTHENTICATED", "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize("name", ["jku", "x5u"])
async def test_a_url_in_a_token_is_not_called(anybody: httpx.AsyncClient, forge: Forge, name: str) -> None:
    calls: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(await reader.read(100))
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", port := free_port()):
        token = strange(**{name: f"http://127.0.0.1:{port}/keys", "kid": "mine"})(forge)
        response = await anybody.get(PATH, headers={"Authorization": f"Bearer {token}"})

    assert_safe(response, 401)
    assert not calls


@pytest.mark.parametrize(
    ("header", "statuses"),
    [
        ("Basic YTpi", (401,)),
        ("Bearer", (401,)),
        ("Bearer  ", (401,)),
        ("Token x", (401,)),
        ("Bearer \xff\xfe", (401,)),
        ("Bearer " + "x" * 60_000, (401, 431)),
    ],
    ids=["basic", "nothing", "blanks", "another_scheme", "not_utf8", "of_60_kb"],
)
async def test_a_bad_authorization_header_is_refused(hub: HubProcess, header: str, statuses: tuple[int, ...]) -> None:
    head = f"GET {PATH} HTTP/1.1\r\nHost: hub\r\nAuthorization: {header}\r\n\r\n"

    answer = await send_raw(hub, head.encode("latin-1"))

    assert answer.status in statuses


async def test_two_tokens_in_one_call_are_refused(hub: HubProcess, forge: Forge) -> None:
    lines = f"Authorization: Bearer {forge.good()}\r\n" * 2

    answer = await send_raw(hub, f"GET {PATH} HTTP/1.1\r\nHost: hub\r\n{lines}\r\n".encode())

    assert answer.status == 400


async def test_a_token_in_the_query_is_none(anybody: httpx.AsyncClient, forge: Forge) -> None:
    assert_safe(await anybody.get(PATH, params={"access_token": forge.good()}), 401)


async def test_the_scheme_may_be_written_small(anybody: httpx.AsyncClient, forge: Forge) -> None:
    assert_safe(await anybody.get(PATH, headers={"Authorization": f"bearer {forge.good()}"}), 200)


async def test_a_thousand_new_key_ids_hold_nobody_up(anybody: httpx.AsyncClient, forge: Forge, hub: HubProcess) -> None:
    async def attack(number: int) -> int:
        token = strange(kid=f"new-{number}")(forge)
        return (await anybody.get(PATH, headers={"Authorization": f"Bearer {token}"})).status_code

    started = time.monotonic()
    statuses = {await each for each in asyncio.as_completed([attack(number) for number in range(300)])}
    good = await anybody.get(PATH, headers={"Authorization": f"Bearer {hub.token('good')}"})

    assert (statuses, good.status_code) == ({401}, 200)
    assert time.monotonic() - started < 30


@pytest.mark.timeout(150)
async def test_a_token_is_worth_nothing_a_minute_after_its_key_was_revoked(
    anybody: httpx.AsyncClient, forge: Forge, hub: HubProcess
) -> None:
    key_set = Path(hub.setting("state_dir")) / "keys" / "jwks.json"
    before = key_set.read_text()
    header = {"Authorization": f"Bearer {strange(kid='hired')(forge)}"}

    async def is_answered(status: int) -> bool:
        return (await anybody.get(PATH, headers=header)).status_code == status

    hired = {**strangers_jwk(forge), "kid": "hired"}
    replace_file(key_set, json.dumps({"keys": [*json.loads(before)["keys"], hired]}).encode())
    try:
        assert await eventually(partial(is_answered, 200), 60, every=0.5)
    finally:
        replace_file(key_set, before.encode())

    assert await eventually(partial(is_answered, 401), 60, every=0.5)
