"""How calls to a target prove who they are: the Authorization header, its renewal, and what to do when it is refused.

Trouble with credentials is ours, not the partner's: it ends in NotSent with a pause for the whole target, so that no
request fails for it and a wrong password is not tried until the account is locked. A certificate that is not trusted is
the same trouble from the other side: the system's credentials, which we do not take.
"""

import asyncio
import base64
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

import msgspec

from chassis.errors import ConfigurationError
from chassis.http_client import CertificateNotTrusted, HttpAnswer, HttpClient, NoAnswer, NotSent
from chassis.logs import get_logger
from chassis.secret_refs import read_secret
from chassis.targets import Auth, Target

log = get_logger()

TOKEN_CALL_SECONDS = 10.0
DEFAULT_LIFE_SECONDS = 3600.0
#: A token is renewed before it ends: so long, or a tenth of its life when that is less.
EARLY_SECONDS = 30.0
#: How long a token that is good still is used before a renewal that failed is made again.
RENEW_AGAIN_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3600.0
BY_TOKEN_ENDPOINT = "credentials refused by the token endpoint"


class CredentialsRefused(NotSent):
    """The system, or its token endpoint, does not take our credentials, or we not its own; nothing was applied."""

    def __init__(self, detail: str, *, code: str, retry_after_seconds: float) -> None:
        super().__init__(detail, retry_after_seconds=retry_after_seconds)
        #: The HTTP status that said so; '' for a certificate.
        self.code = code


def refusal(
    system: str, code: str, detail: str = "credentials refused", pause_seconds: float = FIRST_PAUSE_SECONDS
) -> CredentialsRefused:
    """Say in the log that an answer refused our credentials; gives what to raise."""
    log.error("Credentials refused", system=system, code=code, pause_seconds=pause_seconds)
    return CredentialsRefused(detail, code=code, retry_after_seconds=pause_seconds)


def distrust(system: str, detail: str) -> CredentialsRefused:
    """Say in the log that a certificate is not accepted; gives what to raise."""
    log.error("Certificate not trusted", system=system, detail=detail, pause_seconds=FIRST_PAUSE_SECONDS)
    return CredentialsRefused(detail, code="", retry_after_seconds=FIRST_PAUSE_SECONDS)


class Credentials(Protocol):
    """The Authorization header of one target."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that must not be kept or shown."""
        ...

    async def header(self, deadline: float) -> str:
        """The header's value, '' for none. Raises: NotSent."""
        ...

    async def renewed(self, refused: str, deadline: float) -> str:
        """The value to try once more after `refused` was answered with 401. Raises: NotSent."""
        ...

    async def stop(self) -> None:
        """Give up a renewal that is under way."""
        ...


def make_credentials(target: Target, http: HttpClient, folder: Path) -> Credentials:
    """Make what `target.auth` describes; relative secret files are found from `folder`.

    Raises: ConfigurationError that names the target when a secret cannot be read.
    """
    credentials = OAuth2(target, http, folder) if target.auth.kind == "oauth2" else FixedHeader(target, folder)
    try:
        credentials.read_secrets()
    except ConfigurationError as error:
        raise ConfigurationError(f"targets.{target.name}: auth: {error.message}") from error
    return credentials


class FixedHeader:
    """No authorization, a bearer token or a name and password, as the configuration has them."""

    def __init__(self, target: Target, folder: Path) -> None:
        self._target = target
        self._folder = folder
        self._header = ""
        self.secrets: tuple[str, ...] = ()

    def read_secrets(self) -> None:
        """Read the secrets again. Raises: ConfigurationError."""
        auth = self._target.auth
        match auth.kind:
            case "bearer":
                token = _read(auth.token, self._folder)
                if not _is_header_text(token):
                    raise ConfigurationError(f"the token {auth.token} holds characters that no header can carry")
                self.secrets = (token,)
                self._header = f"Bearer {token}"
            case "basic":
                password = _read(auth.password, self._folder)
                pair = base64.b64encode(f"{auth.username}:{password}".encode()).decode()
                self.secrets = (password, pair)
                self._header = f"Basic {pair}"

    async def header(self, deadline: float) -> str:
        """The header's value."""
        del deadline
        return self._header

    async def renewed(self, refused: str, deadline: float) -> str:
        """Read the secret again, for it may have been rotated. Raises: CredentialsRefused when it is the same."""
        del deadline
        try:
            self.read_secrets()
        except ConfigurationError as error:
            raise refusal(self._target.name, "401", f"credentials refused: {error.message}") from error
        if self._header == refused:
            raise refusal(self._target.name, "401")
        return self._header

    async def stop(self) -> None:
        """Do nothing."""


