"""The command line without a hub: help, usage errors, tokens, settings, and what is said when nothing runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from chassis.errors import HubError
from chassis.settings import HubSettings
from chassis.testing import free_port
from chassis.tokens import JwksSource, TokenVerifier
from console.__main__ import app
from console.configuration import environment_of, unknown_variables
from console.example import EXAMPLE_PAYLOAD, example_body
from console.history import Event, history_rows
from console.rest_client import Answer, refusal
from console.tables import clean, span

COMMANDS = [
    ["up"],
    ["send"],
    ["get"],
    ["token"],
    ["keys"],
    ["targets"],
    ["config"],
    ["dead-letters", "list"],
    ["dead-letters", "show"],
    ["dead-letters", "redrive"],
    ["dead-letters", "discard"],
]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*unknown_variables(), *environment_of(HubSettings())]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def hub(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin, prog_name="hub")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_examples(command: list[str]) -> None:
    result = hub(*command, "--help")

    assert result.exit_code == 0
    assert f"Usage: hub {' '.join(command)}" in result.stdout
    assert f"\n    hub {' '.join(command)}" in result.stdout


def test_the_command_alone_prints_its_help() -> None:
    result = hub()

    assert result.exit_code == 2
    assert "dead-letters" in result.output


def test_prints_its_version() -> None:
    assert hub("--version").stdout.startswith("hub ")


def test_an_unknown_command_is_a_usage_error() -> None:
    assert hub("sned").exit_code == 2


# Tokens


async def test_a_token_is_for_its_partner_with_its_scopes_and_claims() -> None:
    hub("keys")
    options = ("--scope", "operations, requests:read", "--claim", "rate_per_minute=60", "--claim", 'sources=["SAP"]')
    result = hub("token", "--partner", "acme", *options)

    verifier = TokenVerifier(JwksSource(".hub/keys/jwks.json"), issuer="integration-hub", audience="integration-hub")
    caller = await verifier.verify_header(f"Bearer {result.stdout.strip()}")

    assert (caller.subject, sorted(caller.scopes)) == ("acme", ["operations", "requests:read"])
    assert (caller.limits.rate_per_minute, caller.limits.sources) == (60, frozenset({"SAP"}))


async def test_a_token_lets_a_partner_write_and_read_unless_told_otherwise() -> None:
    hub("keys")
    verifier = TokenVerifier(JwksSource(".hub/keys/jwks.json"), issuer="integration-hub", audience="integration-hub")

    caller = await verifier.verify_header(f"Bearer {hub('token', '--partner', 'acme').stdout.strip()}")

    assert caller.scopes == {"requests:write", "requests:read"}


def test_a_token_is_all_there_is_on_stdout() -> None:
    hub("keys")

    lines = hub("token", "--partner", "acme").stdout.splitlines()

    assert [line.count(".") for line in lines] == [2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--partner", "a", "--scope", "everything"], "there is no scope 'everything'; the scopes are requests:write,"),
        (["--partner", "a", "--scope", " , "], "names no scope"),
        (["--partner", "a", "--seconds", "0"], "should be greater than or equal to 1"),
        (["--partner", "a", "--claim", "rate"], "'rate' is not KEY=VALUE"),
        (["--partner", "a", "--claim", "exp=1"], "the claim exp is set by the hub itself"),
        (["--partner", "a", "--claim", "self=x"], "the claim self is set by the hub itself"),
        (["--partner", " "], "--partner must not be empty"),
        ([], "Missing option '--partner'"),
    ],
)
def test_a_token_that_makes_no_sense_is_a_usage_error(arguments: list[str], message: str) -> None:
    result = hub("token", *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


def test_a_token_without_keys_says_how_to_make_them() -> None:
    result = hub("token", "--partner", "acme")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "`hub up` makes one at its first start, `hub keys` at once" in result.stderr


def test_keys_are_made_once() -> None:
    first, second = hub("keys"), hub("keys")

    assert (first.stdout, second.stdout) == (".hub/keys/jwks.json\n", ".hub/keys/jwks.json\n")
    assert "Made a key set" in first.stderr
    assert "it stays" in second.stderr


def test_keys_in_a_folder_that_cannot_be_made_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HUB_STATE_DIR", str(tmp_path / "file" / "state"))

    result = hub("keys")

    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    assert f"The state folder {tmp_path / 'file' / 'state'} cannot be used (Not a directory)" in result.stderr
    assert "set HUB_STATE_DIR to a folder of your own" in result.stderr


# Settings


def test_config_shows_defaults_and_what_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_MAX_BACKLOG", "7")

    settings = json.loads(hub("config", "--json").stdout)["settings"]

    said = {name: (each["value"], each["default"]) for name, each in settings.items()}
    assert said["HUB_MAX_BACKLOG"] == ("7", False)
    assert said["HUB_DATABASE_URL"] == ("sqlite:///.hub/hub.sqlite3", True)
    assert [name for name, each in settings.items() if not each["description"]] == []


def test_config_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_DATABASE_URL", "postgresql://hub:geheim@db/hub?sslpassword=geheim")
    monkeypatch.setenv("HUB_REDIS_URL", "rediss://:geheim@redis:6379/0")
    monkeypatch.setenv("PROTHEUS_TOKEN", "geheim")

    for output in (hub("config").output, hub("config", "--json").output):
        assert "geheim" not in output
        assert "postgresql://hub:***@db/hub?sslpassword=***" in output
        assert "env:PROTHEUS_TOKEN" in output


def test_config_names_variables_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_GATEWAY_ADRESS", "127.0.0.1:1")

    assert "HUB_GATEWAY_ADRESS is not a setting of the hub" in hub("config").stderr


def test_a_bad_setting_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_REDIS_PORT", "many")

    result = hub("config")

    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    assert "HUB_REDIS_PORT" in result.stderr


# Nothing runs


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        (["send"], "HUB_GATEWAY_ADDRESS"),
        (["get", "3fa85f64-5717-4562-b3fc-2c963f66afa6"], "HUB_GATEWAY_ADDRESS"),
        (["targets"], "HUB_ORCHESTRATOR_ADDRESS"),
        (["dead-letters", "list"], "HUB_INTAKE_ADDRESS"),
        (["dead-letters", "show", "x"], "HUB_INTAKE_ADDRESS"),
        (["dead-letters", "redrive", "--all"], "HUB_INTAKE_ADDRESS"),
        (["dead-letters", "discard", "x", "--reason", "y"], "HUB_INTAKE_ADDRESS"),
    ],
)
def test_says_where_the_hub_should_run_and_how_to_start_it(
    monkeypatch: pytest.MonkeyPatch, command: list[str], setting: str
) -> None:
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv(setting, address)
    hub("keys")

    result = hub(*command)

    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    assert f"is not running at {address}; start" in result.stderr
    assert "`make run`" in result.stderr


# Requests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.json"], "absent.json cannot be read: No such file or directory"),
        (["-", "--external-id", "A-1"], "a FILE holds the whole body"),
        (["--payload", "{"], "the payload is not JSON as the hub takes it"),
        (["--payload", '{"a":1}, "externalId": "B-1"'], "the payload is not JSON as the hub takes it"),
        (["--payload", "[1]"], "the payload must be a JSON object"),
        (["--correlation-id", "a b"], "a correlation id is 1 to 128 characters"),
    ],
)
def test_a_request_that_cannot_be_built_is_a_usage_error(arguments: list[str], message: str) -> None:
    result = hub("send", *arguments, stdin="{}")

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


def test_the_example_keeps_its_amount_to_the_cent() -> None:
    body = example_body('PARTNER-"1"')

    assert '"amount": 15000.00' in body
    assert json.loads(body)["externalId"] == 'PARTNER-"1"'
    assert json.loads(body)["payload"] == json.loads(EXAMPLE_PAYLOAD)


def test_a_refusal_is_told_in_one_line() -> None:
    problem = {
        "title": "Unprocessable",
        "detail": "The body breaks the contract.",
        "errors": [{"pointer": "/externalId", "detail": "is required"}, {"pointer": "/x", "detail": "is unknown"}],
        "correlationId": "c1",
    }
    answer = Answer(status=422, body=json.dumps(problem).encode(), etag="", retry_after="2")

    error = refusal(answer)

    assert isinstance(error, HubError)
    assert error.message == (
        "The body breaks the contract (/externalId: is required; /x: is unknown); "
        "repeat it after 2 s; correlation id c1"
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"errors": [1]}'])
def test_an_answer_that_is_no_problem_document_is_told_too(body: bytes) -> None:
    assert refusal(Answer(status=502, body=body, etag="", retry_after="")).message == (
        "The hub answered with status 502"
    )


# Dead letters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["redrive"], "nothing is selected"),
        (["redrive", "--dry-run", "--yes"], "nothing is selected"),
        (["redrive", "--target", ""], "nothing is selected"),
        (["redrive", "a", "--all"], "not IDs and the others together"),
        (["redrive", "a", "--target", "T"], "not IDs and the others together"),
        (["redrive", "--all", "--payload", "p.json"], "--payload corrects exactly one request"),
        (["redrive", "a", "b", "--payload", "p.json"], "--payload corrects exactly one request"),
        (["redrive", "a", "--payload", "absent.json"], "absent.json cannot be read"),
        (["redrive", "--all", "--certainly-absent", "--reason", "x"], "--certainly-absent needs the IDs"),
        (["redrive", "a", "--certainly-absent"], "--certainly-absent needs the IDs"),
        (["discard", "a"], "Missing option '--reason'"),
        (["discard", "a", "--reason", " "], "--reason must say why"),
        (["discard", "--reason", "x"], "nothing is selected"),
        (["list", "--state", "lost"], "'lost' is not one of"),
        # one word, one meaning: it is why somebody settles, and `discard --reason expired` is no filter
        (["list", "--reason", "expired"], "No such option: --reason"),
        (["list", "--limit", "0"], "should be greater than or equal to 1"),
    ],
)
def test_a_selection_that_is_not_clear_changes_nothing(arguments: list[str], message: str) -> None:
    result = hub("dead-letters", *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())


# What people read


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"),
        (0.85, "850 ms"),
        (12.34, "12.3 s"),
        (119.9, "119.9 s"),
        (240, "4 min"),
        (7200, "2 h"),
        (172_800, "2 d"),
    ],
)
def test_writes_a_span_as_people_say_it(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    assert clean("a\x1b[2Jb\nc\u202ed é") == "a [2Jb c d é"


def test_a_history_becomes_a_timeline() -> None:
    items: list[dict[str, Any]] = [
        {"kind": "transition", "at": "2026-01-15T10:30:00.000Z", "toStatus": "Received", "actor": "acme"},
        {
            "kind": "attempt",
            "at": "2026-01-15T10:30:02.500Z",
            "fromStatus": "WaitingExternal",
            "toStatus": "WaitingExternal",
            "attempt": 1,
            "outcome": "UNAVAILABLE",
            "durationMs": 12.4,
            "detail": "503",
        },
        {"kind": "transition", "at": "2026-01-15T10:30:05Z", "fromStatus": "WaitingExternal", "toStatus": "Completed"},
    ]

    assert history_rows([Event.from_json(item) for item in items]) == [
        ("2026-01-15T10:30:00.000Z", "+0 ms", "transition", "Received", "", "", "acme", ""),
        ("2026-01-15T10:30:02.500Z", "+2.5 s", "attempt UNAVAILABLE", "WaitingExternal", "1", "12 ms", "", "503"),
        ("2026-01-15T10:30:05.000Z", "+5.0 s", "transition", "WaitingExternal > Completed", "", "", "", ""),
    ]
