"""The list: newest first, paged by cursor, filtered, strict about its parameters."""

import httpx
import pytest

from integrationhub.intake.v1 import intake_pb2 as pb
from tests.fakes import GatewayUnderTest
from tests.rest import PATH, create_body, post


async def make(client: httpx.AsyncClient, hub: GatewayUnderTest, *external_ids: str) -> None:
    for external_id in external_ids:
        answer = await post(client, hub, create_body(external_id))
        assert answer.status_code == 202


async def external_ids(client: httpx.AsyncClient, hub: GatewayUnderTest, **query: str) -> list[str]:
    answer = await client.get(PATH, params=query, headers=hub.header())
    assert answer.status_code == 200, answer.text
    return [item["externalId"] for item in answer.json()["items"]]


async def test_an_empty_list_has_no_next_page(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    answer = await client.get(PATH, headers=hub.header())

    assert answer.json() == {"items": [], "nextCursor": None}
    assert answer.headers["Cache-Control"] == "no-store"


async def test_the_list_is_newest_first_and_without_payloads(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    await make(client, hub, "A", "B", "C")

    answer = await client.get(PATH, headers=hub.header())

    assert [item["externalId"] for item in answer.json()["items"]] == ["C", "B", "A"]
    assert all("payload" not in item for item in answer.json()["items"])


async def test_following_the_cursor_shows_every_request_once(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    await make(client, hub, *"ABCDE")
    seen: list[str] = []
    sizes: list[int] = []
    cursor: str | None = ""

    while cursor is not None:
        query = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = (await client.get(PATH, params=query, headers=hub.header())).json()
        seen += [item["externalId"] for item in page["items"]]
        sizes.append(len(page["items"]))
        cursor = page["nextCursor"]

    assert (seen, sizes) == ([*"EDCBA"], [2, 2, 1])


@pytest.mark.parametrize(("query", "page_size"), [({}, 50), ({"limit": "1"}, 1), ({"limit": "250"}, 250)])
async def test_a_page_has_50_items_unless_asked_otherwise(
    client: httpx.AsyncClient, hub: GatewayUnderTest, query: dict[str, str], page_size: int
) -> None:
    await make(client, hub, *(f"E-{number}" for number in range(60)))

    found = await external_ids(client, hub, **query)

    assert len(found) == min(page_size, 60)


async def test_filters_narrow_the_list_together(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    await make(client, hub, "A", "B")
    await post(client, hub, create_body("C", "SAP"), {"X-Correlation-ID": "mine"})
    hub.intake.stored["00000000-0000-4000-8000-000000000001"].status = pb.INTEGRATION_REQUEST_STATUS_WAITING_EXTERNAL

    assert await external_ids(client, hub, status="WaitingExternal") == ["B"]
    assert await external_ids(client, hub, externalId="A") == ["A"]
    assert await external_ids(client, hub, targetSystem="SAP") == ["C"]
    assert await external_ids(client, hub, correlationId="mine") == ["C"]
    assert await external_ids(client, hub, status="Received", targetSystem="TotvsProtheus") == ["A"]
    assert await external_ids(client, hub, status="Failed") == []


async def test_times_bound_the_list_from_below_and_before(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    await make(client, hub, "A", "B", "C")  # a second apart

    assert await external_ids(client, hub, createdAfter="2024-01-15T10:30:01Z") == ["C", "B"]
    assert await external_ids(client, hub, createdBefore="2024-01-15T10:30:01Z") == ["A"]
    assert await external_ids(client, hub, createdAfter="2024-01-15T07:30:01.000-03:00") == ["C", "B"]


async def test_another_partners_requests_are_not_listed(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    await make(client, hub, "A")

    answer = await client.get(PATH, headers=hub.header(partner="other"))

    assert answer.json()["items"] == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("state=Received", "/state"),
        ("partner_id=other", "/partner_id"),
        ("Status=Received", "/Status"),
        ("status=received", "/status"),
        ("status=", "/status"),
        ("status=Received&status=Failed", "/status"),
        ("externalId=", "/externalId"),
        ("externalId=a%20b", "/externalId"),
        ("targetSystem=" + "x" * 129, "/targetSystem"),
        ("correlationId=%0d%0a", "/correlationId"),
        ("createdAfter=yesterday", "/createdAfter"),
        ("createdAfter=2024-01-15T10:30:00", "/createdAfter"),
        ("createdAfter=2024-01-15", "/createdAfter"),
        ("createdBefore=0000-01-01T00:00:00Z", "/createdBefore"),
        ("createdBefore=1705314600", "/createdBefore"),
        ("limit=0", "/limit"),
        ("limit=251", "/limit"),
        ("limit=-1", "/limit"),
        ("limit=1.5", "/limit"),
        ("limit=ten", "/limit"),
        ("limit=%D9%A1", "/limit"),
        ("limit=" + "9" * 5000, "/limit"),
        ("cursor=", "/cursor"),
        ("cursor=forged", "/cursor"),
        ("cursor=%FF%FE", "/cursor"),
        ("cursor=" + "x" * 10_000, "/cursor"),
    ],
    ids=lambda text: text[:40],
)
async def test_a_bad_parameter_is_named(
    client: httpx.AsyncClient, hub: GatewayUnderTest, query: str, pointer: str
) -> None:
    answer = await client.get(f"{PATH}?{query}", headers=hub.header())

    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:integration-hub:problem:invalid-request"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert len(answer.content) < 2000


async def test_all_bad_parameters_are_named_at_once(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    answer = await client.get(f"{PATH}?status=x&limit=0&more=1", headers=hub.header())

    assert [error["pointer"] for error in answer.json()["errors"]] == ["/status", "/limit", "/more"]


async def test_a_flood_of_parameters_is_refused(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    answer = await client.get(f"{PATH}?{'a=1&' * 1000}", headers=hub.header())

    assert answer.status_code == 422
