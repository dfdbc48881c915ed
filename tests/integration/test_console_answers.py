"""`hub send` and `hub get` against answers that are not what a gateway gives, and against a terminal."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from console.__main__ import app
from console.configuration import environment_of, read_settings, unknown_variables

HTML = b"<html>Please sign in</html>"
REQUESTS = "/api/integration-requests"


class Front:
    """Whatever stands where the gateway should: it answers each path as the test says, in turn."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, bytes]]] = {}
        self.asked: list[str] = []

    def take(self, line: str) -> tuple[int, bytes]:
        """The next answer to `METHOD path`; the last one stays."""
        self.asked.append(line)
        answers = self.answers[line]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Front]:
    for name in [*unknown_variables(), *environment_of(read_settings())]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    hub("keys")
    standing = Front()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = standing.take(f"{self.command} {self.path}")
            self.send_response(status)
            self.send_header("ETag", '"1"')
            self.send_header("Location", "https://login.example")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - http.server's names

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HUB_GATEWAY_ADDRESS", f"127.0.0.1:{server.server_port}")
    yield standing
    server.shutdown()
    server.server_close()


def hub(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="hub")


@pytest.mark.parametrize("options", [[], ["--wait"]])
@pytest.mark.parametrize("status", [200, 204, 301, 302, 304])
def test_only_202_means_that_a_request_was_accepted(front: Front, status: int, options: list[str]) -> None:
    front.answers = {f"POST {REQUESTS}": [(status, b"" if status in (204, 304) else HTML)]}

    result = hub("send", *options)

    assert (result.exit_code, result.stdout) == (1, "")
    assert f"is no hub (status {status} where 202 was due); check HUB_GATEWAY_ADDRESS" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("status", [200, 202, 204, 302, 304])
@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["3fa85f64"], f"{REQUESTS}/3fa85f64"),
        (["3fa85f64", "--history"], f"{REQUESTS}/3fa85f64/history"),
        (["--correlation-id", "c1"], f"{REQUESTS}?correlationId=c1&limit=200"),
    ],
)
def test_only_200_with_json_is_something_to_read(front: Front, status: int, arguments: list[str], path: str) -> None:
    front.answers = {f"GET {path}": [(status, b"" if status in (204, 304) else HTML)]}

    result = hub("get", *arguments)

    assert (result.exit_code, result.stdout) == (1, "")
    assert f"is no hub (status {status} where 200 was due); check HUB_GATEWAY_ADDRESS" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_wait_ends_with_one_line_when_something_else_answers(front: Front) -> None:
    front.answers = {f"POST {REQUESTS}": [(202, b'{"id": "a"}')], f"GET {REQUESTS}/a": [(302, HTML)]}

    result = hub("send", "--wait")

    assert (result.exit_code, result.stdout) == (1, "")
    assert (result.stderr.splitlines()[0], len(result.stderr.splitlines())) == ("accepted as a", 2)
    assert "is no hub (status 302 where 200 was due)" in result.stderr


def test_a_wait_goes_on_over_not_modified_and_answers_that_pass(front: Front) -> None:
    done = json.dumps({"id": "a", "status": "Completed"}).encode()
    waiting = json.dumps({"id": "a", "status": "WaitingExternal"}).encode()
    front.answers = {
        f"POST {REQUESTS}": [(202, b'{"id": "a"}')],
        f"GET {REQUESTS}/a": [(200, waiting), (304, b""), (503, b"{}"), (200, done)],
    }

    result = hub("send", "--wait", "--json")

    assert (result.exit_code, result.stdout) == (0, done.decode() + "\n")


@pytest.mark.parametrize(("cursor", "said"), [("abc", "These are the newest 200; there are more.\n"), (None, "")])
def test_a_correlation_id_with_more_requests_than_are_read_says_so(front: Front, cursor: str | None, said: str) -> None:
    page = {"items": [{"id": f"r{number}"} for number in range(200)], "nextCursor": cursor}
    front.answers = {f"GET {REQUESTS}?correlationId=c1&limit=200": [(200, json.dumps(page).encode())]}
    front.answers |= {f"GET {REQUESTS}/r{number}": [(200, b'{"id":"r"}')] for number in range(200)}

    result = hub("get", "--correlation-id", "c1", "--json")

    assert (result.exit_code, result.stdout, result.stderr) == (0, '{"id":"r"}\n' * 200, said)
