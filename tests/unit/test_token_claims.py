"""What a token must say, and every forgery of one; how keys are read and kept is told in test_tokens.py."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from joserfc.jwk import ECKey, Key
from joserfc.jws import JWSRegistry

from chassis.errors import Unauthenticated
from chassis.testing import TestKeys
from chassis.tokens import LEEWAY_SECONDS, JwksSource, ServiceToken, TokenSigner, TokenVerifier

NAME = "integration-hub"
NOW = 1_750_000_000


@pytest.fixture
def key(keys: TestKeys) -> Key:
    return ECKey.import_key(json.loads(keys.private.read_text())["keys"][0])


@pytest.fixture
def verifier(keys: TestKeys) -> TokenVerifier:
    return TokenVerifier(JwksSource(str(keys.jwks)), issuer=NAME, audience=NAME, now=lambda: NOW)


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims with what the test changes; None takes one out."""
    good = {"iss": NAME, "aud": NAME, "sub": "acme", "iat": NOW, "nbf": NOW, "exp": NOW + 3600, "scope": "a b"}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def segment(content: object) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token_of(key: Key, payload: object = None, **header: Any) -> str:
    """A token that is truly signed by `key`, whatever its header and payload say."""
    values = {"alg": "ES256", "kid": key.kid, "typ": "JWT", **header}
    head = segment({name: value for name, value in values.items() if value is not None})
    signed = f"{head}.{segment(claims() if payload is None else payload)}"
    return f"{signed}.{segment(JWSRegistry.algorithms['ES256'].sign(signed.encode(), key))}"


