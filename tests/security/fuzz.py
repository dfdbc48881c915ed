"""Fuzzing a whole hub for as long as it is wanted: `python -m tests.security.fuzz --cases 100000`.

Four kinds of case: bytes for everything that parses them, random messages for every RPC, calls made from the OpenAPI
document (schemathesis), entries in the work stream. An unhandled error is a 500, INTERNAL, UNKNOWN, a process that is
gone, or an exception that a parser must not raise; the first one ends the run.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import redis
import schemathesis
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance

from chassis.access import RPC_SCOPES, SCOPES
from console.testing import HubProcess
from integrationhub.adapter.v1 import adapter_pb2
from integrationhub.intake.v1 import dead_letters_pb2, intake_pb2, lifecycle_pb2
from integrationhub.orchestrator.v1 import orchestrator_pb2
from tests.security.parsers import PARSERS

WORK = "hub:work:TotvsProtheus"
#: Messages for one RPC that are in flight at once.
AT_ONCE = 20
ALLOWED = {
    *("OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "PERMISSION_DENIED"),
    *("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE"),
}
#: Of all cases.
SHARES = {"parsers": 0.30, "rpc": 0.64, "rest": 0.03, "stream": 0.03}

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
).map(lambda value: json.dumps(value).encode())
_PIECES = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"1e400",
        b"NaN",
        b"null",
        b"\xff",
        b"\x00",
    ]
)
_BYTES = st.one_of(st.binary(max_size=200), _JSON, st.lists(_PIECES | _JSON, max_size=12).map(b"".join))
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(-1, 12),
}
_TEXT = st.one_of(
    st.sampled_from(["", "E-1", "SAP", "TotvsProtheus", "{}", '{"a":1}', "00000000-0000-4000-8000-000000000000"]),
    st.text(max_size=40),
    st.uuids().map(str),
    _JSON.map(bytes.decode),
)


def messages(descriptor: Descriptor, depth: int = 3) -> st.SearchStrategy[Any]:
    """Random messages of one type; any field may be absent."""
    cls = message_factory.GetMessageClass(descriptor)
    fields = {field.name: _values(field, depth) for field in descriptor.fields if depth or field.message_type is None}
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: _build(cls, descriptor, values))


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        one = messages(field.message_type, depth - 1)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        one = st.binary(max_size=40) if field.type == FieldDescriptor.TYPE_BYTES else _TEXT
    else:
        one = _SCALARS[field.cpp_type]
    return st.lists(one, max_size=3) if field.is_repeated else one


def _build(cls: Any, descriptor: Descriptor, values: dict[str, Any]) -> Any:
    chosen: dict[str, Any] = {}
    for name, value in values.items():
        oneof = descriptor.fields_by_name[name].containing_oneof
        if oneof is None or not any(other.name in chosen for other in oneof.fields):
            chosen[name] = value
    return cls(**chosen)


def _requests() -> dict[str, Descriptor]:
    files = (intake_pb2, lifecycle_pb2, dead_letters_pb2, adapter_pb2, orchestrator_pb2)
    return {
        f"/{service.full_name}/{method.name}": method.input_type
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def _run(strategy: st.SearchStrategy[Any], examples: int, check: Callable[[Any], None]) -> None:
    """Check so many values; the first that fails is made small and told."""

    @settings(max_examples=max(1, examples), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def run(value: Any) -> None:
        check(value)

    run()


def fuzz_parsers(cases: int) -> int:
    """Random bytes for every parser; gives how many cases there were."""
    done = Counter[str]()

    def check(name: str, data: bytes) -> None:
        done[name] += 1
        PARSERS[name](data)

    for name in PARSERS:
        _run(_BYTES, cases // len(PARSERS), partial(check, name))
    return done.total()


def fuzz_rpc(hub: HubProcess, cases: int) -> Counter[str]:
    """Random messages for every RPC; gives the codes of the answers."""
    codes = Counter[str]()
    methods = _requests()

    def check(method: str, batch: list[bytes]) -> None:
        found = runner.run(_call_all(hub, method, batch))
        codes.update(found)
        assert found.keys() <= ALLOWED, (method, found)

    with asyncio.Runner() as runner:
        for method in RPC_SCOPES:
            one = st.one_of(messages(methods[method]).map(_to_bytes), st.binary())
            many = st.lists(one, min_size=AT_ONCE, max_size=AT_ONCE)
            _run(many, cases // len(RPC_SCOPES) // AT_ONCE, partial(check, method))
    return codes


def _to_bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


async def _call_all(hub: HubProcess, method: str, batch: list[bytes]) -> Counter[str]:
    service = method.split(".")[1]
    token = hub.token("fuzz", *SCOPES, rate_per_minute=0)
    async with grpc.aio.insecure_channel(hub.setting(f"{service}_address")) as channel:
        return Counter(await asyncio.gather(*(_code(channel, method, data, token) for data in batch)))


async def _code(channel: grpc.aio.Channel, method: str, data: bytes, token: str) -> str:
    metadata = (("authorization", f"Bearer {token}"),)
    try:
        if method.endswith("DeliverBatch"):
            answers: Any = channel.unary_stream(method)
            stream = answers(data, metadata=metadata, timeout=30)
            while await stream.read() is not grpc.aio.EOF:
                pass
        else:
            answer: Any = channel.unary_unary(method)
            await answer(data, metadata=metadata, timeout=30)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


def fuzz_rest(hub: HubProcess, cases: int) -> int:
    """Calls made from the OpenAPI document, right and wrong ones; gives how many there were."""
    schema = schemathesis.openapi.from_url(f"{hub.base_url}/openapi.json")
    header = {"Authorization": f"Bearer {hub.token('fuzz', rate_per_minute=0)}"}
    found: Any = schema.get_all_operations()
    operations = [operation.ok() for operation in found]
    made = Counter[str]()

    def check(case: Any) -> None:
        made[case.method] += 1
        response = case.call(base_url=hub.base_url, headers=header)
        case.validate_response(response, checks=[not_a_server_error, content_type_conformance])
        assert "x-correlation-id" in response.headers

    for operation in operations:
        for mode in schemathesis.GenerationMode:
            # what takes no parameters and no body cannot be called wrongly
            if mode is schemathesis.GenerationMode.POSITIVE or operation.path.startswith("/api"):
                _run(operation.as_strategy(generation_mode=mode), cases // len(operations), check)
    return made.total()


def fuzz_stream(hub: HubProcess, cases: int) -> int:
    """Entries that nobody of ours wrote; all of them are taken out again."""
    texts = _TEXT.map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=60)
    names = st.sampled_from([b"type", b"id", b"correlation_id", b"traceparent", b"data"]) | st.binary(max_size=20)
    added = Counter[str]()
    with redis.Redis.from_url(hub.redis_url) as client:

        def add(fields: dict[Any, Any]) -> None:
            added[WORK] += 1
            client.xadd(WORK, fields)

        _run(st.dictionaries(names, texts, min_size=1, max_size=6), cases, add)
        deadline = time.monotonic() + 120
        while client.xlen(WORK):
            assert time.monotonic() < deadline, f"{client.xlen(WORK)} entries are left"
            time.sleep(0.1)
    return added.total()


def fuzz(hub: HubProcess, cases: int) -> dict[str, int]:
    """Run all four kinds; gives how many cases of each. Raises: what was found."""
    pids = hub.child_pids()
    share = {kind: int(cases * part) for kind, part in SHARES.items()}
    done = {
        "parsers": fuzz_parsers(share["parsers"]),
        "rpc": fuzz_rpc(hub, share["rpc"]).total(),
        "rest": fuzz_rest(hub, share["rest"]),
        "stream": fuzz_stream(hub, share["stream"]),
    }
    assert hub.child_pids() == pids, "a process was started anew"
    return done


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.security.fuzz", description="Fuzz a whole hub.")
    parser.add_argument("--cases", type=int, default=100_000, help="how many in all (default 100000)")
    cases = parser.parse_args().cases
    with tempfile.TemporaryDirectory(prefix="hub-fuzz-") as folder, asyncio.Runner() as runner:
        hub = runner.run(HubProcess(Path(folder), partner_rate_per_minute="0").start())
        started = time.monotonic()
        try:
            done = fuzz(hub, cases)
        finally:
            runner.run(hub.stop())
    kinds = ", ".join(f"{kind} {number}" for kind, number in done.items())
    print(f"{sum(done.values())} cases without an unhandled error in {time.monotonic() - started:.0f} s ({kinds})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
