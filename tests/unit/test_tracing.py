"""Spans made by hand: parents, links, chosen ids, sampling, and nothing at all while nobody collects."""

import asyncio
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from chassis.tracing import Tracing, processing_span_id, processing_traceparent, trace_fields, within

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOT_SAMPLED = PARENT[:-2] + "00"
VARIABLES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_SDK_DISABLED",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


class Recorded:
    """A tracing whose spans stay here."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider)

    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def test_without_an_endpoint_there_is_no_span_and_the_context_passes_through() -> None:
    tracing = Tracing.from_environment("gateway")

    with tracing.span("api", PARENT) as inside:
        begun = tracing.begin("api", PARENT)

    assert not tracing.enabled
    assert begun is None
    assert (inside, tracing.record("db", PARENT, 1)) == (PARENT, PARENT)


def test_without_an_endpoint_the_sdk_is_not_even_imported() -> None:
    program = "import sys; from chassis.tracing import Tracing; Tracing.from_environment('x'); print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "chassis.tracing" in done.stdout.split()
    assert [name for name in done.stdout.split() if name.startswith(("opentelemetry.sdk", "opentelemetry.exp"))] == []


@pytest.mark.parametrize(
    "changes",
    [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}],
)
def test_the_standard_variables_switch_it_off(changes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    for name, value in changes.items():
        monkeypatch.setenv(name, value)

    assert not Tracing.from_environment("gateway").enabled


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
def test_a_protocol_that_is_not_spoken_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "false")
    said = {}

    for protocol in ("grpc", "http/protobuf"):
        monkeypatch.setenv(name, protocol)
        with capture_logs() as lines:
            tracing = Tracing.from_environment("gateway")
        asyncio.run(tracing.stop())
        said[protocol] = [(line["event"], line["protocol"]) for line in lines]

    assert said == {
        "grpc": [],
        "http/protobuf": [("Traces are sent over gRPC, whatever protocol is asked for", "http/protobuf")],
    }


def test_a_span_hangs_below_its_parent_and_gives_its_own_context() -> None:
    recorded = Recorded()

    with recorded.tracing.span("api", PARENT, SpanKind.SERVER) as inside:
        pass

    (span,) = recorded.spans()
    assert span.parent is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (PARENT[3:35], PARENT[36:52])
    assert inside == f"00-{ids(span)[0]}-{ids(span)[1]}-01"
    assert span.status.status_code is StatusCode.UNSET


def test_without_a_parent_a_trace_begins() -> None:
    recorded = Recorded()

    with recorded.tracing.span("api", "") as inside:
        pass

    (span,) = recorded.spans()
    assert span.parent is None
    assert inside[3:35] == ids(span)[0]


def test_an_error_fails_the_span_without_its_message() -> None:
    recorded = Recorded()

    with pytest.raises(ValueError, match="a payload"), recorded.tracing.span("api", PARENT):
        raise ValueError("a payload")

    (span,) = recorded.spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError")
    assert span.events == ()


def test_what_is_recorded_afterwards_began_when_it_began() -> None:
    recorded = Recorded()

    context = recorded.tracing.record("db", PARENT, 1_000_000)

    (span,) = recorded.spans()
    assert span.start_time == 1_000_000
    assert context[36:52] == ids(span)[1]


def test_a_processing_has_the_id_that_everybody_can_reckon_and_links_to_the_one_before() -> None:
    recorded = Recorded()
    earlier = processing_traceparent(PARENT, "a-request", 1)

    span_id = processing_span_id("a-request", 2)
    with within(recorded.tracing.begin("work", PARENT, span_id=span_id, follows=[earlier]), PARENT) as inside:
        recorded.tracing.record("inner", inside, 1)

    inner, work = recorded.spans()
    assert inside == processing_traceparent(PARENT, "a-request", 2)
    assert ids(work) == (PARENT[3:35], f"{span_id:016x}")
    assert [f"{link.context.span_id:016x}" for link in work.links] == [earlier[36:52]]
    assert ids(inner)[1] != ids(work)[1]


def test_every_lease_of_every_request_has_an_id_of_its_own() -> None:
    found = {processing_span_id(f"request-{number}", token) for number in range(100) for token in range(1, 11)}

    assert len(found) == 1000
    assert 0 not in found


def test_a_trace_that_is_not_sampled_makes_no_span_and_passes_on_as_it_is() -> None:
    recorded = Recorded()

    with recorded.tracing.span("api", NOT_SAMPLED) as inside:
        assert recorded.tracing.begin("db", inside) is None

    assert (inside, recorded.spans()) == (NOT_SAMPLED, [])


def test_the_ratio_decides_where_the_trace_begins_and_everybody_below_obeys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    recorded = Recorded()

    for _ in range(200):
        with recorded.tracing.span("api", "") as inside:
            recorded.tracing.record("db", inside, 1)

    names = [span.name for span in recorded.spans()]
    # 100 of 200 expected; outside 50 to 150 once in 10^12 runs
    assert 50 < names.count("api") < 150
    assert names.count("db") == names.count("api")


def test_a_sampler_that_samples_all_is_obeyed_below_a_parent_that_is_not_sampled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    recorded = Recorded()

    recorded.tracing.record("db", NOT_SAMPLED, 1)

    assert len(recorded.spans()) == 1


def test_a_line_is_joined_to_its_span_or_has_no_such_fields() -> None:
    assert trace_fields(PARENT) == {"trace_id": PARENT[3:35], "span_id": PARENT[36:52]}
    assert trace_fields("") == {}
    assert processing_traceparent("", "a-request", 1) == ""
