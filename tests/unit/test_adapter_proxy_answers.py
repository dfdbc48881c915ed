"""What a proxy in front of a system says is not the system's word: whether it passed the request on decides."""

import json
from typing import Any

import pytest

from adapter_service.adapters.base import verdict_of_status
from adapter_service.answers import Answer, read_answer
from adapter_service.outcome import Unavailable, Unknown
from chassis.http_client import HttpAnswer

ENVOY = "upstream connect error or disconnect/reset before headers"
FASTLY = "<html><head><title>503 first byte timeout</title></head><body>Error 503 first byte timeout</body></html>"
VARNISH = "<!DOCTYPE html><html><head><title>503 Backend fetch failed</title></head><body>Guru Meditation</body></html>"
HEROKU = (
    "<!DOCTYPE html><html><head><title>Application Error</title></head><body>"
    '<iframe src="//www.herokucdn.com/error-pages/application-error.html"></iframe></body></html>'
)


def answer(status: int, body: Any) -> Answer:
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    return read_answer(HttpAnswer(status=status, headers={}, body=content, is_complete=True))


@pytest.mark.parametrize(
    "body",
    [
        f"{ENVOY}. reset reason: connection termination",
        f"{ENVOY}. reset reason: remote reset",
        f"{ENVOY}. reset reason: protocol error",
        f"{ENVOY}. reset reason: overload manager reset",
        ENVOY,
        # The latest try alone was not sent: what became of those before it is not said.
        f"{ENVOY}. retried and the latest reset reason: remote connection failure",
        VARNISH,
        FASTLY,
        HEROKU,
        "first byte timeout",
        "between bytes timeout",
        "backend read error",
    ],
)
def test_a_503_of_a_proxy_that_passed_the_request_on_proves_nothing(body: str) -> None:
    assert type(verdict_of_status(answer(503, body))) is Unknown


@pytest.mark.parametrize(
    "body",
    [
        f"{ENVOY}. reset reason: connection failure",
        f"{ENVOY}. reset reason: connection failure, transport failure reason: delayed connect error: 111",
        f"{ENVOY}. reset reason: remote connection failure",
        f"{ENVOY}. reset reason: local connection failure",
        f"{ENVOY}. reset reason: connection timeout",
        f"{ENVOY}. reset reason: remote refused stream reset",
        f"{ENVOY}. reset reason: overflow",
        "no healthy upstream",
        "<html><head><title>503 Service Temporarily Unavailable</title></head></html>",
        "Service Unavailable",
        "",
        {"message": f"{ENVOY}. reset reason: connection termination"},
    ],
)
def test_a_503_of_a_request_that_was_not_passed_on_is_certain(body: Any) -> None:
    assert type(verdict_of_status(answer(503, body))) is Unavailable
