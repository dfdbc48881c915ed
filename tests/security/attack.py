"""How the attacks are made and judged: forged tokens, raw sockets, and what every answer must be."""

import asyncio
import base64
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from chassis.settings import split_address
from console.testing import HubProcess

PATH = "/api/integration-requests"
ORDER = '{"orderId":"ORD-1","customer":"Empresa ABC","amount":15000.00}'
NOBODY = "00000000-0000-4000-8000-000000000000"
#: What an answer must not hold: a stack trace, a path of ours, a library's words.
TELLTALES = ("Traceback", 'File "', ".py", "sqlalchemy", "sqlite", "joserfc", "msgspec", "asyncio", "site-packages")
#: A caller beside an attack is not held up for longer, or for longer than this many times what it waits anyway.
STALL_SECONDS = 0.1
STALL_FACTOR = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back over a raw socket; status 0 when the connection was closed without a word."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def b64(data: bytes) -> str:
    """Write base64url without padding, as JWTs have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Forge:
    """Makes tokens, good ones and others, with this hub's own private key or a stranger's."""

    def __init__(self, hub: HubProcess) -> None:
        folder = Path(hub.setting("state_dir")) / "keys"
        self.public: dict[str, Any] = json.loads((folder / "jwks.json").read_text())["keys"][0]
        private = json.loads((folder / "private.json").read_text())["keys"][0]
        self._own = ec.derive_private_key(int.from_bytes(_unb64(private["d"])), ec.SECP256R1())
        self.own_public = self._own.public_key()
        self.stranger = ec.generate_private_key(ec.SECP256R1())

    def header(self, **changes: object) -> dict[str, object]:
        """The header of a good token, changed."""
        return {"alg": "ES256", "kid": self.public["kid"], "typ": "JWT", **changes}

    def claims(self, **changes: object) -> dict[str, object]:
        """The claims of a good token, changed; a value of None leaves the claim out."""
        now = int(time.time())
        good = {"iss": "integration-hub", "aud": "integration-hub", "sub": "mallory", "iat": now, "nbf": now}
        good |= {"exp": now + 600, "scope": "requests:read requests:write"}
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def token(self, header: object, claims: object, *, by_stranger: bool = False) -> str:
        """Sign with ES256, whatever the header says; texts are taken as they are."""
        parts = [part if isinstance(part, str) else json.dumps(part) for part in (header, claims)]
        signed = ".".join(b64(part.encode("utf-8", "surrogatepass")) for part in parts)
        key = self.stranger if by_stranger else self._own
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{b64(r.to_bytes(32) + s.to_bytes(32))}"

    def good(self, **changes: object) -> str:
        """A token that is good but for the changed claims."""
        return self.token(self.header(), self.claims(**changes))


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


def create(external_id: str, payload: str = ORDER, **fields: str) -> bytes:
    """The body of a create."""
    names = {"externalId": external_id, "sourceSystem": "SAP", "targetSystem": "TotvsProtheus", **fields}
    members = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in names.items())
    return f'{{{members},"payload":{payload}}}'.encode("utf-8", "surrogatepass")


def assert_safe(response: httpx.Response, *statuses: int) -> None:
    """One of the statuses, the correlation id, and nothing that tells how the hub is made."""
    assert response.status_code in statuses, (response.status_code, response.text[:300])
    assert_says_nothing(response.headers, response.content)


def assert_says_nothing(headers: Mapping[str, str], body: bytes) -> None:
    """The correlation id is there; no stack, no path, no library."""
    lowered = {name.lower(): value for name, value in headers.items()}
    correlation_id = lowered["x-correlation-id"]
    assert correlation_id.replace("-", "").replace("_", "").replace(".", "").isalnum()
    assert lowered["x-content-type-options"] == "nosniff"
    text = body.decode(errors="replace")
    assert not [word for word in TELLTALES if word in text], text[:500]


def assert_refused(error: grpc.aio.AioRpcError, *codes: str) -> None:
    """One of the codes, and nothing that tells how the hub is made."""
    assert error.code().name in codes, (error.code().name, error.details())
    assert not [word for word in TELLTALES if word in (error.details() or "")], error.details()


async def send_raw(hub: HubProcess, data: bytes, *, seconds: float = 15.0, end: bool = False) -> Answer:
    """Write bytes to the gateway and read its first answer; `end` closes our side after them."""
    host, port = split_address(hub.setting("gateway_address"))
    reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(seconds):
            try:
                writer.write(data)
                await writer.drain()
                if end:
                    writer.write_eof()
            except OSError:
                pass  # it has refused already; its answer may still be there to read
            return await _read_answer(reader)
    finally:
        writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, OSError):
        return Answer(status=0, headers={}, body=b"")
    status_line, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    length = int({name.lower(): value for name, value in headers.items()}.get("content-length", "0"))
    try:
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, OSError):
        body = b""
    return Answer(status=int(status_line.split(" ")[1]), headers=headers, body=body)


class Neighbour:
    """A partner who does nothing wrong; how long it waits says whether an attack holds it up."""

    def __init__(self, hub: HubProcess) -> None:
        header = {"Authorization": f"Bearer {hub.token('neighbour')}"}
        self.client = httpx.AsyncClient(base_url=hub.base_url, headers=header, timeout=20)

    async def waits(self, calls: int = 15) -> float:
        """The median of some calls, in seconds."""
        times = []
        for _ in range(calls):
            started = time.perf_counter()
            response = await self.client.get(PATH, params={"limit": 1})
            times.append(time.perf_counter() - started)
            assert response.status_code == 200, response.text
        return statistics.median(times)


def memory_mb(pids: Mapping[str, int]) -> float:
    """What the processes hold themselves, in MiB."""
    total = 0
    for pid in pids.values():
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024
