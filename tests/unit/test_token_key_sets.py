"""Tokens while one of several key sets could not be read yet: only what that set may decide is left open."""

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from chassis.errors import KeySetUnavailable, Unauthenticated
from chassis.testing import FakeClock, TestKeys, free_port
from chassis.tokens import REFRESH_SECONDS, JwksSource, TokenVerifier

NAME = "integration-hub"


@pytest.fixture
def known(keys: TestKeys) -> ECKey:
    """The key of the set that is read."""
    return ECKey.import_key(json.loads(keys.private.read_text())["keys"][0])


@pytest.fixture
def third() -> ECKey:
    """A key of none of the sets, or of the one that is not read yet: who could tell."""
    return ECKey.generate_key("P-256", {"kid": "third"}, private=True)


@pytest.fixture
async def verifier(keys: TestKeys) -> AsyncIterator[TokenVerifier]:
    """Of a service that was started while an issuer was away."""
    source = JwksSource(f"https://127.0.0.1:{free_port()}/x, {keys.jwks}")
    await source.start()
    yield verifier_of(source)
    await source.stop()


def verifier_of(source: JwksSource) -> TokenVerifier:
    return TokenVerifier(source, issuer=NAME, audience=NAME)


def header_of(key: ECKey, *, kid: str | None = None, **changes: Any) -> str:
    now = int(time.time())
    claims = {"iss": NAME, "aud": NAME, "sub": "acme", "iat": now, "exp": now + 60, **changes}
    return "Bearer " + jwt.encode({"alg": "ES256", "kid": kid or key.kid}, claims, key, algorithms=["ES256"])


def with_head(header: str, **head: Any) -> str:
    """The same token, whose own head says something else."""
    segment = urlsafe_b64encode(json.dumps(head).encode()).rstrip(b"=").decode()
    return f"Bearer {segment}.{header.partition('.')[2]}"


def key_set(*keys: ECKey) -> str:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]})


async def test_a_token_of_a_key_that_could_not_be_read_yet_is_not_called_bad(
    verifier: TokenVerifier, third: ECKey
) -> None:
    with pytest.raises(KeySetUnavailable) as caught:
        await verifier.verify_header(header_of(third))

    assert caught.value.retry_after_seconds is not None


async def test_a_token_of_a_key_that_was_read_is_taken_meanwhile(verifier: TokenVerifier, known: ECKey) -> None:
    assert (await verifier.verify_header(header_of(known))).subject == "acme"


BAD: dict[str, Callable[[ECKey, ECKey], str]] = {
    "signed by another": lambda known, third: header_of(third, kid=known.kid),
    "expired": lambda known, _: header_of(known, exp=int(time.time()) - 60),
    "for others": lambda known, _: header_of(known, aud="others"),
    "another algorithm than its key's": lambda known, _: with_head(header_of(known), alg="RS256", kid=known.kid),
    "unsigned": lambda _, third: with_head(header_of(third), alg="none", kid="third"),
    "signed with a word": lambda _, third: with_head(header_of(third), alg="HS256", kid="third"),
    "an extension": lambda _, third: with_head(header_of(third), alg="ES256", kid="third", crit=["x"], x=1),
    "no header": lambda _, third: "Bearer x." + header_of(third).partition(".")[2],
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
async def test_a_token_that_no_key_makes_good_is_refused_all_the_same(
    verifier: TokenVerifier, known: ECKey, third: ECKey, make: Callable[[ECKey, ECKey], str]
) -> None:
    with pytest.raises(Unauthenticated):
        await verifier.verify_header(make(known, third))


async def test_once_every_set_was_read_an_unknown_key_is_refused(known: ECKey, third: ECKey, tmp_path: Path) -> None:
    clock = FakeClock()
    late, early = tmp_path / "late.json", tmp_path / "early.json"
    early.write_text(key_set(known))
    source = JwksSource(f"{late},{early}", now=lambda: clock.now() / 1e6)
    await source.start()
    late.write_text(key_set(third))
    clock.advance(REFRESH_SECONDS)
    stranger = ECKey.generate_key("P-256", {"kid": "stranger"}, private=True)

    assert (await verifier_of(source).verify_header(header_of(third))).subject == "acme"
    with pytest.raises(Unauthenticated):
        await verifier_of(source).verify_header(header_of(stranger))


async def test_a_set_that_is_read_while_another_dawdles_is_not_complete_before_it_counts(
    known: ECKey, third: ECKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.tokens.PATIENCE_SECONDS", 0.05)
    clock = FakeClock()
    late, early = tmp_path / "late.json", tmp_path / "early.json"
    early.write_text(key_set(known))
    source = JwksSource(f"{late},{early}", now=lambda: clock.now() / 1e6)
    await source.start()
    fetch, gate = source._fetch, asyncio.Event()  # noqa: SLF001 - where a key source dawdles

    async def dawdle(location: str) -> bytes:
        if location == str(early):
            await gate.wait()
        return await fetch(location)

    monkeypatch.setattr(source, "_fetch", dawdle)
    late.write_text(key_set(third))
    clock.advance(REFRESH_SECONDS)
    with pytest.raises(KeySetUnavailable):
        await verifier_of(source).verify_header(header_of(third))
    gate.set()

    assert (await verifier_of(source).verify_header(header_of(third))).subject == "acme"


@pytest.mark.parametrize("written", ["{0}, {0}", "{0},", " ,{0}"])
async def test_a_location_that_is_none_or_stands_twice_is_not_waited_for(
    keys: TestKeys, third: ECKey, written: str
) -> None:
    source = JwksSource(written.format(keys.jwks))
    await source.start()

    with pytest.raises(Unauthenticated):
        await verifier_of(source).verify_header(header_of(third))
