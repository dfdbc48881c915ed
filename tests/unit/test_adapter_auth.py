"""A token of OAuth2 that is about to end: renewed beside the calls, and used for as long as it is good."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

from adapter_service.auth import EARLY_SECONDS, RENEW_AGAIN_SECONDS, CredentialsRefused, OAuth2
from chassis.http_client import HttpAnswer, HttpClient, NoAnswer, NotSent
from chassis.targets import Auth, Target

LIFE_SECONDS = 3600
TARGET = Target(
    name="Erp",
    adapter="http_json",
    base_url="http://127.0.0.1:1",
    auth=Auth(kind="oauth2", token_url="http://127.0.0.1:1/token", client_id="hub"),
)


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    ahead_seconds = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_seconds


class TokenEndpoint(HttpClient):
    """Gives token-1, token-2 and so on, or does what `trouble` says."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.trouble: Callable[[], Coroutine[Any, Any, HttpAnswer]] | None = None

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], deadline: float, body: bytes | None = None
    ) -> HttpAnswer:
        del method, url, headers, deadline, body
        self.calls += 1
        if self.trouble is not None:
            return await self.trouble()
        return answer(200, f'{{"access_token":"token-{self.calls}","expires_in":{LIFE_SECONDS}}}')


class Client:
    """Credentials with the first token, in a loop of their own."""

    def __init__(self, runner: asyncio.Runner) -> None:
        loop = runner.get_loop()
        assert isinstance(loop, SteppedLoop)
        self._loop, self._runner = loop, runner
        self.endpoint = TokenEndpoint()
        self._credentials = OAuth2(TARGET, self.endpoint, Path())
        assert self.header() == "Bearer token-1"

    def header(self) -> str:
        """What a call sends that may take half a second."""

        async def ask() -> str:
            header = await self._credentials.header(self._loop.time() + 0.5)
            for _ in range(5):  # what was begun beside it goes on
                await asyncio.sleep(0)
            return header

        return self._runner.run(ask())

    def wait(self, seconds: float) -> None:
        self._loop.ahead_seconds += seconds


def answer(status: int, body: str = "") -> HttpAnswer:
    return HttpAnswer(status=status, headers={}, body=body.encode(), is_complete=True)


async def hang() -> HttpAnswer:
    await asyncio.Event().wait()
    raise AssertionError


async def unavailable() -> HttpAnswer:
    return answer(503)


async def refuse() -> HttpAnswer:
    return answer(401)


async def reset() -> HttpAnswer:
    raise NoAnswer("reset")


async def unreachable() -> HttpAnswer:
    raise NotSent("no connection")


@pytest.fixture
def client() -> Any:
    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        yield Client(runner)


@pytest.mark.parametrize("trouble", [hang, unavailable, refuse, reset, unreachable])
def test_a_good_token_is_used_whatever_becomes_of_its_renewal(client: Client, trouble: Any) -> None:
    client.endpoint.trouble = trouble
    client.wait(LIFE_SECONDS - EARLY_SECONDS)

    assert client.header() == "Bearer token-1"
    assert client.endpoint.calls == 2


def test_a_token_is_renewed_beside_the_call_that_finds_it_about_to_end(client: Client) -> None:
    client.wait(LIFE_SECONDS - EARLY_SECONDS)

    assert [client.header(), client.header()] == ["Bearer token-1", "Bearer token-2"]


def test_a_renewal_that_failed_is_made_again_after_a_while(client: Client) -> None:
    client.endpoint.trouble = unavailable
    client.wait(LIFE_SECONDS - EARLY_SECONDS)
    client.header()
    client.header()
    assert client.endpoint.calls == 2

    client.wait(RENEW_AGAIN_SECONDS)
    client.header()

    assert client.endpoint.calls == 3


def test_a_renewal_that_was_refused_is_not_made_again_while_the_token_is_good(client: Client) -> None:
    client.endpoint.trouble = refuse
    client.wait(LIFE_SECONDS - EARLY_SECONDS)
    client.header()

    client.wait(RENEW_AGAIN_SECONDS)

    assert client.header() == "Bearer token-1"
    assert client.endpoint.calls == 2


@pytest.mark.parametrize(("trouble", "error"), [(unavailable, NotSent), (hang, NotSent), (refuse, CredentialsRefused)])
def test_a_token_that_has_ended_is_not_used(client: Client, trouble: Any, error: type[NotSent]) -> None:
    client.endpoint.trouble = trouble
    client.wait(LIFE_SECONDS)

    with pytest.raises(error):
        client.header()