class OAuth2:
    """A token from the token endpoint (RFC 6749), one request for it at a time however many calls wait.

    With a username it is the password grant, which is Protheus' own, else client credentials. Both travel in the form.
    """

    def __init__(self, target: Target, http: HttpClient, folder: Path) -> None:
        self._target = target
        self._http = http
        self._folder = folder
        self._form: dict[str, str] = {}
        self._form_secrets: tuple[str, ...] = ()
        self._header = ""
        self._renew_at = 0.0
        self._ends_at = 0.0
        self._fetching: asyncio.Task[str] | None = None
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._paused_until = 0.0
        #: The HTTP status of the token endpoint's last refusal.
        self._refusal_code = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that must not be kept or shown."""
        return (*self._form_secrets, self._header.removeprefix("Bearer "))

    def read_secrets(self) -> None:
        """Read the secrets again. Raises: ConfigurationError."""
        auth = self._target.auth
        secret = _read(auth.client_secret, self._folder) if auth.client_secret else ""
        password = _read(auth.password, self._folder) if auth.password else ""
        self._form = _form(auth, secret, password)
        self._form_secrets = (secret, password)

    async def header(self, deadline: float) -> str:
        """The header's value. Raises: NotSent.

        A token that is about to end is renewed beside the calls, which use it while it is good; once it has ended they
        wait for the next.
        """
        now = asyncio.get_running_loop().time()
        if self._header and now < self._ends_at:
            if now >= self._renew_at and now >= self._paused_until:
                self._renew_at = now + RENEW_AGAIN_SECONDS
                self._begin_fetch()
            return self._header
        return await self._fetch_once(deadline)

    async def renewed(self, refused: str, deadline: float) -> str:
        """Fetch a token unless another call has done so since. Raises: NotSent."""
        if self._header == refused:
            self._header = ""
        return await self.header(deadline)

    async def stop(self) -> None:
        """Give up a request for a token that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    async def _fetch_once(self, deadline: float) -> str:
        pause = self._paused_until - asyncio.get_running_loop().time()
        if pause > 0:
            raise CredentialsRefused(BY_TOKEN_ENDPOINT, code=self._refusal_code, retry_after_seconds=pause)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(self._begin_fetch())
        except TimeoutError as error:
            raise NotSent("no token in time") from error

    def _begin_fetch(self) -> asyncio.Task[str]:
        """The request for a token that is under way, or a new one."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _fetched(self, task: asyncio.Task[str]) -> None:
        self._fetching = None
        if not task.cancelled():
            task.exception()  # every waiter may be gone; asyncio would log an error that nobody saw

    async def _fetch(self) -> str:
        now = asyncio.get_running_loop().time()
        self._reread_secrets()
        try:
            answer = await self._http.send(
                "POST",
                self._target.auth.token_url,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=urlencode(self._form).encode(),
                deadline=now + TOKEN_CALL_SECONDS,
            )
        except CertificateNotTrusted as error:
            raise distrust(self._target.name, f"the token endpoint gave no token: {error.detail}") from error
        except (NotSent, NoAnswer) as error:
            raise NotSent(f"the token endpoint gave no token: {error.detail}") from error
        if answer.status in (400, 401, 403):
            raise self._refuse(now, answer.status)
        token, life_seconds = _read_token(answer)
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._ends_at = now + life_seconds
        self._renew_at = self._ends_at - min(EARLY_SECONDS, life_seconds / 10)
        self._header = f"Bearer {token}"
        return self._header

    def _refuse(self, now: float, status: int) -> CredentialsRefused:
        pause, self._pause_seconds = self._pause_seconds, min(self._pause_seconds * 2, LONGEST_PAUSE_SECONDS)
        self._paused_until = now + pause
        self._refusal_code = str(status)
        return refusal(self._target.name, self._refusal_code, BY_TOKEN_ENDPOINT, pause)

    def _reread_secrets(self) -> None:
        try:
            self.read_secrets()
        except ConfigurationError as error:
            raise NotSent(f"the credentials cannot be read: {error.message}") from error


class _TokenAnswer(msgspec.Struct):
    access_token: str
    expires_in: int | float | str | None = None


def _read_token(answer: HttpAnswer) -> tuple[str, float]:
    try:
        fields = msgspec.json.decode(answer.body, type=_TokenAnswer)
        life_seconds = float(fields.expires_in) if fields.expires_in else DEFAULT_LIFE_SECONDS
    except ValueError as error:
        raise NotSent(f"the token endpoint gave no token: HTTP {answer.status}") from error
    if answer.status != 200 or not _is_header_text(fields.access_token) or not life_seconds > 0:
        raise NotSent(f"the token endpoint gave no usable token: HTTP {answer.status}")
    return fields.access_token, life_seconds


def _form(auth: Auth, secret: str, password: str) -> dict[str, str]:
    if auth.username:
        fields = {"grant_type": "password", "username": auth.username, "password": password}
    else:
        fields = {"grant_type": "client_credentials"}
    fields |= {"client_id": auth.client_id, "client_secret": secret, "scope": auth.scope}
    return {name: value for name, value in fields.items() if value}


def _read(reference: str, folder: Path) -> str:
    secret = read_secret(reference, folder)
    if not secret or not secret.isprintable():
        raise ConfigurationError(f"the secret {reference} is empty, or not one line of text")
    return secret


def _is_header_text(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable()
