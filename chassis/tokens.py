"""JWTs: verifying callers' (RFC 8725) and making the hub's own short-lived service tokens."""

import asyncio
import hashlib
import json
import math
import secrets
import time
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, KeySet
from joserfc.jws import extract_compact

from chassis.access import MAX_NAME, Caller, PartnerLimits, is_name
from chassis.errors import ConfigurationError, KeySetUnavailable, Unauthenticated
from chassis.json_text import check_json
from chassis.logs import get_logger

if TYPE_CHECKING:
    from chassis.https_key_sets import HttpsKeySets

log = get_logger()

ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "Ed25519", "EdDSA"]
LEEWAY_SECONDS = 30
#: Of a key set and of a verified token; one after the other, a revoked key lives for less than a minute.
CACHE_SECONDS = 25
#: A set of this age is read again beside the calls; they wait for it only once it is CACHE_SECONDS old.
RENEW_SECONDS = 20
CACHE_SIZE = 10_000
MAX_TOKEN_BYTES = 8192
#: A token that is good for longer was made by mistake: nobody could take it back in time.
MAX_LIFETIME_SECONDS = 366 * 86400
#: RFC 8725, 3.11: a JWT that is meant for something else (a logout token, a DPoP proof) is no access token.
TYPES = ("jwt", "at+jwt", "application/at+jwt")
#: Between two readings of the key set, however many tokens name keys that are not in it.
REFRESH_SECONDS = 15
#: How long one call waits for a key source that dawdles before it uses the keys there are.
PATIENCE_SECONDS = 1.0
MIN_RSA_BITS = 2048
MAX_RATE = 1_000_000
SERVICE_TOKEN_SECONDS = 300


class KeySource(Protocol):
    """Where public keys come from."""

    @property
    def is_complete(self) -> bool:
        """Whether the current key set holds all that there should be; until then an unknown key may be a good one."""
        ...

    async def keys(self, *, refresh: bool) -> KeySet:
        """The current key set; with `refresh` read it again, if the last reading is old enough."""
        ...


