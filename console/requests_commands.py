"""`hub send` and `hub get`: what a partner does, over REST."""

import json
import re
import secrets
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from console.example import EXAMPLE_PARTNER, EXAMPLE_PAYLOAD, EXAMPLE_SOURCE, EXAMPLE_TARGET, request_body
from console.history import HEADERS, Event, history_rows
from console.tables import print_json, print_table

FAILED = 1

SEND_EXAMPLES = """\b
Examples:
  hub send --wait                       the example order, until it is Completed or Failed
  hub send order.json --partner acme    the file holds the whole body
  hub send --external-id A-1 --payload '{"orderId": "A-1", "customer": "ACME", "amount": 10.00}'
  jq -c . order.json | hub send -
"""
GET_EXAMPLES = """\b
Examples:
  hub get 3fa85f64-5717-4562-b3fc-2c963f66afa6
  hub get 3fa85f64-5717-4562-b3fc-2c963f66afa6 --history
  hub get 3fa85f64-5717-4562-b3fc-2c963f66afa6 --partner acme --json | jq .status
  hub get --correlation-id 550e8400-e29b-41d4-a716-446655440000 --history
"""

Partner = Annotated[
    str, typer.Option(metavar="NAME", help="The partner to be; a request is seen by its partner alone.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the body as the hub sent it.")]


def send(
    *,
    file: Annotated[str | None, typer.Argument(metavar="FILE|-", help="File with the whole body; - = stdin.")] = None,
    partner: Partner = EXAMPLE_PARTNER,
    external_id: Annotated[str | None, typer.Option(help="The partner's own key; a new one when left out.")] = None,
    source: Annotated[str | None, typer.Option(help=f"Source system [default: {EXAMPLE_SOURCE}].")] = None,
    target: Annotated[str | None, typer.Option(help=f"Target system [default: {EXAMPLE_TARGET}].")] = None,
    payload: Annotated[
        str | None, typer.Option(metavar="JSON", help="The document; the example when left out.")
    ] = None,
    correlation_id: Annotated[str | None, typer.Option(help="Follows the request through every log.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 1 when it is Failed.")] = False,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long --wait waits.")] = 300,
    as_json: AsJson = False,
) -> None:
    """Send one integration request and print the hub's answer."""
    if file is not None:
        if (external_id, source, target, payload) != (None, None, None, None):
            raise typer.BadParameter("a FILE holds the whole body; leave out the options that make one")
        body = _read(file)
        same = "the same body"
    else:
        external_id = external_id or f"PARTNER-{secrets.token_hex(5)}"
        same = f"`--external-id {shlex.quote(external_id)}`"
        body = request_body(
            external_id=external_id,
            source=source or EXAMPLE_SOURCE,
            target=target or EXAMPLE_TARGET,
            payload_json=EXAMPLE_PAYLOAD if payload is None else check_payload(payload),
        ).encode()
    if correlation_id is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", correlation_id):
        raise typer.BadParameter("a correlation id is 1 to 128 characters out of A-Z a-z 0-9 . _ -")
    again = f"repeat the command with {same}, and there is no second order"
    _send(body, again, partner=partner, correlation_id=correlation_id, wait=wait, timeout=timeout, as_json=as_json)


def get(
    request_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The id that the hub gave the request.")
    ] = None,
    *,
    correlation_id: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Instead of the id: all requests that were sent with it.")
    ] = None,
    partner: Partner = EXAMPLE_PARTNER,
    history: Annotated[bool, typer.Option("--history", help="Print everything that happened to it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read one integration request, or those of one correlation id, or their whole story."""
    from console.configuration import read_settings
    from console.rest_client import RestClient

    if (request_id is None) == (correlation_id is None):
        raise typer.BadParameter("name the ID of a request, or a --correlation-id")
    with RestClient(read_settings(), partner) as client:
        found, more = ([request_id], False) if request_id is not None else client.find(str(correlation_id))
        for each in found:
            if not history:
                print_json(client.get(each), verbatim=as_json)
                continue
            if len(found) > 1 and not as_json:
                typer.echo(each)
            story = client.history(each)
            print_json(story, verbatim=True) if as_json else _print_history(story)
    if more:
        typer.echo(f"These are the newest {len(found)}; there are more.", err=True)


def check_payload(text: str) -> str:
    """Check that a payload is one JSON object and nothing after it. Raises: BadParameter."""
    from chassis.json_text import MalformedJson, NestingTooDeep, check_json

    try:
        check_json(text.encode())
    except (MalformedJson, NestingTooDeep, UnicodeEncodeError) as error:
        raise typer.BadParameter(f"the payload is not JSON as the hub takes it: {error}") from error
    if not text.lstrip().startswith("{"):
        raise typer.BadParameter("the payload must be a JSON object")
    return text


def _send(
    body: bytes, again: str, *, partner: str, correlation_id: str | None, wait: bool, timeout: float, as_json: bool
) -> None:
    from console.configuration import read_settings
    from console.rest_client import RestClient, status_of

    with RestClient(read_settings(), partner) as client:
        answer = client.create(body, correlation_id, again=again)
        if not wait:
            print_json(answer, verbatim=as_json)
            return
        request_id = json.loads(answer)["id"]
        typer.echo(f"accepted as {request_id}", err=True)
        final = client.wait_for_end(request_id, timeout)
    print_json(final, verbatim=as_json)
    if status_of(final) == "Failed":
        raise typer.Exit(FAILED)


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from error


def _print_history(body: bytes) -> None:
    rows = history_rows([Event.from_json(item) for item in _items(body)])
    print_table(HEADERS, rows)


def _items(body: bytes) -> list[dict[str, object]]:
    items: list[dict[str, object]] = json.loads(body)["items"]
    return items
