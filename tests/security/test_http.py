"""A11 and A14 to A17: HTTP that is wrong on purpose. Cut off or refused; the others go on."""

import asyncio
import contextlib
import time

import httpx
import pytest

from chassis.settings import split_address
from console.testing import HubProcess
from tests.security.attack import (
    PATH,
    STALL_FACTOR,
    STALL_SECONDS,
    Forge,
    Neighbour,
    assert_safe,
    assert_says_nothing,
    create,
    send_raw,
)

HOST = b"Host: hub\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\n" + HOST
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: smuggled\r\n\r\n"
#: Stands for a good token: whatever is refused is refused for what is wrong with it.
TOKEN = b"<token>"
POST = f"POST {PATH} HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n".encode()
POST += b"Authorization: Bearer " + TOKEN + b"\r\n"
#: A good order, which would be accepted.
BODY = create("E-1")
LENGTH = len(BODY)
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (LENGTH, BODY)

RAW: dict[str, bytes] = {
    "ten_thousand_headers": HEALTH + b"".join(b"X-%d: 1\r\n" % number for number in range(10_000)) + b"\r\n",
    "hundred_and_one_headers": HEALTH + b"".join(b"X-%d: 1\r\n" % number for number in range(101)) + b"\r\n",
    "header_of_64_kb": HEALTH + b"X: " + b"x" * 65_536 + b"\r\n\r\n",
    "path_of_64_kb": b"GET /" + b"x" * 65_536 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "header_name_of_64_kb": HEALTH + b"x" * 65_536 + b": 1\r\n\r\n",
    "length_and_chunked": POST
    + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(CHUNKED)
    + CHUNKED
    + SMUGGLED,
    "chunked_and_length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n" % len(CHUNKED)
    + CHUNKED
    + SMUGGLED,
    "two_lengths": POST
    + b"Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (LENGTH, LENGTH + len(SMUGGLED))
    + BODY
    + SMUGGLED,
    "length_with_a_sign": POST + b"Content-Length: +%d\r\n\r\n" % LENGTH + BODY,
    "length_negative": POST + b"Content-Length: -%d\r\n\r\n" % LENGTH + BODY,
    "length_hexadecimal": POST + b"Content-Length: 0x%x\r\n\r\n" % LENGTH + BODY,
    "length_of_a_hundred_digits": POST + b"Content-Length: " + b"9" * 100 + b"\r\n\r\n" + BODY,
    "chunked_twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKED,
    "chunked_misspelt": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
    "chunked_with_a_blank_before_the_colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKED,
    "chunk_of_rubbish": POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk_of_endless_length": POST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n" + BODY,
    "folded_header": HEALTH + b"X: a\r\n b\r\n\r\n",
    "header_without_colon": HEALTH + b"rubbish\r\n\r\n",
    "nul_in_a_header": HEALTH + b"X: a\x00b\r\n\r\n",
    "bare_carriage_return": HEALTH + b"X: a\rb\r\n\r\n",
    "http_9_9": b"GET /healthz HTTP/9.9\r\n" + HOST + b"\r\n",
    "http_0_9": b"GET /healthz\r\n\r\n",
    "http_2_preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls_hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "rubbish": bytes(range(256)) * 10,
    "connect": b"CONNECT internal:6390 HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute_form": b"GET http://169.254.169.254/latest/meta-data HTTP/1.1\r\n" + HOST + b"\r\n",
    "trace": b"TRACE / HTTP/1.1\r\n" + HOST + b"Cookie: secret\r\n\r\n",
    "no_method": b" /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "made_up_method": b"SUMMON /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
}

#: The one line of HTTP/0.9 can carry no token: it gets what anybody gets, once, and the connection ends.
SERVED = ("http_0_9",)
REFUSED = (0, 400, 404, 405, 431)


@pytest.mark.parametrize("name", RAW)
async def test_wrong_http_is_refused_or_cut_off(hub: HubProcess, forge: Forge, name: str) -> None:
    answer = await send_raw(hub, with_token(RAW[name], forge), end=True)

    assert answer.status in ((200,) if name in SERVED else REFUSED), answer
    if answer.status:
        assert_says_nothing(answer.headers, answer.body)
        assert b"secret" not in answer.body


def with_token(data: bytes, forge: Forge) -> bytes:
    return data.replace(TOKEN, forge.good(sub="smuggler").encode())


async def test_the_order_of_wrong_calls_is_accepted_in_a_right_one(hub: HubProcess, forge: Forge) -> None:
    right = POST + b"Content-Length: %d\r\n\r\n" % LENGTH + BODY

    assert (await send_raw(hub, with_token(right, forge))).status == 202


@pytest.mark.parametrize("name", ["length_and_chunked", "chunked_and_length", "two_lengths"])
async def test_a_smuggled_request_is_not_served(hub: HubProcess, forge: Forge, name: str) -> None:
    host, port = split_address(hub.setting("gateway_address"))
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(with_token(RAW[name], forge))
    async with asyncio.timeout(20):
        received = await reader.read()  # to its end: it closes
    writer.close()

    assert received.count(b"\r\ndate: ") <= 1
    assert b'"ok"' not in received


