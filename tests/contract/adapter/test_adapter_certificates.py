"""A system, or a token endpoint, whose certificate nobody vouches for: told nothing, and left alone without a loss."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from structlog.testing import capture_logs

from integrationhub.adapter.v1 import adapter_pb2 as pb
from tests.certificates import Authority
from tests.contract.adapter.conftest import System
from tests.tls_front import tls_front


@pytest.fixture
async def untrusted_url(system: System, tmp_path: Path) -> AsyncIterator[str]:
    """Where the system is served over TLS, with a certificate of an authority that this machine does not know."""
    url = urlsplit(system.table["base_url"])
    assert url.port is not None
    files = Authority.make(tmp_path / "ca").files("system")
    async with tls_front(files, url.port) as port:
        yield urlunsplit(url._replace(scheme="https", netloc=f"127.0.0.1:{port}"))


async def test_a_certificate_that_is_not_trusted_pauses_the_target_and_spends_nothing(
    system: System, untrusted_url: str
) -> None:
    system.extra["base_url"] = untrusted_url

    response = await system.deliver()

    assert (response.outcome, response.credentials_refused) == (pb.OUTCOME_UNAVAILABLE, True)
    assert response.retry_after.ToSeconds() == 60
    assert "certificate of 127.0.0.1" in response.detail
    assert await system.calls() == []


async def test_a_lookup_at_a_system_that_is_not_trusted_pauses_the_target_too(
    system: System, untrusted_url: str
) -> None:
    system.extra["base_url"] = untrusted_url

    response = await system.lookup("id-1")

    assert (response.outcome, response.retry_after.ToSeconds()) == (pb.LOOKUP_OUTCOME_NOT_KNOWN, 60)
    assert response.credentials_refused
    assert await system.calls() == []


async def test_a_token_endpoint_that_is_not_trusted_gets_no_secret_and_pauses_the_target(
    system: System, untrusted_url: str
) -> None:
    system.extra["auth"] = {
        "kind": "oauth2",
        "token_url": f"{untrusted_url}/oauth2/token",
        "client_id": "hub",
        "client_secret": "env:TOKEN_SECRET",
    }

    response = await system.deliver()

    assert (response.credentials_refused, response.retry_after.ToSeconds()) == (True, 60)
    assert "token endpoint" in response.detail
    assert await system.calls() == []


async def test_the_log_says_which_certificate_is_not_trusted_and_why(system: System, untrusted_url: str) -> None:
    system.extra["base_url"] = untrusted_url
    await system.started()
    with capture_logs() as lines:
        await system.deliver()

    (line,) = [each for each in lines if each["event"] == "Certificate not trusted"]
    assert (line["log_level"], line["system"], line["pause_seconds"]) == ("error", system.name, 60)
    assert f"certificate of {urlsplit(untrusted_url).netloc} is not accepted" in line["detail"]
