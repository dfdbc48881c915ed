"""The REST contract as one partner sees it. Bodies are passed on as text, so that no number loses a digit."""

import http.client
import json
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode

from chassis.access import REQUESTS_READ, REQUESTS_WRITE
from chassis.correlation import HEADER as CORRELATION_HEADER
from chassis.errors import HubError, OutcomeNotKnown, ServiceUnavailable
from chassis.settings import HubSettings, split_address
from chassis.tokens import TokenSigner
from console.configuration import connectable

PATH = "/api/integration-requests"
TOKEN_SECONDS = 900
TERMINAL = ("Completed", "Failed")
ACCEPTED, OK, NOT_MODIFIED = 202, 200, 304
#: Answers after which a poll goes on: too fast, or a part of the hub is away.
TEMPORARY = (429, 502, 503, 504)
#: The one answer of a hub in trouble that says what became of a create.
NOT_STORED = 503
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0
MAX_FOUND = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of the gateway."""

    status: int
    body: bytes
    etag: str
    retry_after: str


class RestClient:
    """Calls the gateway with a token that this machine's own key has signed."""

    def __init__(self, settings: HubSettings, partner: str) -> None:
        self._address = connectable(settings.gateway_address)
        host, port = split_address(self._address)
        self._connection = _connection(settings, host, port)
        self._signer = TokenSigner(
            settings.effective_service_key, issuer=settings.jwt_issuer, audience=settings.jwt_audience
        )
        self._partner = partner

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._connection.close()

    def create(self, body: bytes, correlation_id: str | None, *, again: str) -> bytes:
        """Create a request and return the hub's answer; `again` says how to repeat the create as the same one.

        Raises: OutcomeNotKnown or ServiceUnavailable with `again` when it may be stored all the same; HubError when it
        was not accepted.
        """
        headers = {"Content-Type": "application/json"}
        if correlation_id is not None:
            headers[CORRELATION_HEADER] = correlation_id
        answer = self._call("POST", PATH, headers, body, again=again)
        if answer.status >= 500 and answer.status != NOT_STORED:
            raise OutcomeNotKnown(f"{refusal(answer).message}; {again}")
        return self._expect(ACCEPTED, answer).body

    def get(self, request_id: str) -> bytes:
        """Read a request. Raises: HubError when this partner has none with that id."""
        return self._own(self._poll(request_id, "")).body

    def find(self, correlation_id: str) -> tuple[list[str], bool]:
        """Find the ids of the requests with a correlation id, the newest first, 200 at most; says if there are more.

        Raises: HubError when there is none.
        """
        query = urlencode({"correlationId": correlation_id, "limit": MAX_FOUND})
        page = json.loads(self._expect(OK, self._call("GET", f"{PATH}?{query}", {})).body)
        items = page["items"]
        if not items:
            raise HubError(f"There is no integration request with correlation id {correlation_id}; {self._asked_as}")
        return [item["id"] for item in items], bool(page.get("nextCursor"))

    def wait_for_end(self, request_id: str, seconds: float) -> bytes:
        """Read a request again and again until it is terminal, over a restart of the hub too.

        Raises: OutcomeNotKnown when it is not terminal after `seconds`; HubError when it cannot be read at all.
        """
        deadline = time.monotonic() + seconds
        pause, etag = FIRST_PAUSE_SECONDS, ""
        while True:
            try:
                answer = self._poll(request_id, etag)
            except (ServiceUnavailable, OutcomeNotKnown):
                if time.monotonic() > deadline:
                    raise
            else:
                is_unchanged = answer.status == NOT_MODIFIED and bool(etag)
                if not is_unchanged and answer.status not in TEMPORARY:
                    body = self._expect(OK, answer).body
                    if status_of(body) in TERMINAL:
                        return body
                etag = answer.etag or etag
            if time.monotonic() > deadline:
                raise OutcomeNotKnown(
                    f"{request_id} is still under way after {seconds:g} s; `hub get {request_id}` reads it"
                )
            time.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 1.5)

    def history(self, request_id: str) -> bytes:
        """Read the history of a request. Raises: HubError when this partner has none with that id."""
        return self._own(self._call("GET", f"{PATH}/{quote(request_id, safe='')}/history", {})).body

    @property
    def _asked_as(self) -> str:
        """What an operator must know of a request that is not found: it may be another partner's."""
        return f"asked as the partner {self._partner}, and --partner names another"

    def _own(self, answer: Answer) -> Answer:
        if answer.status == 404:
            raise HubError(f"{refusal(answer).message}; {self._asked_as}")
        return self._expect(OK, answer)

    def _expect(self, status: int, answer: Answer) -> Answer:
        """Take the one good answer to a call. Raises: HubError for every other."""
        if answer.status == status and answer.body.startswith(b"{"):
            return answer
        if answer.status < 400:
            raise HubError(
                f"What answers at {self._address} is no hub (status {answer.status} where {status} was due); "
                "check HUB_GATEWAY_ADDRESS and what stands before it"
            )
        raise refusal(answer)

    def _poll(self, request_id: str, etag: str) -> Answer:
        """Ask for a request unless it is still the version `etag`."""
        headers = {"If-None-Match": etag} if etag else {}
        again = f"`hub get {request_id}` asks again"
        return self._call("GET", f"{PATH}/{quote(request_id, safe='')}", headers, again=again)

    def _call(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None, *, again: str = "ask again"
    ) -> Answer:
        scopes = (REQUESTS_WRITE, REQUESTS_READ)
        token = self._signer.sign(subject=self._partner, scopes=scopes, seconds=TOKEN_SECONDS)
        try:
            self._connection.request(method, path, body, {"Authorization": f"Bearer {token}", **headers})
            response = self._connection.getresponse()
            return Answer(
                status=response.status,
                body=response.read(),
                etag=response.headers.get("ETag", ""),
                retry_after=response.headers.get("Retry-After", ""),
            )
        except ConnectionRefusedError as error:
            raise ServiceUnavailable(
                f"The hub is not running at {self._address}; start it with `make run` or `hub up`"
            ) from error
        except TimeoutError as error:
            raise OutcomeNotKnown(f"The hub at {self._address} did not answer in time; {again}") from error
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ServiceUnavailable(f"The call to the hub at {self._address} broke off ({error}); {again}") from error


