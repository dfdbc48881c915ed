"""A whole hub against systems that lose answers: nothing is posted blindly, and each order is there once.

Every case is a target of its own and all of them begin when the hub starts, so that together they take no longer than
the longest alone. Nothing here is shortened: the ladder is the hub's.
"""

import asyncio
import email.utils
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from chassis.testing import eventually
from console.testing import HubProcess

LATE_SECONDS = 20.0
#: Where a case is about a time-out.
TIMEOUT_SECONDS = 2
#: A case may take the whole ladder: 30 s.
LADDER_SECONDS = 60.0
TERMINAL = ("Completed", "Failed")
HTTP_DATE_SECONDS = 6

_TARGET = """
[targets.{name}]
adapter = "totvs_protheus"
base_url = "{url}/t/{name}"
auth = {{ kind = "bearer", token = "env:PROTHEUS_TOKEN" }}
{options}
"""
_MUTE = """
[targets.Mute]
adapter = "http_json"
base_url = "{url}/t/Mute"
path = "/orders"
"""
_RETRIED = f'timeout_seconds = {TIMEOUT_SECONDS}\non_timeout = "retry"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How a target is configured, what it does with its first order and what it is like."""

    options: str = ""
    fault: dict[str, Any]
    settings: dict[str, Any]


def case(kind: str, options: str = "", *, delay_seconds: float = 1.0, **settings: Any) -> Case:
    """A case whose first post meets a fault."""
    return Case(options=options, fault={"kind": kind, "delay_seconds": delay_seconds}, settings=settings)


#: By target. No system here looks at the Idempotency-Key unless its settings say so.
CASES = {
    "KeyIgnored": case("reset_after"),
    "KeyHonoured": case("reset_after", "idempotent = true", idempotency=True),
    "Late": case("commit_later", delay_seconds=LATE_SECONDS),
    "LateAfterTimeout": case("slow", _RETRIED, delay_seconds=TIMEOUT_SECONDS + LATE_SECONDS),
    "LookupDown": case("reset_after", f"timeout_seconds = {TIMEOUT_SECONDS}", lookup="down"),
    "Mute": case("reset_before"),
    "Hanging": case("hang", f"timeout_seconds = {TIMEOUT_SECONDS}"),
    "HangingRetried": case("hang", _RETRIED),
}


class Run:
    """A hub in which every case has begun."""

    def __init__(self, folder: Path) -> None:
        targets = folder / "targets.toml"
        self.hub = HubProcess(folder, targets=str(targets))
        url = self.hub.simulator_url
        tables = [_TARGET.format(name=name, url=url, options=each.options) for name, each in CASES.items()]
        tables[list(CASES).index("Mute")] = _MUTE.format(url=url)
        targets.write_text("".join([*tables, _TARGET.format(name="Dated", url=url, options="")]))
        self.locations: dict[str, str] = {}

    def begin(self) -> None:
        """Start the hub, tell each system how to be and send it its order."""
        asyncio.run(self.hub.start())
        for name, each in CASES.items():
            self.administer("settings", target=name, **each.settings)
            self.administer("faults", target=name, **each.fault)
            self.locations[name] = self.send(name)

    def administer(self, what: str, **body: Any) -> None:
        """Tell the simulator something."""
        httpx.post(f"{self.hub.simulator_url}/_sim/{what}", json=body).raise_for_status()

    def send(self, target: str, order: str = "1") -> str:
        """Have an order accepted; gives its URL."""
        body = {"externalId": f"{target}-{order}", "sourceSystem": "SAP", "targetSystem": target}
        payload = {"orderId": order, "customer": "Empresa ABC", "amount": 1}
        answer = httpx.post(
            self._url("/api/integration-requests"), json={**body, "payload": payload}, headers=self._who
        )
        assert answer.status_code == 202, answer.text
        return answer.headers["Location"]

    async def ended(self, location: str) -> dict[str, Any]:
        """Wait for a request's end."""

        async def look() -> dict[str, Any] | None:
            async with httpx.AsyncClient() as client:
                body: dict[str, Any] = (await client.get(self._url(location), headers=self._who)).json()
            return body if body["status"] in TERMINAL else None

        result: dict[str, Any] = await eventually(look, LADDER_SECONDS, every=0.2)
        return result

    async def end_of(self, target: str) -> tuple[str, str, int]:
        """Wait for the end of a case: status, failure reason and attempts."""
        body = await self.ended(self.locations[target])
        return body["status"], body.get("failureReason", ""), body.get("attempts", 0)

    def history(self, target: str) -> list[dict[str, Any]]:
        """The story of a case's request."""
        answer = httpx.get(self._url(self.locations[target] + "/history"), headers=self._who)
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    def calls(self, target: str, method: str) -> list[dict[str, Any]]:
        """What a system was asked."""
        answer = httpx.get(f"{self.hub.simulator_url}/_sim/calls", params={"target": target})
        calls = [call for call in answer.json()["items"] if call["method"] == method]
        return [{**call, "at": datetime.fromisoformat(call["at"]).timestamp()} for call in calls]

    def posts_and_orders(self, target: str) -> tuple[int, int]:
        """How many posts a system has seen and how many orders it holds."""
        answer = httpx.get(f"{self.hub.simulator_url}/_sim/orders", params={"target": target})
        return len(self.calls(target, "POST")), len(answer.json()["items"])

    def redrive(self, target: str, *options: str) -> None:
        """Send a case's request round again, as an operator."""
        request_id = self.locations[target].rpartition("/")[2]
        command = [sys.executable, "-m", "console", "dead-letters", "redrive", request_id, "--yes", *options]
        subprocess.run(command, env=self.hub.environment, capture_output=True, check=True, timeout=60)

    def _url(self, path: str) -> str:
        return self.hub.base_url + path

    @property
    def _who(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.hub.token('acme')}"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    run = Run(tmp_path_factory.mktemp("hub"))
    run.begin()
    yield run
    assert asyncio.run(run.hub.stop()) == 0


