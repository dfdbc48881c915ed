"""What an operator sees of a running hub: its log lines, its metrics, and the spans that it sends."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from console.testing import HubProcess

SERVICES = ("gateway", "intake", "orchestrator", "adapter")


class OtlpReceiver(TraceServiceServicer):
    """A collector of spans, as the OTLP contract has it; `spans` holds what has come, by trace id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._exports: list[ExportTraceServiceRequest] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]  # generated without hints
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(  # noqa: N802 - gRPC's name
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """Take spans."""
        del context
        with self._lock:
            self._exports.append(request)
        return ExportTraceServiceResponse()

    def stop(self) -> None:
        """Stop listening."""
        self._server.stop(0).wait()

    def raw(self) -> bytes:
        """Everything that came, to be searched."""
        with self._lock:
            return b"".join(export.SerializeToString() for export in self._exports)

    def spans(self, trace_id: str) -> dict[str, list[tuple[str, Span]]]:
        """The spans of a trace by name, each with the service that sent it, the earliest first."""
        found: dict[str, list[tuple[str, Span]]] = {}
        for service, span in sorted(self._all(), key=lambda item: item[1].start_time_unix_nano):
            if span.trace_id.hex() == trace_id:
                found.setdefault(span.name, []).append((service, span))
        return found

    def _all(self) -> Iterator[tuple[str, Span]]:
        with self._lock:
            exports = list(self._exports)
        for export in exports:
            for resource_spans in export.resource_spans:
                (service,) = (
                    each.value.string_value for each in resource_spans.resource.attributes if each.key == "service.name"
                )
                for scope_spans in resource_spans.scope_spans:
                    for span in scope_spans.spans:
                        yield service, span


def log_lines(hub: HubProcess) -> list[dict[str, Any]]:
    """Every line of the four services. Raises: ValueError for a line that is not JSON."""
    folder = Path(hub.setting("state_dir")) / "logs"
    return [json.loads(line) for service in SERVICES for line in (folder / f"{service}.log").read_text().splitlines()]


def all_output(hub: HubProcess) -> str:
    """All that every process of the hub has written, the supervisor and Valkey included."""
    folder = Path(hub.setting("state_dir")) / "logs"
    return "\n".join(path.read_text(errors="replace") for path in [*folder.iterdir(), hub.folder / "hub.log"])


def metrics_text(hub: HubProcess, service: str) -> str:
    """A service's /metrics as it is."""
    with urllib.request.urlopen(f"http://{hub.setting(f'{service}_metrics_address')}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def samples(hub: HubProcess, service: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """A service's samples by name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics_text(hub, service))
        for sample in family.samples
    }


def sample(hub: HubProcess, service: str, name: str, **labels: str) -> float:
    """One sample's value. Raises: KeyError when there is no such series."""
    return samples(hub, service)[name, tuple(sorted(labels.items()))]