PATHS = {
    "traversal": "/api/../../../../etc/passwd",
    "traversal_encoded": "/docs/%2e%2e%2f%2e%2e%2fetc/passwd",
    "traversal_of_assets": "/docs/..%2f..%2fapp.py",
    "traversal_with_backslashes": "/docs/..\\..\\app.py",
    "traversal_twice_encoded": "/docs/%252e%252e/app.py",
    "asset_of_ours": "/docs/app.py",
    "nul": "/docs/docs.js%00.html",
    "two_slashes": "//api/integration-requests",
    "slash_at_the_end": f"{PATH}/",
    "upper_case": PATH.upper(),
    "semicolon": f"{PATH};a=b",
    "dot": f"{PATH}/./",
    "metrics": "/metrics",
    "redoc": "/redoc",
    "git": "/.git/config",
    "environment": "/.env",
    "long": "/" + "a/" * 2000,
    "unicode": "/%E2%80%AE",
    "id_as_a_path": f"{PATH}/..",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
async def test_a_path_that_is_none_leads_nowhere(hub: HubProcess, forge: Forge, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {forge.good()}\r\n\r\n"

    answer = await send_raw(hub, head.encode())

    assert answer.status in (400, 404, 405, 422, 431), answer
    assert_says_nothing(answer.headers, answer.body.replace(b"app.py", b""))


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
async def test_a_header_does_not_change_the_method(mallory: httpx.AsyncClient, header: str) -> None:
    response = await mallory.get(PATH, headers={header: "POST"})

    assert_safe(response, 200)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_another_method_is_not_allowed(mallory: httpx.AsyncClient, method: str) -> None:
    response = await mallory.request(method, PATH)

    assert_safe(response, 405)
    assert response.headers["Allow"] == "GET, HEAD, POST"


CORRELATION_IDS = {
    "crlf": b"a%0d%0aSet-Cookie: x=1",
    "script": b"<script>alert(1)</script>",
    "escape": b"a\x1b[2Jb",
    "4_kb": b"a" * 4096,
    "unicode": "\u202eid".encode(),
    "blank": b"a b",
    "quotes": b"a\"b'c",
    "log_line": b'a","message":"forged","level":"info',
    "empty": b"",
}


@pytest.mark.parametrize("value", CORRELATION_IDS.values(), ids=CORRELATION_IDS)
async def test_a_correlation_id_that_is_not_safe_is_replaced(hub: HubProcess, value: bytes) -> None:
    answer = await send_raw(hub, HEALTH + b"X-Correlation-ID: " + value + b"\r\n\r\n")

    assert answer.status in (200, 400)
    sent_back = {name.lower(): text for name, text in answer.headers.items()}["x-correlation-id"]
    assert sent_back.encode() != value
    assert len(sent_back) == 36


@pytest.mark.parametrize(
    "query",
    [
        "cursor=" + "A" * 10_000,
        "cursor=%00",
        "cursor=../../etc",
        "cursor=WzEsIjAwMDAwMDAwLTAwMDAtNDAwMC04MDAwLTAwMDAwMDAwMDAwMCIsIngiXQ",
        "limit=-1",
        "limit=251",
        "limit=9999999999999999999999",
        "limit=%D9%A1",
        "limit=1e3",
        "limit=1&limit=2",
        "status=received",
        "status=Completed%27%20OR%201=1--",
        "externalId=%00",
        "externalId=" + "A" * 5_000,
        "createdAfter=9999999-01-01T00:00:00Z",
        "createdAfter=2024-02-30T00:00:00Z",
        "createdBefore=now",
        "partner_id=acme",
        "partnerId=acme",
        "&".join(f"a{number}=1" for number in range(1000)),
        "%" * 1000,
    ],
    ids=lambda query: query[:24],
)
async def test_a_query_that_is_none_is_refused(mallory: httpx.AsyncClient, query: str) -> None:
    assert_safe(await mallory.get(f"{PATH}?{query}"), 400, 422)


async def test_a_body_that_never_comes_is_not_waited_for(hub: HubProcess, forge: Forge) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {forge.good()}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    started = time.monotonic()

    answer = await send_raw(hub, head.encode(), seconds=60)

    assert answer.status in (0, 408)
    assert time.monotonic() - started < 50


async def test_headers_that_drip_are_not_waited_for(hub: HubProcess) -> None:
    host, port = split_address(hub.setting("gateway_address"))
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(HEALTH)
    started = time.monotonic()
    with contextlib.suppress(OSError):
        while not reader.at_eof() and time.monotonic() - started < 40:
            writer.write(b"X: 1\r\n")
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await reader.read(4096)
    writer.close()

    assert time.monotonic() - started < 35


async def test_two_thousand_idle_connections_hold_nobody_up(hub: HubProcess, neighbour: Neighbour) -> None:
    before = await neighbour.waits()
    host, port = split_address(hub.setting("gateway_address"))
    writers: list[asyncio.StreamWriter] = []
    for _ in range(40):
        opened = await asyncio.gather(*(asyncio.open_connection(host, port) for _ in range(50)))
        writers += [writer for _, writer in opened]

    during = await neighbour.waits()

    for writer in writers:
        writer.close()
    assert len(writers) == 2000
    assert during < max(STALL_SECONDS, STALL_FACTOR * before)


async def test_a_client_that_reads_nothing_holds_nobody_up(hub: HubProcess, forge: Forge, neighbour: Neighbour) -> None:
    before = await neighbour.waits()
    host, port = split_address(hub.setting("gateway_address"))
    _, writer = await asyncio.open_connection(host, port)
    call = f"GET {PATH}?limit=250 HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {forge.good()}\r\n\r\n".encode()
    writer.write(call * 2000)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await writer.drain()

    during = await neighbour.waits()

    writer.transport.abort()
    assert during < max(STALL_SECONDS, STALL_FACTOR * before)


async def test_a_refusal_echoes_nothing_dangerous(mallory: httpx.AsyncClient) -> None:
    response = await mallory.post(PATH, content=create("E", targetSystem="<img src=x onerror=alert(1)>"))

    assert_safe(response, 422)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "onerror" not in response.text


async def test_the_docs_page_lets_no_foreign_script_in(anybody: httpx.AsyncClient) -> None:
    response = await anybody.get("/docs")

    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