async def refuse(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await verifier.verify_header(f"Bearer {token}")
    assert token not in caught.value.message
    return caught.value.message


async def test_a_good_token_gives_its_caller(verifier: TokenVerifier, key: Key) -> None:
    caller = await verifier.verify_header(f"Bearer {token_of(key)}")

    assert (caller.subject, caller.partner_id, caller.scopes) == ("acme", "acme", frozenset({"a", "b"}))
    assert caller.expires_at == NOW + 3600 + LEEWAY_SECONDS


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
async def test_the_schemes_case_does_not_matter(verifier: TokenVerifier, key: Key, scheme: str) -> None:
    assert (await verifier.verify_header(f"{scheme} {token_of(key)}")).subject == "acme"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Token x.y.z", "x.y.z"])
async def test_another_header_is_no_token(verifier: TokenVerifier, header: str | None) -> None:
    with pytest.raises(Unauthenticated, match="Send a token"):
        await verifier.verify_header(header)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [NAME, "another"]},
        {"aud": ["another", NAME]},
        {"nbf": None, "iat": None},
        {"exp": NOW - LEEWAY_SECONDS + 1},
        {"nbf": NOW + LEEWAY_SECONDS},
        {"iat": NOW + LEEWAY_SECONDS},
        {"exp": NOW + 0.5},
        {"partner_id": "acme"},
        {"scope": None, "scopes": ["a", "b"]},
        {"scope": ["a", "b", 5]},
    ],
    ids=str,
)
async def test_claims_within_the_rules_are_taken(verifier: TokenVerifier, key: Key, changes: dict[str, Any]) -> None:
    caller = await verifier.verify_header(f"Bearer {token_of(key, claims(**changes))}")

    assert (caller.partner_id, caller.scopes) == ("acme", frozenset({"a", "b"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": None},
        {"exp": NOW - LEEWAY_SECONDS},
        {"exp": str(NOW + 3600)},
        {"exp": True},
        {"exp": [NOW + 3600]},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": 10**18},
        {"nbf": NOW + LEEWAY_SECONDS + 1},
        {"nbf": "now"},
        {"iat": NOW + LEEWAY_SECONDS + 1},
        {"iat": "now"},
        {"iss": "another"},
        {"iss": [NAME]},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": [[NAME]]},
        {"aud": []},
        {"aud": None},
        {"aud": {NAME: 1}},
        {"sub": None},
        {"sub": ""},
        {"sub": 5},
        {"sub": "x" * 256},
        {"sub": "a\nb"},
        {"sub": "a\u0000b"},
        {"sub": "\u202eacme"},
        {"partner_id": ""},
        {"partner_id": 7},
        {"partner_id": "a\u0000b"},
    ],
    ids=lambda changes: f"{next(iter(changes))}={str(next(iter(changes.values())))[:20]!a}",
)
async def test_claims_beyond_the_rules_are_refused(verifier: TokenVerifier, key: Key, changes: dict[str, Any]) -> None:
    assert await refuse(verifier, token_of(key, claims(**changes)))


async def test_a_claim_that_stands_twice_is_refused(verifier: TokenVerifier, key: Key) -> None:
    twice = json.dumps(claims())[:-1] + ', "sub": "brix"}'

    await refuse(verifier, token_of(key, twice.encode()))


@pytest.mark.parametrize(
    "payload", [b"", b"[1]", b'"x"', b"null", b"{", b"\xff", b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}"], ids=repr
)
async def test_a_payload_that_is_no_object_is_refused(verifier: TokenVerifier, key: Key, payload: bytes) -> None:
    await refuse(verifier, token_of(key, payload))


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", "", "HS256", "XX", None, 5, ["ES256"]])
async def test_an_algorithm_that_is_not_on_the_list_is_refused(
    verifier: TokenVerifier, key: Key, algorithm: object
) -> None:
    await refuse(verifier, token_of(key, alg=algorithm))


async def test_an_unsigned_token_is_refused(verifier: TokenVerifier, key: Key) -> None:
    head, payload, _ = token_of(key).split(".")

    await refuse(verifier, f"{head}.{payload}.")
    await refuse(verifier, f"{segment({'alg': 'none'})}.{payload}.")


async def test_the_signature_of_another_payload_is_refused(verifier: TokenVerifier, key: Key) -> None:
    head, _, signature = token_of(key).split(".")

    await refuse(verifier, f"{head}.{segment(claims(sub='brix'))}.{signature}")


@pytest.mark.parametrize("secret", ["public key", "empty", "common word"])
async def test_a_secret_that_everybody_knows_signs_nothing(
    verifier: TokenVerifier, key: Key, keys: TestKeys, secret: str
) -> None:
    known = {"public key": keys.jwks.read_bytes(), "empty": b"", "common word": b"secret" * 8}[secret]
    signed = f"{segment({'alg': 'HS256', 'kid': key.kid})}.{segment(claims())}"

    await refuse(verifier, f"{signed}.{segment(hmac.digest(known, signed.encode(), 'sha256'))}")


HEADERS: dict[str, Callable[[Key], dict[str, Any]]] = {
    "inline key": lambda stranger: {"jwk": stranger.as_dict(private=False)},
    "key of a URL": lambda _: {"jku": "https://evil.example/jwks.json", "x5u": "https://evil.example/x"},
    "kid as a path": lambda _: {"kid": "../../etc/passwd"},
    "kid as a URL": lambda _: {"kid": "https://evil.example/key"},
    "kid as SQL": lambda _: {"kid": "' OR 1=1 --"},
    "kid of 5 KB": lambda _: {"kid": "x" * 5000},
    "kid as a number": lambda _: {"kid": 5},
    "no kid": lambda _: {"kid": None},
}


@pytest.mark.parametrize("case", HEADERS)
async def test_a_strangers_key_is_never_taken_from_the_header(verifier: TokenVerifier, key: Key, case: str) -> None:
    stranger = ECKey.generate_key("P-256", {"kid": str(key.kid)}, private=True)

    await refuse(verifier, token_of(stranger, **HEADERS[case](stranger)))


@pytest.mark.parametrize("header", [{"crit": ["x"], "x": 1}, {"crit": ["b64"], "b64": False}, {"b64": False}], ids=str)
async def test_an_extension_that_is_not_understood_is_refused(
    verifier: TokenVerifier, key: Key, header: dict[str, Any]
) -> None:
    await refuse(verifier, token_of(key, **header))


@pytest.mark.parametrize("kind", ["logout+jwt", "dpop+jwt", "JOSE"])
async def test_a_token_that_is_meant_for_something_else_is_refused(
    verifier: TokenVerifier, key: Key, kind: str
) -> None:
    assert "access token" in await refuse(verifier, token_of(key, typ=kind))


@pytest.mark.parametrize("text", ["x", "x.y", "a.b.c.d.e", "." * 1000, "x" * 20_000 + ".a.b", "é.é.é", "..", "!.!.!"])
async def test_what_is_no_jwt_is_refused(verifier: TokenVerifier, text: str) -> None:
    await refuse(verifier, text)


async def test_a_verified_token_is_remembered_no_longer_than_it_lives(keys: TestKeys, key: Key) -> None:
    clock = {"now": float(NOW)}
    verifier = TokenVerifier(JwksSource(str(keys.jwks)), issuer=NAME, audience=NAME, now=lambda: clock["now"])
    header = f"Bearer {token_of(key, claims(exp=NOW + 5))}"
    await verifier.verify_header(header)

    clock["now"] = NOW + 5 + LEEWAY_SECONDS

    with pytest.raises(Unauthenticated, match="expired"):
        await verifier.verify_header(header)


async def test_the_hubs_own_tokens_are_good(keys: TestKeys) -> None:
    verifier = TokenVerifier(JwksSource(str(keys.jwks)), issuer=NAME, audience=NAME)
    signer = TokenSigner(keys.private, issuer=NAME, audience=NAME)
    token = ServiceToken(signer, service="orchestrator", scopes=["lifecycle"])

    caller = await verifier.verify_header(token.header())

    assert (caller.subject, caller.scopes) == ("service:orchestrator", frozenset({"lifecycle"}))
    assert caller.expires_at < time.time() + 300 + LEEWAY_SECONDS + 1
    assert token.header() == token.header()  # made once, not for every call