class JwksSource:
    """Key sets from files or https URLs, separated by commas; a component.

    Of each the last good set is kept when a reading fails; one that was never read may hold any key that is not known.
    A hub whose partners' tokens come from an issuer of their own names the issuer's set and its own, which its service
    tokens are checked with.
    """

    def __init__(self, location: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._locations = list(dict.fromkeys(each for part in location.split(",") if (each := part.strip())))
        for each in self._locations:
            if each.startswith("http://"):
                raise ConfigurationError(f"HUB_JWT_JWKS={each} is not encrypted; use https or a file")
        self._now = now
        self._sets: dict[str, KeySet] = {}
        self._keys: KeySet | None = None
        self.is_complete = False
        self._read_at = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._https: HttpsKeySets | None = None

    async def keys(self, *, refresh: bool) -> KeySet:
        """The current key set; one reading at a time serves every caller.

        Raises: ConfigurationError when it could never be read.
        """
        age = self._now() - self._read_at
        if self._keys is None or age >= (REFRESH_SECONDS if refresh else RENEW_SECONDS):
            if self._reading is None or self._reading.done():
                self._read_at = self._now()
                self._reading = asyncio.create_task(self._read(), name="key-set")
            if self._keys is None or refresh or age >= CACHE_SECONDS:
                await asyncio.wait([self._reading], timeout=PATIENCE_SECONDS if self._keys else None)
        elif refresh and self._reading is not None:
            await asyncio.wait([self._reading], timeout=PATIENCE_SECONDS)
        if self._keys is None:
            raise ConfigurationError(
                f"The key set {', '.join(self._locations)} cannot be read; `hub keys` makes one, "
                "or set HUB_JWT_JWKS to your issuer's"
            )
        return self._keys

    async def start(self) -> None:
        """Read the key set. Raises: ConfigurationError."""
        await self.keys(refresh=False)

    async def stop(self) -> None:
        """Close the connection to the key source."""
        if self._https is not None:
            https, self._https = self._https, None
            await https.close()

    async def _read(self) -> None:
        for location in self._locations:
            try:
                self._sets[location] = read_key_set(await self._fetch(location))
            except (OSError, ValueError) as error:
                reason = type(error.__cause__ or error).__name__
                log.warning("Key set cannot be read", location=location, reason=reason)
        if self._sets:
            self._keys = KeySet([key for each in self._sets.values() for key in each.keys])
            self.is_complete = len(self._sets) == len(self._locations)

    async def _fetch(self, location: str) -> bytes:
        if not location.startswith("https://"):
            return await asyncio.to_thread(Path(location).read_bytes)
        if self._https is None:
            from chassis.https_key_sets import HttpsKeySets  # its imports are paid for only when they are used

            self._https = HttpsKeySets()
        return await self._https.fetch(location)


def read_key_set(text: bytes) -> KeySet:
    """Read a JWKS; keys of other kinds or uses are left out (RFC 7517, 5), as are those too short to trust.

    Raises: ValueError when it is no key set.
    """
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    entries = document.get("keys") if isinstance(document, dict) else None
    if entries is None or not isinstance(entries, list):
        raise ValueError("there is no list of keys")
    return KeySet([key for entry in entries if (key := _read_key(entry)) is not None])


def _read_key(entry: object) -> Key | None:
    if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP") or entry.get("use", "sig") != "sig":
        return None
    try:
        if entry["kty"] == "RSA" and 8 * len(urlsafe_b64decode(entry["n"] + "==")) < MIN_RSA_BITS:
            return None
        return JWKRegistry.import_key(entry)
    except (JoseError, ValueError, TypeError, LookupError):
        return None


class TokenVerifier:
    """Turns a token into its Caller; verified tokens are remembered for up to CACHE_SECONDS."""

    def __init__(self, source: KeySource, *, issuer: str, audience: str, now: Callable[[], float] = time.time) -> None:
        self._source = source
        self._issuer = issuer
        self._audience = audience
        self._now = now
        self._verified: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()

    async def verify_header(self, header: str | None) -> Caller:
        """Verify the value of an Authorization header or metadata entry.

        Raises: Unauthenticated with a reason that says what to do; KeySetUnavailable when the key it names may be in a
        set that could not be read yet.
        """
        header = header or ""
        digest = hashlib.sha256(header.encode()).digest()  # what is remembered holds no token
        cached = self._verified.get(digest)
        if cached is not None and cached[0] > self._now():
            return cached[1]
        caller = await self._verify(_bearer_token(header))
        self._verified[digest] = (min(caller.expires_at, self._now() + CACHE_SECONDS), caller)
        while len(self._verified) > CACHE_SIZE:
            self._verified.popitem(last=False)
        return caller

    async def _verify(self, token: str) -> Caller:
        for refresh in (False, True):
            keys = await self._source.keys(refresh=refresh)
            try:
                decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
                for part in token.split(".")[:2]:
                    check_json(urlsafe_b64decode(part + "=="))  # a claim twice, NaN: which would count?
            except (JoseError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
                if refresh:
                    if not self._source.is_complete and _is_of_an_unknown_key(token, keys, error):
                        raise KeySetUnavailable("Tokens cannot be checked now; repeat the call in a moment.") from error
                    raise Unauthenticated("The token's signature is not valid here; ask for a new one.") from error
                continue
            # the hub knows no extension that could be critical; an empty list is not allowed (RFC 7515, 4.1.11)
            if "crit" in decoded.header or str(decoded.header.get("typ", "JWT")).lower() not in TYPES:
                raise Unauthenticated("The token is not an access token; ask for one.")
            return self._caller(decoded.claims)
        raise AssertionError("unreachable")

    def _caller(self, claims: dict[str, object]) -> Caller:
        now = self._now()
        expires_at, not_before, issued_at = claims.get("exp"), claims.get("nbf", 0), claims.get("iat", 0)
        if not _is_number(expires_at) or expires_at + LEEWAY_SECONDS <= now:  # type: ignore[operator]  # checked
            raise Unauthenticated("The token has expired; ask for a new one.")
        if expires_at > now + MAX_LIFETIME_SECONDS:  # type: ignore[operator]  # checked
            raise Unauthenticated("The token is valid for more than a year; ask for a shorter one.")
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
        return Caller(
            subject=subject,
            partner_id=partner_id,
            scopes=_scopes(claims),
            expires_at=float(expires_at) + LEEWAY_SECONDS,  # type: ignore[arg-type]  # checked above
            limits=_limits(claims),
        )


class TokenSigner:
    """Makes tokens with the private key set of this hub."""

    def __init__(self, key_file: Path, *, issuer: str, audience: str) -> None:
        """Read the key and try it. Raises: ConfigurationError when it cannot be read, or cannot sign."""
        self._issuer = issuer
        self._audience = audience
        try:
            self._key = KeySet.import_key_set(json.loads(key_file.read_text())).keys[0]
            self.sign(subject="", scopes=(), seconds=0)
        except OSError as error:
            raise ConfigurationError(
                f"The signing key {key_file} cannot be read; `hub up` makes one at its first start, "
                "`hub keys` at once; or set HUB_SERVICE_KEY"
            ) from error
        except (ValueError, LookupError, TypeError, RecursionError, JoseError) as error:
            raise ConfigurationError(
                f'The signing key {key_file} is no JWK set {{"keys": [...]}} whose first key is a private one of the '
                "curve P-256; `hub keys` makes one in the state folder, and HUB_SERVICE_KEY names another"
            ) from error

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
        self._made_at = -math.inf

    def header(self) -> str:
        """The value of `authorization`."""
        # by the clock that its end is read on: a machine that slept, or whose clock was set, must not send an old one
        if not 0 <= time.time() - self._made_at < SERVICE_TOKEN_SECONDS / 2:
            self._made_at = time.time()
            token = self._signer.sign(
                subject=f"service:{self._service}", scopes=self._scopes, seconds=SERVICE_TOKEN_SECONDS
            )
            self._header = f"Bearer {token}"
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


def _bearer_token(header: str) -> str:
    """Raises: Unauthenticated when there is none that could be a signed JWT."""
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("Send a token: Authorization: Bearer <JWT>.")
    if len(token) > MAX_TOKEN_BYTES or token.count(".") != 2 or not token.isascii():
        raise Unauthenticated("The token is not a signed JWT; ask for a new one.")
    return token


def _is_of_an_unknown_key(token: str, keys: KeySet, error: Exception) -> bool:
    """Whether a token was refused for nothing else than that none of the keys is the one it names."""
    if not isinstance(error, InvalidKeyIdError):
        return False
    kid = extract_compact(token.encode()).headers().get("kid")
    return kid not in [key.kid for key in keys]


def _scopes(claims: dict[str, object]) -> frozenset[str]:
    """Read `scope` (RFC 8693: words in one string) or the list forms `scope` and `scopes`."""
    scope = claims.get("scope", claims.get("scopes", ""))
    words = scope.split() if isinstance(scope, str) else scope if isinstance(scope, list) else []
    return frozenset(word for word in words if isinstance(word, str))


def _limits(claims: dict[str, object]) -> PartnerLimits:
    """Raises: Unauthenticated for a limit that cannot be one: what is meant to limit must not open."""
    rate = claims.get("rate_per_minute")
    if rate is not None and (not isinstance(rate, int) or isinstance(rate, bool) or not 0 <= rate <= MAX_RATE):
        raise Unauthenticated(f"`rate_per_minute` must be a whole number from 0 to {MAX_RATE}.")
    return PartnerLimits(sources=_names(claims, "sources"), targets=_names(claims, "targets"), rate_per_minute=rate)


def _names(claims: dict[str, object], claim: str) -> frozenset[str] | None:
    names = claims.get(claim)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Unauthenticated(f"`{claim}` must be a list of names.")
    return frozenset(names)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
