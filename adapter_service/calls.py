"""The calls of one target: headers, credentials, one repetition after 401, and an answer that can be read.

A call is sent once. Only a 401, which was certainly not applied, is followed by one more with renewed credentials.
"""

from collections.abc import Mapping, Sequence

from adapter_service.answers import Answer, read_answer
from adapter_service.auth import Credentials, distrust, refusal
from adapter_service.delivery import Delivery, Question
from adapter_service.masked_paths import Path
from chassis.correlation import HEADER, TRACEPARENT
from chassis.http_client import CertificateNotTrusted, HttpClient

IDEMPOTENCY_KEY = "Idempotency-Key"


class TargetCalls:
    """What an adapter calls its system with."""

    def __init__(
        self, system: str, http: HttpClient, credentials: Credentials, masked_paths: Sequence[Path] = ()
    ) -> None:
        self._system = system
        self._http = http
        self._credentials = credentials
        self._masked_paths = masked_paths

    async def post(
        self,
        url: str,
        body: bytes,
        delivery: Delivery,
        *,
        deadline: float,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a document.

        Raises: NotSent, CredentialsRefused among it, when it is certainly not applied; NoAnswer when it may be.
        """
        wanted = {
            "Content-Type": "application/json",
            IDEMPOTENCY_KEY: delivery.request_id,
            **_headers(delivery, headers),
        }
        return await self._send(method, url, wanted, deadline, body)

    async def get(
        self, url: str, question: Question, *, deadline: float, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask the system. Raises: NotSent; NoAnswer."""
        return await self._send("GET", url, _headers(question, headers), deadline, None)

    async def stop(self) -> None:
        """Give up a renewal of credentials that is under way."""
        await self._credentials.stop()

    async def _send(
        self, method: str, url: str, headers: dict[str, str], deadline: float, body: bytes | None
    ) -> Answer:
        authorization = await self._credentials.header(deadline)
        if authorization:
            headers["Authorization"] = authorization
        try:
            answer = await self._http.send(method, url, headers=headers, deadline=deadline, body=body)
            if answer.status == 401:
                headers["Authorization"] = await self._credentials.renewed(authorization, deadline)
                answer = await self._http.send(method, url, headers=headers, deadline=deadline, body=body)
        except CertificateNotTrusted as error:
            raise distrust(self._system, error.detail) from error
        if answer.status == 401:
            raise refusal(self._system, "401")
        return read_answer(answer, self._credentials.secrets, self._masked_paths)


def _headers(question: Question, others: Mapping[str, str] | None) -> dict[str, str]:
    headers = {HEADER: question.correlation_id}
    if question.traceparent:
        headers[TRACEPARENT] = question.traceparent
    if others:
        headers.update(others)
    return headers
