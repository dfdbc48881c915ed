"""`hub dead-letters redrive` and `discard` at a terminal, against a server that remembers what it was asked."""

import io
import json
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from console.__main__ import app
from console.configuration import environment_of, read_settings, unknown_variables
from integrationhub.intake.v1.dead_letters_pb2 import (
    DiscardDeadLettersRequest,
    DiscardDeadLettersResponse,
    RedriveDeadLettersRequest,
    RedriveDeadLettersResponse,
    SettleResult,
)

MAX_IDS = 1000
SERVICE = "integrationhub.intake.v1.DeadLetterService"


class Operated:
    """Open dead letters of one target; one more dies after each dry run."""

    def __init__(self) -> None:
        self.open = ["dead-1", "dead-2"]
        self.refused: list[SettleResult] = []
        self.asked: list[Any] = []
        #: What answers in its place, if anything.
        self.instead: Callable[[Any, grpc.ServicerContext], Any] | None = None

    def settle(self, request: Any, context: grpc.ServicerContext, done: str) -> list[SettleResult]:
        """Answer as intake does."""
        self.asked.append(request)
        if self.instead is not None:
            self.instead(request, context)
        ids: Sequence[str] = request.selection.ids or list(self.open)
        if request.dry_run:
            self.open.append(f"dead-{len(self.open) + 1}")
            return [*self.refused, *(SettleResult(id=each, result="selected") for each in ids)]
        gone = [each for each in ids if each not in self.open]
        settled = [each for each in ids if each in self.open]
        self.open = [each for each in self.open if each not in settled]
        return [
            *(SettleResult(id=each, result=done) for each in settled),
            *(SettleResult(id=each, result="not_open") for each in gone),
        ]


