"""Every event's JSON is what the message of events.v1 reads, and the seed's shape."""

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from intake_service import events
from intake_service.events import About, Event
from intake_service.integration_request import TRANSITIONS, Status
from integrationhub.events.v1 import events_pb2

AT = 1_705_314_600_123_456
ABOUT = About(
    request_id="3fa85f64-5717-4562-b3fc-2c963f66afa6",
    external_id='PARTNER-"12345"',
    correlation_id="c-1",
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    target_system="TotvsProtheus",
)
SAMPLES: dict[str, Event] = {
    "created": events.created(ABOUT, AT),
    "dead lettered": events.dead_lettered(ABOUT, AT, attempts=4, failure_reason="external_unavailable"),
    **{
        f"{before} to {after}": events.transition(ABOUT, AT, before, after, attempts=2, failure_reason="timeout")
        for before, after in TRANSITIONS
    },
}


def message_of(event: Event) -> Message:
    message: Message = getattr(events_pb2, event.type)()
    return json_format.Parse(event.data, message)


def test_the_samples_hold_every_type() -> None:
    messages = set(events_pb2.DESCRIPTOR.message_types_by_name)

    assert {event.type for event in SAMPLES.values()} == set(events.EVENT_TYPES) == messages


@pytest.mark.parametrize("sample", SAMPLES)
def test_an_events_data_is_the_proto_json_of_its_message(sample: str) -> None:
    event = SAMPLES[sample]
    message: Any = message_of(event)

    assert (message.event_type, message.request_id) == (event.type, ABOUT.request_id)
    assert (message.correlation_id, message.external_id) == (ABOUT.correlation_id, ABOUT.external_id)
    assert message.timestamp.ToMilliseconds() == AT // 1000
    # what is not in the message would be lost on the way back
    assert json.loads(json_format.MessageToJson(message)) == json.loads(event.data)


def test_the_seeds_event_looks_as_in_the_seed() -> None:
    assert json.loads(SAMPLES["created"].data) == {
        "eventType": "IntegrationRequestCreated",
        "requestId": "3fa85f64-5717-4562-b3fc-2c963f66afa6",
        "correlationId": "c-1",
        "externalId": 'PARTNER-"12345"',
        "timestamp": "2024-01-15T10:30:00.123Z",
    }


@pytest.mark.parametrize(
    ("move", "event_type", "more"),
    [
        ("Received to Processing", events.STATUS_CHANGED, {"oldStatus": "Received", "newStatus": "Processing"}),
        ("WaitingExternal to Completed", events.COMPLETED, {"completedAt": "2024-01-15T10:30:00.123Z", "attempts": 2}),
        ("WaitingExternal to Failed", events.FAILED, {"failureReason": "timeout", "attempts": 2}),
        ("Failed to Received", events.STATUS_CHANGED, {"oldStatus": "Failed", "newStatus": "Received"}),
    ],
)
def test_a_move_has_its_type_and_what_belongs_to_it(move: str, event_type: str, more: dict[str, Any]) -> None:
    event = SAMPLES[move]

    assert event.type == event_type
    assert json.loads(event.data).items() >= more.items()


def test_only_what_brings_work_rings() -> None:
    ringing = {name for name, event in SAMPLES.items() if event.rings}

    assert ringing == {"created", f"{Status.FAILED} to {Status.RECEIVED}"}


def test_an_event_goes_to_the_event_stream_after_the_work_and_a_dead_letter_to_its_own_too() -> None:
    streams = {name: [stream for stream, _ in SAMPLES[name].entries("t")] for name in ("created", "dead lettered")}

    assert streams == {"created": ["hub:work:TotvsProtheus", "hub:events"], "dead lettered": ["hub:events", "hub:dlq"]}


def test_an_entry_of_the_event_stream_has_the_contracts_fields() -> None:
    event = SAMPLES["created"]
    _, fields = event.entries("trace-of-the-publication")[-1]

    assert fields == {
        "type": "IntegrationRequestCreated",
        "id": ABOUT.request_id,
        "correlation_id": "c-1",
        "traceparent": "trace-of-the-publication",
        "data": event.data,
    }


def test_an_entry_of_a_work_stream_names_the_request_and_carries_no_content() -> None:
    _, fields = SAMPLES["created"].entries("")[0]

    assert fields == {"id": ABOUT.request_id}


def test_a_failure_events_reason_is_read_back() -> None:
    assert SAMPLES["WaitingExternal to Failed"].failure_reason == "timeout"
    assert SAMPLES["created"].failure_reason == ""
