"""Bearer tokens: the fixed one of the configuration, and those issued by the OAuth2 token endpoint."""

import base64
import binascii
import secrets
import time
from urllib.parse import parse_qsl

from simulator.answers import Answer, json_answer

WRONG = "wrong"


class Tokens:
    """Issue tokens and recognise them until they expire."""

    def __init__(self, fixed_token: str) -> None:
        self._fixed_header = b"Bearer " + fixed_token.encode()
        self._expiry: dict[str, float] = {}

    def accepts(self, authorization: bytes | None) -> bool:
        """Tell whether an Authorization header carries a token that is valid now."""
        if authorization is None:
            return False
        if authorization == self._fixed_header:
            return True
        scheme, _, token = authorization.partition(b" ")
        normal = b"Bearer " + token.strip()
        if scheme.lower() != b"bearer":
            return False
        return normal == self._fixed_header or self._expiry.get(normal[7:].decode("latin-1"), 0.0) > time.monotonic()

    def issue(self, seconds: float) -> str:
        """Make a token with the given life."""
        now = time.monotonic()
        self._expiry = {token: expiry for token, expiry in self._expiry.items() if expiry > now}
        token = secrets.token_urlsafe(24)
        self._expiry[token] = now + seconds
        return token


def answer_token_request(tokens: Tokens, seconds: float, authorization: str | None, form: bytes) -> Answer:
    """Answer a token request (RFC 6749, 4.3 and 4.4): any id and secret will do, except the secret `wrong`."""
    fields = dict(parse_qsl(form.decode("latin-1")))
    client_id, client_secret = _client_credentials(authorization, fields)
    match fields.get("grant_type"):
        case "client_credentials":
            known = bool(client_id) and client_secret not in ("", WRONG)
            refusal = json_answer(401, {"error": "invalid_client"})
        case "password":
            known = bool(fields.get("username")) and fields.get("password", "") not in ("", WRONG)
            refusal = json_answer(401, {"error": "invalid_grant"})
        case _:
            return json_answer(400, {"error": "unsupported_grant_type"})
    if not known:
        return refusal
    return json_answer(
        200, {"access_token": tokens.issue(seconds), "token_type": "Bearer", "expires_in": seconds, "scope": "default"}
    )


def _client_credentials(authorization: str | None, fields: dict[str, str]) -> tuple[str, str]:
    if authorization is not None and authorization.lower().startswith("basic "):
        try:
            client_id, _, client_secret = base64.b64decode(authorization[6:], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return client_id, client_secret
    return fields.get("client_id", ""), fields.get("client_secret", "")