class Terminal(io.BytesIO):
    """Somebody types the answer."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def operated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Operated]:
    for name in [*unknown_variables(), *environment_of(read_settings())]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(app, ["keys"])
    letters, server = Operated(), grpc.server(ThreadPoolExecutor(2))
    handlers: dict[str, Any] = {
        "RedriveDeadLetters": grpc.unary_unary_rpc_method_handler(
            lambda request, context: RedriveDeadLettersResponse(results=letters.settle(request, context, "redriven")),
            request_deserializer=RedriveDeadLettersRequest.FromString,
            response_serializer=RedriveDeadLettersResponse.SerializeToString,
        ),
        "DiscardDeadLetters": grpc.unary_unary_rpc_method_handler(
            lambda request, context: DiscardDeadLettersResponse(results=letters.settle(request, context, "discarded")),
            request_deserializer=DiscardDeadLettersRequest.FromString,
            response_serializer=DiscardDeadLettersResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    monkeypatch.setenv("HUB_INTAKE_URL", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    yield letters
    server.stop(None).wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """How a command ended and what it printed."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def results(self) -> dict[str, str]:
        """The result of each dead letter, from `--json`."""
        return {item["id"]: item["result"] for item in json.loads(self.stdout)["items"]}


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command with somebody there who types an answer."""

    def run(*arguments: str, typed: str) -> Said:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Terminal(typed.encode())))
        with pytest.raises(SystemExit) as ended:
            app(list(arguments), prog_name="hub")
        printed = capsys.readouterr()
        return Said(exit_code=int(str(ended.value.code or 0)), stdout=printed.out, stderr=printed.err)

    return run


DISCARD = ("dead-letters", "discard", "--target", "SAP", "--reason", "not wanted", "--json")
REDRIVE = ("dead-letters", "redrive", "--target", "SAP", "--json")


@pytest.mark.parametrize(("command", "done"), [(DISCARD, "discarded"), (REDRIVE, "redriven")])
def test_a_yes_settles_what_was_counted_and_nothing_that_died_meanwhile(
    operated: Operated, at_terminal: Callable[..., Said], command: tuple[str, ...], done: str
) -> None:
    said = at_terminal(*command, typed="y\n")

    assert (said.exit_code, said.results) == (0, {"dead-1": done, "dead-2": done})
    assert "2 dead letter(s). Go on?" in said.stderr
    assert operated.open == ["dead-3"]


def test_a_yes_to_thousands_settles_them_in_lots_that_intake_takes(
    operated: Operated, at_terminal: Callable[..., Said]
) -> None:
    operated.open = [f"dead-{number}" for number in range(2 * MAX_IDS + 1)]
    wanted = list(operated.open)

    said = at_terminal(*DISCARD, typed="y\n")

    settling = [request for request in operated.asked if not request.dry_run]
    assert said.exit_code == 0
    assert [len(request.selection.ids) for request in settling] == [MAX_IDS, MAX_IDS, 1]
    assert [each for request in settling for each in request.selection.ids] == wanted
    assert {request.reason for request in settling} == {"not wanted"}


def test_what_a_yes_could_not_settle_is_told_beside_what_it_did(
    operated: Operated, at_terminal: Callable[..., Said]
) -> None:
    operated.refused = [SettleResult(id="dead-0", result="target_gone", detail="SAP is gone")]

    said = at_terminal(*REDRIVE, typed="y\n")

    assert said.results == {"dead-0": "target_gone", "dead-1": "redriven", "dead-2": "redriven"}
    assert (said.exit_code, "2 redriven, 1 target gone." in said.stderr) == (1, True)


def test_where_nothing_is_selected_nobody_is_asked_and_nothing_is_settled(
    operated: Operated, at_terminal: Callable[..., Said]
) -> None:
    operated.open = []

    said = at_terminal(*DISCARD, typed="")

    assert (said.exit_code, [request.dry_run for request in operated.asked]) == (1, [True])
    assert "No open dead letter fits; nothing was changed." in said.stderr


def test_a_no_changes_nothing(operated: Operated, at_terminal: Callable[..., Said]) -> None:
    said = at_terminal(*DISCARD, typed="n\n")

    assert (said.exit_code, [request.dry_run for request in operated.asked]) == (1, [True])


LOST = "the answer was lost; part of it may be done; run the same command again, nothing is settled twice"


def aborting(code: grpc.StatusCode) -> Callable[[Any, grpc.ServicerContext], Any]:
    """A call that ends as gRPC itself ends one, without details of the hub."""

    def abort(_: Any, context: grpc.ServicerContext) -> Any:
        context.abort(code, "Socket closed")

    return abort


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_after_a_lost_answer_it_is_said_what_may_have_been_done(operated: Operated, code: grpc.StatusCode) -> None:
    operated.instead = aborting(code)

    for command in (DISCARD, REDRIVE):
        result = CliRunner().invoke(app, command)

        assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
        assert LOST in result.stderr


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_after_the_lost_answer_of_a_dry_run_nothing_has_been_done(operated: Operated, code: grpc.StatusCode) -> None:
    operated.instead = aborting(code)

    result = CliRunner().invoke(app, [*REDRIVE, "--dry-run"])

    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "the answer was lost; ask again" in result.stderr
    assert "part of it" not in result.stderr


def test_a_name_without_an_address_is_no_lost_answer(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_INTAKE_URL", "intake.invalid:50051")

    result = CliRunner().invoke(app, DISCARD)

    assert "The hub's intake is not running at intake.invalid:50051; start" in result.stderr
    assert operated.asked == []


def hang_up(server: socket.socket) -> None:
    server.accept()[0].close()


def test_what_takes_no_connection_has_done_nothing(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=hang_up, args=(server,), daemon=True).start()
        monkeypatch.setenv("HUB_INTAKE_URL", f"127.0.0.1:{server.getsockname()[1]}")

        result = CliRunner().invoke(app, DISCARD)

    assert "does not take the connection; nothing was sent" in result.stderr
    assert operated.asked == []
