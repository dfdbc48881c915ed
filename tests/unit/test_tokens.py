"""Keys and tokens (RFC 8725): which sets are read, how often, what is kept, and what a token's claims allow."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from chassis.access import PartnerLimits
from chassis.errors import ConfigurationError, SystemNotAllowed, Unauthenticated
from chassis.testing import FakeClock, TestKeys
from chassis.tokens import (
    CACHE_SECONDS,
    PATIENCE_SECONDS,
    REFRESH_SECONDS,
    RENEW_SECONDS,
    SERVICE_TOKEN_SECONDS,
    JwksSource,
    ServiceToken,
    TokenVerifier,
    make_keys,
    read_key_set,
)

NAME = "integration-hub"


class CountingSource(JwksSource):
    """A file that counts its readings."""

    def __init__(self, location: str, now: Callable[[], float]) -> None:
        super().__init__(location, now=now)
        self.readings = 0

    async def _fetch(self, location: str) -> bytes:
        self.readings += 1
        return await super()._fetch(location)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def source(keys: TestKeys, clock: FakeClock, tmp_path: Path) -> CountingSource:
    (tmp_path / "jwks.json").write_bytes(keys.jwks.read_bytes())
    return CountingSource(str(tmp_path / "jwks.json"), lambda: clock.now() / 1e6)


def verifier_of(source: JwksSource, now: Callable[[], float] = time.time) -> TokenVerifier:
    return TokenVerifier(source, issuer=NAME, audience=NAME, now=now)


def signed(key: ECKey, **header: object) -> str:
    now = int(time.time())
    claims = {"iss": NAME, "aud": NAME, "sub": "acme", "iat": now, "nbf": now, "exp": now + 60, "scope": "x"}
    return "Bearer " + jwt.encode({"alg": "ES256", **header}, claims, key, algorithms=["ES256"])


async def test_a_key_that_names_its_algorithm_verifies_no_other(clock: FakeClock, tmp_path: Path) -> None:
    key = RSAKey.generate_key(2048, {"kid": "rsa"}, private=True)
    now = int(time.time())
    claims = {"iss": NAME, "aud": NAME, "sub": "acme", "exp": now + 60}
    source = JwksSource(str(tmp_path / "jwks.json"), now=lambda: clock.now() / 1e6)
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [{**key.as_dict(private=False), "alg": "RS256"}]}))
    tokens = {
        name: "Bearer " + jwt.encode({"alg": name, "kid": "rsa"}, claims, key, algorithms=["RS256", "PS256"])
        for name in ("RS256", "PS256")
    }

    assert (await verifier_of(source).verify_header(tokens["RS256"])).subject == "acme"
    with pytest.raises(Unauthenticated):
        await verifier_of(source).verify_header(tokens["PS256"])


async def test_a_thousand_unknown_key_ids_cost_one_reading(source: CountingSource, clock: FakeClock) -> None:
    verifier = verifier_of(source)
    stranger = ECKey.generate_key("P-256", private=True)
    await source.start()
    clock.advance(REFRESH_SECONDS + 1)

    async def attack(number: int) -> None:
        with pytest.raises(Unauthenticated):
            await verifier.verify_header(signed(stranger, kid=f"new-{number}"))

    await asyncio.gather(*(attack(number) for number in range(1000)))

    assert source.readings == 2


async def test_a_new_key_is_read_when_a_token_names_it(
    source: CountingSource, clock: FakeClock, keys: TestKeys, tmp_path: Path
) -> None:
    await source.start()
    added = ECKey.generate_key("P-256", {"kid": "added"}, private=True)
    both = [*json.loads(keys.jwks.read_bytes())["keys"], added.as_dict(private=False)]
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": both}))
    clock.advance(REFRESH_SECONDS)

    caller = await verifier_of(source).verify_header(signed(added, kid="added"))

    assert caller.subject == "acme"


async def test_a_revoked_key_stops_working_within_a_minute(keys: TestKeys, tmp_path: Path) -> None:
    clock = FakeClock(round(time.time() * 1e6))
    (tmp_path / "jwks.json").write_bytes(keys.jwks.read_bytes())
    source = CountingSource(str(tmp_path / "jwks.json"), lambda: clock.now() / 1e6)
    verifier = verifier_of(source, lambda: clock.now() / 1e6)
    header = f"Bearer {keys.token('acme', 'requests:read')}"
    await source.start()
    make_keys(tmp_path / "other")
    (tmp_path / "jwks.json").write_bytes((tmp_path / "other" / "jwks.json").read_bytes())
    clock.advance(CACHE_SECONDS - 1)
    await verifier.verify_header(header)  # the last moment at which the old keys and then the verdict are remembered

    clock.advance(CACHE_SECONDS + 1)

    assert 2 * CACHE_SECONDS < 60
    with pytest.raises(Unauthenticated):
        await verifier.verify_header(header)


async def test_good_tokens_do_not_wait_for_a_key_source_that_dawdles(
    source: CountingSource, clock: FakeClock, keys: TestKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    await source.start()
    gate = asyncio.Event()

    async def dawdle(_: str) -> bytes:
        await gate.wait()
        return keys.jwks.read_bytes()

    monkeypatch.setattr(source, "_fetch", dawdle)
    started = time.monotonic()
    clock.advance(RENEW_SECONDS)
    for _ in range(5):
        assert (await verifier_of(source).verify_header(f"Bearer {keys.token('acme')}")).subject == "acme"
    gate.set()

    assert time.monotonic() - started < PATIENCE_SECONDS


@pytest.mark.parametrize(
    "rubbish",
    [b"", b"<html>", b"[]", b'{"keys":{}}', b'{"keys"', b"\xff\xfe", b"[" * 100_000],
    ids=["empty", "html", "list", "keys_no_list", "cut_off", "not_utf8", "deep"],
)
async def test_keeps_the_last_good_set_when_the_source_answers_rubbish(
    source: CountingSource, clock: FakeClock, keys: TestKeys, tmp_path: Path, rubbish: bytes
) -> None:
    await source.start()
    (tmp_path / "jwks.json").write_bytes(rubbish)
    clock.advance(3600)

    caller = await verifier_of(source).verify_header(f"Bearer {keys.token('acme')}")

    assert (caller.subject, source.readings) == ("acme", 2)


async def test_keeps_the_last_good_set_when_the_file_is_gone(
    source: CountingSource, clock: FakeClock, keys: TestKeys, tmp_path: Path
) -> None:
    await source.start()
    (tmp_path / "jwks.json").unlink()
    clock.advance(3600)

    assert (await verifier_of(source).verify_header(f"Bearer {keys.token('acme')}")).subject == "acme"


async def test_says_so_when_there_never_was_a_key_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="HUB_JWT_JWKS"):
        await JwksSource(str(tmp_path / "none.json")).start()


def test_refuses_a_key_url_that_is_not_encrypted() -> None:
    with pytest.raises(ConfigurationError, match="https"):
        JwksSource("http://issuer.example/jwks.json")


def test_leaves_out_keys_that_are_secret_weak_for_encryption_or_unknown() -> None:
    good = ECKey.generate_key("P-256", {"kid": "good"}, private=False)
    with pytest.warns(SecurityWarning):
        weak = RSAKey.generate_key(1024, {"kid": "weak"}, private=False).as_dict()
    entries = [
        OctKey.generate_key(256, {"kid": "secret"}).as_dict(),
        weak,
        ECKey.generate_key("P-256", {"kid": "enc", "use": "enc"}, private=False).as_dict(),
        {"kty": "FUTURE", "kid": "unknown"},
        "no key at all",
        good.as_dict(),
    ]

    assert [key.kid for key in read_key_set(json.dumps({"keys": entries}).encode())] == ["good"]


async def test_a_token_limited_to_systems_names_them(source: CountingSource, keys: TestKeys) -> None:
    await source.start()
    token = keys.token("acme", sources=["SAP"], targets=["TotvsProtheus"], rate_per_minute=10)

    limits = (await verifier_of(source).verify_header(f"Bearer {token}")).limits

    assert limits == PartnerLimits(sources=frozenset({"SAP"}), targets=frozenset({"TotvsProtheus"}), rate_per_minute=10)


@pytest.mark.parametrize(
    "claims",
    [
        {"sources": "SAP"},
        {"targets": [1]},
        {"targets": {}},
        {"rate_per_minute": -1},
        {"rate_per_minute": "600"},
        {"rate_per_minute": True},
        {"rate_per_minute": 10**9},
    ],
    ids=str,
)
async def test_a_limit_that_cannot_be_read_refuses_the_token(
    source: CountingSource, keys: TestKeys, claims: dict[str, Any]
) -> None:
    await source.start()

    with pytest.raises(Unauthenticated):
        await verifier_of(source).verify_header(f"Bearer {keys.token('acme', **claims)}")


@pytest.mark.parametrize(("source_system", "target_system"), [("Oracle", "TotvsProtheus"), ("SAP", "Oracle")])
def test_a_limited_token_is_for_no_other_system(source_system: str, target_system: str) -> None:
    limits = PartnerLimits(sources=frozenset({"SAP"}), targets=frozenset({"TotvsProtheus"}))

    with pytest.raises(SystemNotAllowed):
        limits.check_systems(source_system, target_system)


def test_an_empty_list_allows_nothing() -> None:
    with pytest.raises(SystemNotAllowed):
        PartnerLimits(targets=frozenset()).check_systems("SAP", "TotvsProtheus")


async def test_what_is_remembered_of_a_token_is_not_the_token(source: CountingSource, keys: TestKeys) -> None:
    verifier = verifier_of(source)
    token = keys.token("acme")
    await source.start()

    await verifier.verify_header(f"Bearer {token}")

    assert token not in repr(vars(verifier))


def test_a_key_set_of_two_holds_both(keys: TestKeys) -> None:
    more = ECKey.generate_key("P-256", {"kid": "more"}, private=False)
    both: Any = {"keys": [*json.loads(keys.jwks.read_bytes())["keys"], more.as_dict()]}

    assert len(KeySet.import_key_set(both).keys) == len(read_key_set(json.dumps(both).encode()).keys) == 2


@pytest.mark.parametrize("step_seconds", [SERVICE_TOKEN_SECONDS / 2, 3600, -1, -3600])
def test_a_services_own_token_follows_the_clock_that_its_end_is_read_on(
    keys: TestKeys, monkeypatch: pytest.MonkeyPatch, step_seconds: float
) -> None:
    clock = time.time()
    monkeypatch.setattr(time, "time", lambda: clock)
    token = ServiceToken(keys.signer, service="intake", scopes=["lifecycle"])
    first = token.header()
    clock += SERVICE_TOKEN_SECONDS / 2 - 1
    kept = token.header()
    clock += step_seconds + (0 if step_seconds > 0 else 1 - SERVICE_TOKEN_SECONDS / 2)

    renewed = token.header()

    assert kept == first != renewed
    claims = jwt.decode(renewed.removeprefix("Bearer "), read_key_set(keys.jwks.read_bytes())).claims
    assert claims["iat"] <= clock < claims["exp"]