async def test_a_lost_answer_of_a_system_that_ignores_the_key_is_looked_up_and_not_posted_again(run: Run) -> None:
    assert await run.end_of("KeyIgnored") == ("Completed", "", 1)
    assert run.posts_and_orders("KeyIgnored") == (1, 1)
    assert [item["outcome"] for item in run.history("KeyIgnored") if item["kind"] != "transition"] == [
        "UNKNOWN",
        "FOUND",
    ]


async def test_a_lost_answer_of_a_system_that_honours_the_key_is_posted_again_with_it(run: Run) -> None:
    assert await run.end_of("KeyHonoured") == ("Completed", "", 2)
    assert run.posts_and_orders("KeyHonoured") == (2, 1)
    assert len({call["idempotencyKey"] for call in run.calls("KeyHonoured", "POST")}) == 1


async def test_a_system_that_can_neither_be_asked_nor_honours_the_key_is_posted_again_on_an_operators_word_alone(
    run: Run,
) -> None:
    first = await run.end_of("Mute")
    run.redrive("Mute")
    second = await run.end_of("Mute")
    posts_before, _ = run.posts_and_orders("Mute")
    run.redrive("Mute", "--certainly-absent", "--reason", "looked for it")
    third = await run.end_of("Mute")

    assert (first, second) == (("Failed", "outcome_unknown", 1), ("Failed", "outcome_unknown", 1))
    assert posts_before == 1
    assert third == ("Completed", "", 2)
    assert run.posts_and_orders("Mute") == (2, 1)


async def test_a_hanging_call_that_was_not_applied_fails_as_timeout_after_the_whole_ladder(run: Run) -> None:
    assert await run.end_of("Hanging") == ("Failed", "timeout", 1)
    assert run.posts_and_orders("Hanging") == (1, 0)
    # the ladder begins with the time-out, and no earlier lookup proves anything
    last = run.calls("Hanging", "GET")[-1]
    assert last["at"] - run.calls("Hanging", "POST")[0]["at"] >= TIMEOUT_SECONDS + 30


async def test_a_hanging_call_is_posted_again_where_the_targets_file_says_so(run: Run) -> None:
    assert await run.end_of("HangingRetried") == ("Completed", "", 2)
    assert run.posts_and_orders("HangingRetried") == (2, 1)
    first, second = run.calls("HangingRetried", "POST")
    assert second["at"] - first["at"] >= TIMEOUT_SECONDS + 30


async def test_a_date_in_retry_after_holds_for_the_whole_target(run: Run) -> None:
    until = int(time.time()) + HTTP_DATE_SECONDS
    date = email.utils.formatdate(until, usegmt=True)
    run.administer("faults", target="Dated", kind="status", status=429, retry_after=date)
    refused = run.send("Dated", "refused")
    await eventually(lambda: run.calls("Dated", "POST"))
    others = [run.send("Dated", f"other-{number}") for number in range(5)]
    ends = [await run.ended(location) for location in (refused, *others)]

    assert {body["status"] for body in ends} == {"Completed"}
    assert all(call["at"] >= until for call in run.calls("Dated", "POST")[1:])
    assert run.posts_and_orders("Dated") == (7, 6)


async def test_a_lookup_that_is_down_ends_in_doubt_and_a_redrive_asks_before_it_posts(run: Run) -> None:
    end = await run.end_of("LookupDown")
    asked = len(run.calls("LookupDown", "GET"))
    run.administer("settings", target="LookupDown", lookup="on")
    run.redrive("LookupDown")
    redriven = await eventually(lambda: _completed(run, "LookupDown"), 30)

    assert end == ("Failed", "outcome_unknown", 1)
    assert asked >= 4  # the whole ladder
    assert redriven["attempts"] == 1
    assert run.posts_and_orders("LookupDown") == (1, 1)


async def test_an_order_that_appears_20_seconds_after_its_connection_broke_is_found(run: Run) -> None:
    assert await run.end_of("Late") == ("Completed", "", 1)
    assert run.posts_and_orders("Late") == (1, 1)
    post, found = run.calls("Late", "POST")[0], run.calls("Late", "GET")[-1]
    assert found["at"] - post["at"] >= LATE_SECONDS


async def test_an_order_that_appears_20_seconds_after_its_time_out_is_found_and_not_posted_again(run: Run) -> None:
    assert await run.end_of("LateAfterTimeout") == ("Completed", "", 1)
    assert run.posts_and_orders("LateAfterTimeout") == (1, 1)
    assert [item["outcome"] for item in run.history("LateAfterTimeout") if item["kind"] != "transition"] == [
        "UNKNOWN",
        "ABSENT",  # +2 s
        "ABSENT",  # +5 s: the conclusive moment
        "ABSENT",  # +15 s
        "FOUND",  # +30 s
    ]


async def _completed(run: Run, target: str) -> dict[str, Any] | None:
    body = await run.ended(run.locations[target])
    return body if body["status"] == "Completed" else None
