"""JWTs: verifying callers' (RFC 8725) and making the hub's own short-lived service tokens."""

import asyncio
import json
import secrets
import time
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from chassis.access import MAX_NAME, Caller, is_name
from chassis.errors import ConfigurationError, Unauthenticated
from chassis.json_text import check_json

ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "Ed25519", "EdDSA"]
LEEWAY_SECONDS = 30
#: Of a key set and of a verified token; one after the other, a revoked key lives for a minute at most.
CACHE_SECONDS = 30
CACHE_SIZE = 10_000
MAX_TOKEN_BYTES = 8192
REFRESH_SECONDS = 15
SERVICE_TOKEN_SECONDS = 300


class KeySource(Protocol):
    """Where public keys come from."""

    async def keys(self, *, refresh: bool) -> KeySet:
        """The current key set; with `refresh` read it again, if the last reading is old enough."""
        ...


class JwksSource:
    """A JWKS from a file or an https URL; a component. The last good set is kept when a reading fails."""

    def __init__(self, location: str, *, now: Callable[[], float] = time.monotonic) -> None:
        if location.startswith("http://"):
            raise ConfigurationError(f"HUB_JWT_JWKS={location} is not encrypted; use https or a file")
        self._location = location
        self._now = now
        self._keys: KeySet | None = None
        self._read_at = 0.0

    async def keys(self, *, refresh: bool) -> KeySet:
        """The current key set. Raises: ConfigurationError when it could never be read."""
        age = self._now() - self._read_at
        limit = REFRESH_SECONDS if refresh else CACHE_SECONDS
        if self._keys is None or age >= limit:
            self._read_at = self._now()
            try:
                self._keys = KeySet.import_key_set(json.loads(await self._read()))
            except (OSError, ValueError, TypeError, LookupError, httpx.HTTPError, JoseError) as error:
                if self._keys is None:
                    raise ConfigurationError(
                        f"The key set {self._location} cannot be read; `hub keys` makes one, "
                        "or set HUB_JWT_JWKS to your issuer's"
                    ) from error
        return self._keys

    async def start(self) -> None:
        """Read the key set. Raises: ConfigurationError."""
        await self.keys(refresh=False)

    async def stop(self) -> None:
        """Do nothing: nothing is kept open."""

    async def _read(self) -> str | bytes:
        if not self._location.startswith("https://"):
            return await asyncio.to_thread(Path(self._location).read_text)
        async with httpx.AsyncClient(timeout=5, follow_redirects=False) as client:
            response = await client.get(self._location)
            return response.raise_for_status().content


