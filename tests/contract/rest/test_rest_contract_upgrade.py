"""Calls that offer to upgrade the connection: served as plain HTTP/1.1, however their bytes arrive."""

from collections.abc import Callable

import pytest

from gateway.http_protocol import GatewayProtocol
from tests.raw_http import GOOD_HEAD, Served, assert_raw_problem
from tests.rest import PATH, create_body

#: Java's HttpClient offers h2c with every call.
OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: smuggled\r\nX-Correlation-ID: SMUGGLED\r\n\r\n"

Cut = Callable[[bytes], list[bytes]]


def read_as(monkeypatch: pytest.MonkeyPatch, cut: Cut) -> None:
    """Have the server read what arrives at once in the pieces that `cut` makes of it."""

    def read(protocol: GatewayProtocol, data: bytes) -> None:
        for piece in cut(data):
            if not protocol.transport.is_closing():
                data_received(protocol, piece)

    data_received = GatewayProtocol.data_received
    monkeypatch.setattr(GatewayProtocol, "data_received", read)


def each_byte(data: bytes) -> list[bytes]:
    """Nothing together."""
    return [data[place : place + 1] for place in range(len(data))]


def whole(data: bytes) -> list[bytes]:
    """As it came."""
    return [data]


async def test_an_offer_to_upgrade_is_passed_over(served: Served) -> None:
    connection = await served.connect()

    first = await connection.send(served.create(create_body("A"), OFFER)).answer()
    second = await connection.send(served.create(create_body("B"), OFFER.lower())).answer()
    third = await connection.send(served.create(create_body("C"), OFFER.upper())).answer()

    assert (first.status, second.status, third.status) == (202, 202, 202)
    assert [request.external_id for request in served.hub.intake.stored.values()] == ["A", "B", "C"]


async def test_an_offer_is_passed_over_wherever_the_call_is_cut(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = 0
    read_as(monkeypatch, lambda data: [data[:place], data[place:]])
    size = len(served.create(create_body("E-000"), OFFER))

    for place in range(1, size):
        connection = await served.connect()
        answer = await connection.send(served.create(create_body(f"E-{place:03}"), OFFER)).answer()

        assert answer.status == 202, (place, answer)
        connection.writer.close()

    assert len(served.hub.intake.stored) == size - 1


@pytest.mark.parametrize("cut", [whole, each_byte])
async def test_offers_in_pipelined_calls_are_passed_over(
    served: Served, monkeypatch: pytest.MonkeyPatch, cut: Cut
) -> None:
    read_as(monkeypatch, cut)
    connection = await served.connect()
    calls = [served.create(create_body("A")), served.create(create_body("B"), OFFER)]
    calls += [served.create(create_body("C"), OFFER), f"GET /healthz HTTP/1.1\r\n{OFFER}\r\n".encode()]
    calls += [served.create(create_body("D"))]

    connection.send(b"".join(calls))
    answers = [await connection.answer() for _ in calls]

    assert [answer.status for answer in answers] == [202, 202, 202, 200, 202]
    assert [request.external_id for request in served.hub.intake.stored.values()] == ["A", "B", "C", "D"]


@pytest.mark.parametrize("cut", [whole, each_byte])
async def test_a_chunked_body_behind_an_offer_is_taken(
    served: Served, monkeypatch: pytest.MonkeyPatch, cut: Cut
) -> None:
    read_as(monkeypatch, cut)
    connection = await served.connect()
    head = f"POST {PATH} HTTP/1.1\r\n{GOOD_HEAD}{served.token}{OFFER}Transfer-Encoding: chunked\r\n\r\n"
    body = create_body("A")
    chunks = f"5\r\n{body[:5].decode()}\r\n{len(body) - 5:x}\r\n{body[5:].decode()}\r\n0\r\n{OFFER}\r\n"

    answer = await connection.send(head + chunks).answer()
    served_next = await connection.send(served.create(create_body("B"))).answer()

    assert (answer.status, served_next.status) == (202, 202)


@pytest.mark.parametrize("cut", [whole, each_byte])
@pytest.mark.parametrize("last", ["HTTP/1.1\r\nConnection: close, Upgrade\r\n", "HTTP/1.0\r\nConnection: Upgrade\r\n"])
async def test_the_last_call_of_a_connection_may_offer_too(
    served: Served, monkeypatch: pytest.MonkeyPatch, last: str, cut: Cut
) -> None:
    read_as(monkeypatch, cut)
    connection = await served.connect()
    body = create_body("A").decode()
    head = f"POST {PATH} {last}Upgrade: h2c\r\n{GOOD_HEAD}{served.token}Content-Length: {len(body)}\r\n\r\n"

    answer = await connection.send(head + body).answer()

    assert answer.status == 202
    assert await connection.is_closed()


@pytest.mark.parametrize("cut", [whole, each_byte])
async def test_a_body_behind_an_offer_is_no_call(served: Served, monkeypatch: pytest.MonkeyPatch, cut: Cut) -> None:
    read_as(monkeypatch, cut)
    connection = await served.connect()

    answer = await connection.send(served.create(SMUGGLED, OFFER)).answer()

    assert_raw_problem(answer, 400)
    connection.send("GET /readyz HTTP/1.1\r\nX-Correlation-ID: mine\r\n\r\n")
    assert (await connection.answer()).headers["x-correlation-id"] == "mine"


@pytest.mark.parametrize("cut", [whole, each_byte])
@pytest.mark.parametrize("target", ["hub:443", "/healthz", "http://hub/healthz"])
async def test_no_tunnel_is_opened(served: Served, monkeypatch: pytest.MonkeyPatch, target: str, cut: Cut) -> None:
    read_as(monkeypatch, cut)
    connection = await served.connect()

    answer = await connection.send(f"CONNECT {target} HTTP/1.1\r\nHost: hub\r\n\r\n".encode() + SMUGGLED).answer()

    assert_raw_problem(answer, 400)
    assert await connection.is_closed()


async def test_a_head_over_its_limits_is_refused_with_its_offer(served: Served) -> None:
    connection = await served.connect()

    answer = await connection.send("GET /healthz HTTP/1.1\r\n" + OFFER + "X: y\r\n" * 101 + "\r\n").answer()

    assert_raw_problem(answer, 431)
    assert await connection.is_closed()
