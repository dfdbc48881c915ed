"""A whole hub whose every link is encrypted: HTTPS for partners, mutual TLS between the services."""

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from chassis.testing import eventually
from console.testing import HubProcess
from tests.certificates import Authority
from tests.rest import PATH, create_body


@pytest.mark.timeout(180)
async def test_an_order_completes_over_encrypted_links_alone(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "authority")
    certificate, key = map(str, authority.issue("hub"))
    hub = HubProcess(
        tmp_path,
        tls_certificate=certificate,
        tls_key=key,
        tls_ca=str(authority.path),
        tls_client_auth="true",
        gateway_tls_certificate=certificate,
        gateway_tls_key=key,
    )
    trust = ssl.create_default_context(cafile=str(authority.path))
    headers = {"Content-Type": "application/json"}
    async with hub, httpx.AsyncClient(base_url=hub.base_url, verify=trust, timeout=20) as partner:
        headers["Authorization"] = f"Bearer {hub.token('acme')}"
        accepted = await partner.post(
            PATH, content=create_body("E-1", payload='{"orderId":"1","customer":"A","amount":1.00}'), headers=headers
        )

        async def has_ended() -> bool:
            body = (await partner.get(accepted.headers["Location"], headers=headers)).json()
            return str(body["status"]) == "Completed"

        ended = await eventually(has_ended, 30)
        listed = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "console", "dead-letters", "list", "--json"],
            env=hub.environment,
            capture_output=True,
            check=False,
        )

    assert accepted.status_code == 202
    assert ended
    assert (listed.returncode, listed.stderr) == (0, b"")