class TokenVerifier:
    """Turns a token into its Caller; verified tokens are remembered for up to 30 s."""

    def __init__(self, source: KeySource, *, issuer: str, audience: str, now: Callable[[], float] = time.time) -> None:
        self._source = source
        self._issuer = issuer
        self._audience = audience
        self._now = now
        self._verified: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    async def verify_header(self, header: str | None) -> Caller:
        """Verify the value of an Authorization header or metadata entry.

        Raises: Unauthenticated with a reason that says what to do.
        """
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("Send a token: Authorization: Bearer <JWT>.")
        token = token.strip()
        cached = self._verified.get(token)
        if cached is not None and cached[0] > self._now():
            return cached[1]
        caller = await self._verify(token)
        self._verified[token] = (min(caller.expires_at, self._now() + CACHE_SECONDS), caller)
        while len(self._verified) > CACHE_SIZE:
            self._verified.popitem(last=False)
        return caller

    async def _verify(self, token: str) -> Caller:
        if len(token) > MAX_TOKEN_BYTES or token.count(".") != 2 or not token.isascii():
            raise Unauthenticated("The token is not a signed JWT; ask for a new one.")
        for refresh in (False, True):
            keys = await self._source.keys(refresh=refresh)
            try:
                decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
                check_json(urlsafe_b64decode(token.split(".")[1] + "=="))  # a claim twice, NaN: which would count?
            except (JoseError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
                if refresh:
                    raise Unauthenticated("The token's signature is not valid here; ask for a new one.") from error
                continue
            return self._caller(decoded.claims)
        raise AssertionError("unreachable")

    def _caller(self, claims: dict[str, object]) -> Caller:
        now = self._now()
        expires_at, not_before, issued_at = claims.get("exp"), claims.get("nbf", 0), claims.get("iat", 0)
        if not _is_number(expires_at) or expires_at + LEEWAY_SECONDS <= now:  # type: ignore[operator]  # checked
            raise Unauthenticated("The token has expired; ask for a new one.")
        if not _is_number(not_before) or not_before - LEEWAY_SECONDS > now:  # type: ignore[operator]  # checked
            raise Unauthenticated("The token is not valid yet; check the clocks.")
        if not _is_number(issued_at) or issued_at - LEEWAY_SECONDS > now:  # type: ignore[operator]  # checked
            raise Unauthenticated("The token was issued in the future; check the clocks.")
        if claims.get("iss") != self._issuer:
            raise Unauthenticated("The token comes from another issuer.")
        audience = claims.get("aud")
        if self._audience != audience and not (isinstance(audience, list) and self._audience in audience):
            raise Unauthenticated("The token is for another audience.")
        subject = claims.get("sub")
        partner_id = claims.get("partner_id", subject)
        if not isinstance(subject, str) or not isinstance(partner_id, str):
            raise Unauthenticated("The token names no subject; ask for one with `sub`.")
        if not is_name(subject) or not is_name(partner_id):
            raise Unauthenticated(f"`sub` and `partner_id` must be 1 to {MAX_NAME} printable characters.")
        rate = claims.get("rate_per_minute")
        return Caller(
            subject=subject,
            partner_id=partner_id,
            scopes=_scopes(claims),
            expires_at=float(expires_at) + LEEWAY_SECONDS,  # type: ignore[arg-type]  # checked above
            rate_per_minute=rate if isinstance(rate, int) and not isinstance(rate, bool) and rate >= 0 else None,
            claims=claims,
        )


class TokenSigner:
    """Makes tokens with the private key set of this hub."""

    def __init__(self, key_file: Path, *, issuer: str, audience: str) -> None:
        try:
            key_set = KeySet.import_key_set(json.loads(key_file.read_text()))
        except (OSError, ValueError, JoseError) as error:
            raise ConfigurationError(
                f"The signing key {key_file} cannot be read; `hub keys` makes one, or set HUB_SERVICE_KEY"
            ) from error
        self._key = key_set.keys[0]
        self._issuer = issuer
        self._audience = audience

    def sign(self, *, subject: str, scopes: Sequence[str], seconds: int, **claims: object) -> str:
        """Make a token for `subject` that ends after `seconds`."""
        now = int(time.time())
        header = {"alg": "ES256", "kid": self._key.kid, "typ": "JWT"}
        body = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": subject,
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
            "jti": secrets.token_hex(8),
            "scope": " ".join(scopes),
        }
        return jwt.encode(header, {**body, **claims}, self._key, algorithms=["ES256"])


class ServiceToken:
    """A service's own token, made anew before it ends; `metadata()` is what a call carries."""

    def __init__(self, signer: TokenSigner, *, service: str, scopes: Sequence[str]) -> None:
        self._signer = signer
        self._service = service
        self._scopes = scopes
        self._header = ""
        self._renew_at = 0.0

    def header(self) -> str:
        """The value of `authorization`."""
        if time.monotonic() >= self._renew_at:
            token = self._signer.sign(
                subject=f"service:{self._service}", scopes=self._scopes, seconds=SERVICE_TOKEN_SECONDS
            )
            self._header = f"Bearer {token}"
            self._renew_at = time.monotonic() + SERVICE_TOKEN_SECONDS / 2
        return self._header


def make_keys(folder: Path) -> bool:
    """Make the hub's own key pair in `folder` (jwks.json, private.json) unless it is there.

    Returns whether it was made. The private file is readable by its owner only.
    """
    private_file, public_file = folder / "private.json", folder / "jwks.json"
    if private_file.exists() and public_file.exists():
        private_file.chmod(0o600)
        return False
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    key = ECKey.generate_key("P-256", {"kid": secrets.token_hex(8), "use": "sig", "alg": "ES256"}, private=True)
    private_file.touch(mode=0o600)
    private_file.chmod(0o600)
    private_file.write_text(json.dumps({"keys": [key.as_dict(private=True)]}))
    public_file.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    return True


def _scopes(claims: dict[str, object]) -> frozenset[str]:
    """Read `scope` (RFC 8693: words in one string) or the list forms `scope` and `scopes`."""
    scope = claims.get("scope", claims.get("scopes", ""))
    words = scope.split() if isinstance(scope, str) else scope if isinstance(scope, list) else []
    return frozenset(word for word in words if isinstance(word, str))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
