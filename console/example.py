"""The order of the flow document, as the examples send it."""

import json

EXAMPLE_PARTNER = "acme"
EXAMPLE_SOURCE = "SAP"
EXAMPLE_TARGET = "TotvsProtheus"
#: Text, not an object: the amount must arrive as it is written here.
EXAMPLE_PAYLOAD = '{"orderId": "ORD-2024-001", "customer": "Empresa ABC", "amount": 15000.00}'


def example_body(external_id: str) -> str:
    """The body of a POST that sends the example order."""
    return request_body(
        external_id=external_id, source=EXAMPLE_SOURCE, target=EXAMPLE_TARGET, payload_json=EXAMPLE_PAYLOAD
    )


def request_body(*, external_id: str, source: str, target: str, payload_json: str) -> str:
    """Build the body of a POST around a payload, which goes in letter by letter."""
    return (
        f'{{"externalId": {json.dumps(external_id)}, "sourceSystem": {json.dumps(source)}, '
        f'"targetSystem": {json.dumps(target)}, "payload": {payload_json}}}'
    )