def _connection(settings: HubSettings, host: str, port: int) -> http.client.HTTPConnection:
    if not settings.gateway_tls_certificate:
        return http.client.HTTPConnection(host, port, timeout=settings.rpc_timeout_seconds)
    import ssl

    # what the machine trusts, the hub's own authority, and the gateway's certificate itself
    context = ssl.create_default_context()
    for path in filter(None, (settings.tls_ca, settings.gateway_tls_certificate)):
        context.load_verify_locations(path)
    return http.client.HTTPSConnection(host, port, timeout=settings.rpc_timeout_seconds, context=context)


def status_of(body: bytes) -> str:
    """Read the status out of a request's body."""
    return str(json.loads(body)["status"])


def refusal(answer: Answer) -> HubError:
    """Tell in one line what a problem+json body says."""
    try:
        problem = json.loads(answer.body)
        text = str(problem.get("detail") or problem.get("title") or f"status {answer.status}")
        faults = [f"{fault['pointer']}: {fault['detail']}" for fault in problem.get("errors", [])]
        correlation_id = problem.get("correlationId", "")
    except (ValueError, TypeError, KeyError, AttributeError):
        text, faults, correlation_id = f"The hub answered with status {answer.status}", [], ""
    parts = [f"{text.rstrip('.')} ({'; '.join(faults)})" if faults else text.rstrip(".")]
    if answer.retry_after:
        parts.append(f"repeat it after {answer.retry_after} s")
    if correlation_id:
        parts.append(f"correlation id {correlation_id}")
    return HubError("; ".join(parts))
