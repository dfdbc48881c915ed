"""A partner's calls as the REST tests make them: the seed's example, and how it is posted."""

from collections.abc import Mapping
from typing import Any

import httpx

from tests.fakes import GatewayUnderTest

PATH = "/api/integration-requests"
CORRELATION_ID = "550e8400-e29b-41d4-a716-446655440000"
# The seed, step 1, character for character.
SEED_BODY = b"""{
  "externalId": "PARTNER-12345",
  "sourceSystem": "SAP",
  "targetSystem": "TotvsProtheus",
  "payload": {
    "orderId": "ORD-2024-001",
    "customer": "Empresa ABC",
    "amount": 15000.00
  }
}"""


def create_body(external_id: str, target_system: str = "TotvsProtheus", payload: str = "{}") -> bytes:
    """The body of a create."""
    text = f'{{"externalId":"{external_id}","sourceSystem":"SAP","targetSystem":"{target_system}","payload":{payload}}}'
    return text.encode()


async def post(
    client: httpx.AsyncClient,
    hub: GatewayUnderTest,
    body: bytes = SEED_BODY,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Create a request with a token of the partner acme; `headers` replace those of the seed."""
    sent = {**hub.header(), "Content-Type": "application/json", "X-Correlation-ID": CORRELATION_ID}
    return await client.post(PATH, content=body, headers={**sent, **(headers or {})})


def assert_problem(answer: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    """Fail unless the answer is a problem document of this kind; gives the document."""
    problem: dict[str, Any] = answer.json()
    assert answer.status_code == status, problem
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert problem["type"] == f"urn:integration-hub:problem:{reason}"
    assert (problem["status"], problem["instance"]) == (status, answer.request.url.raw_path.decode().partition("?")[0])
    assert problem["correlationId"] == answer.headers["X-Correlation-ID"]
    assert problem["title"]
    assert problem["detail"].endswith(".")
    return problem
