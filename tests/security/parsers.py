"""What reads strangers' bytes, each as one function of bytes that may raise nothing; fuzzers are let loose on it."""

import json
from collections.abc import Callable, Mapping
from urllib.parse import quote_from_bytes

from adapter_service.answers import MAX_RESPONSE_BYTES, read_answer
from adapter_service.masked_paths import mask_paths, read_paths
from chassis.access import NO_LIMITS
from chassis.correlation import clean_correlation_id, clean_traceparent
from chassis.errors import HubError
from chassis.http_client import HttpAnswer
from chassis.json_text import MalformedJson, NestingTooDeep, check_json
from chassis.tokens import read_key_set
from gateway.list_query import read_list_query
from gateway.mapping import read_create_body, read_id

MARGIN = 1024
_SECRET = "an-adapters-own-secret"
_PATHS = read_paths(["$.a.b", "$.items[*].price"], "fuzz")


def json_text(data: bytes) -> None:
    """What passes is JSON for every other parser too."""
    try:
        check_json(data)
    except (MalformedJson, NestingTooDeep):
        return
    json.loads(data)


def create_body(data: bytes) -> None:
    """A body is read, or refused with a reason; what is kept of the payload is a piece of what was sent."""
    try:
        body = read_create_body(data)
    except HubError:
        return
    assert bytes(body.payload) in data


def created_payload(data: bytes) -> None:
    """The same with the fuzzer's bytes as the payload."""
    create_body(b'{"externalId":"E","sourceSystem":"S","targetSystem":"T","payload":' + data + b"}")


def list_query(data: bytes) -> None:
    """A query is read, or refused with a reason."""
    for text in (data, quote_from_bytes(data, safe="=&").encode()):
        try:
            read_list_query(text, partner_id="acme", limits=NO_LIMITS)
        except HubError:
            continue


def path_id(data: bytes) -> None:
    """An id is canonical, or refused."""
    try:
        assert len(read_id(data.decode("latin-1"))) == 36
    except HubError:
        return


def identifiers(data: bytes) -> None:
    """What comes out is safe in a header."""
    text = data.decode("latin-1")
    assert clean_correlation_id(text).isascii()
    assert clean_correlation_id(text).isprintable()
    assert len(clean_traceparent(text)) in (0, 55)


def external_answer(data: bytes) -> None:
    """An answer is kept as JSON, within its limit and without our secret, whatever it is."""
    for content_type in ("application/json", "text/html; charset=windows-1252", ""):
        headers = {"Content-Type": content_type, "Retry-After": data[:40].decode("latin-1")}
        answer = read_answer(HttpAnswer(status=500, headers=headers, body=data, is_complete=True), [_SECRET])
        assert len(answer.response_json.encode()) <= MAX_RESPONSE_BYTES + MARGIN
        assert _SECRET not in answer.response_json
        if answer.response_json:
            json.loads(mask_paths(answer.response_json, _PATHS))


def key_set(data: bytes) -> None:
    """A key set is read, or is none."""
    try:
        read_key_set(data)
    except ValueError:
        return


PARSERS: Mapping[str, Callable[[bytes], None]] = {
    function.__name__: function
    for function in (
        *(json_text, create_body, created_payload, list_query),
        *(path_id, identifiers, external_answer, key_set),
    )
}
