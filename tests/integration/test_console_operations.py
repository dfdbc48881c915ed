"""The commands while parts of the hub are away, against servers of the same contracts."""

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from typer.testing import CliRunner, Result

from chassis.testing import free_port
from console.__main__ import app
from console.configuration import environment_of, read_settings, unknown_variables
from integrationhub.adapter.v1.adapter_pb2 import ListTargetsResponse, Target
from integrationhub.intake.v1.dead_letters_pb2 import DeadLetter, GetDeadLetterResponse, ListDeadLettersResponse
from integrationhub.orchestrator.v1.orchestrator_pb2 import BREAKER_STATE_CLOSED, GetStatusResponse, TargetStatus

STATUS = GetStatusResponse(
    worker_id="w1",
    live_workers=1,
    targets=[TargetStatus(name="TotvsProtheus", breaker=BREAKER_STATE_CLOSED, waiting=7, wait_reason="adapter")],
)
TARGETS = ListTargetsResponse(
    targets=[Target(name="TotvsProtheus", adapter="totvs_protheus", base_url="http://protheus")]
)
ANSWERS: dict[str, dict[str, Message]] = {
    "integrationhub.orchestrator.v1.OrchestratorService": {"GetStatus": STATUS},
    "integrationhub.adapter.v1.AdapterService": {"ListTargets": TARGETS},
    "integrationhub.intake.v1.DeadLetterService": {
        "ListDeadLetters": ListDeadLettersResponse(),
        "GetDeadLetter": GetDeadLetterResponse(dead_letter=DeadLetter(reason="expired", payload_not_readable=True)),
    },
}


def answering(message: Message) -> Any:
    return grpc.unary_unary_rpc_method_handler(lambda *_: message.SerializeToString())


@pytest.fixture
def running() -> Iterator[str]:
    """The address at which all the services answer."""
    server = grpc.server(ThreadPoolExecutor(2))
    for service, answers in ANSWERS.items():
        handlers = {method: answering(message) for method, message in answers.items()}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def away() -> str:
    """An address at which nobody listens."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(autouse=True)
def folder_with_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*unknown_variables(), *environment_of(read_settings())]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    hub("keys")


def hub(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="hub")


def test_targets_are_shown_while_the_adapter_is_away(monkeypatch: pytest.MonkeyPatch, running: str, away: str) -> None:
    monkeypatch.setenv("HUB_ORCHESTRATOR_URL", running)
    monkeypatch.setenv("HUB_ADAPTER_URL", away)

    table, items = hub("targets"), hub("targets", "--json")

    assert (table.exit_code, items.exit_code) == (0, 0)
    assert "TotvsProtheus  closed" in table.stdout
    (item,) = json.loads(items.stdout)["items"]
    assert (item["waiting"], item["waitReason"], "baseUrl" in item) == (7, "adapter", False)
    for result in (table, items):
        assert f"hub: The hub's adapter is not running at {away}" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_targets_name_their_adapter_where_it_answers(monkeypatch: pytest.MonkeyPatch, running: str) -> None:
    monkeypatch.setenv("HUB_ORCHESTRATOR_URL", running)
    monkeypatch.setenv("HUB_ADAPTER_URL", running)

    result = hub("targets", "--json")

    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["items"][0]["baseUrl"] == "http://protheus"


def accepting(answer: bytes) -> socket.socket:
    """A server that reads one call and answers it so; with nothing, it just closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    Thread(target=serve, daemon=True).start()
    return listener


TIMED_OUT = b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize("way", ["no answer", "broken off", "504"])
def test_a_create_of_which_nothing_is_known_names_what_repeats_it_safely(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    servers = {
        "no answer": lambda: socket.create_server(("127.0.0.1", 0)),
        "broken off": lambda: accepting(b""),
        "504": lambda: accepting(TIMED_OUT),
    }
    monkeypatch.setenv("HUB_RPC_TIMEOUT_SECONDS", "0.2")

    for options, advice in [
        ([], r"repeat the command with `--external-id PARTNER-[0-9a-f]{10}`, and there is no second order$"),
        (["--external-id", "A 1"], r"repeat the command with `--external-id 'A 1'`, and there is no second order$"),
        (["-"], r"repeat the command with the same body, and there is no second order$"),
    ]:
        with servers[way]() as server:
            monkeypatch.setenv("HUB_GATEWAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
            result = CliRunner().invoke(app, ["send", *options], input='{"externalId": "B-1"}', prog_name="hub")

        assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
        assert re.search(advice, result.stderr.strip())
        assert "ask again" not in result.stderr


def test_a_request_that_cannot_be_read_in_time_is_read_again_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_RPC_TIMEOUT_SECONDS", "0.2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HUB_GATEWAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")

        result = hub("get", "3fa85f64")

    assert "did not answer in time; `hub get 3fa85f64` asks again" in result.stderr


@pytest.mark.parametrize("first", ["away", "running"])
def test_an_operator_is_answered_by_whichever_address_is_there(
    monkeypatch: pytest.MonkeyPatch, running: str, away: str, first: str
) -> None:
    both = f"{away}, {running}" if first == "away" else f"{running},{away}"
    for service in ("INTAKE", "ORCHESTRATOR", "ADAPTER"):
        monkeypatch.setenv(f"HUB_{service}_URL", both)

    letters, targets = hub("dead-letters", "list", "--json"), hub("targets", "--json")

    assert (letters.exit_code, targets.exit_code, letters.stderr, targets.stderr) == (0, 0, "", "")
    assert json.loads(targets.stdout)["items"][0]["baseUrl"] == "http://protheus"


def test_all_addresses_are_named_when_none_answers(monkeypatch: pytest.MonkeyPatch, away: str) -> None:
    both = f"{away},127.0.0.1:{free_port()}"
    monkeypatch.setenv("HUB_INTAKE_URL", both)

    result = hub("dead-letters", "list")

    assert (result.exit_code, result.stdout) == (1, "")
    assert f"The hub's intake is not running at {both}; start" in result.stderr


def test_a_dead_letter_whose_payload_cannot_be_opened_is_shown_and_says_so(
    monkeypatch: pytest.MonkeyPatch, running: str
) -> None:
    monkeypatch.setenv("HUB_INTAKE_URL", running)

    text, item = hub("dead-letters", "show", "x"), hub("dead-letters", "show", "x", "--json")

    assert (text.exit_code, item.exit_code) == (0, 0)
    assert "payloadNotReadable True" in text.stdout
    shown = json.loads(item.stdout)
    assert (shown["reason"], shown["payload"], shown["payloadNotReadable"]) == ("expired", None, True)
