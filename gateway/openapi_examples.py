"""The seed's example as the OpenAPI document shows it: one order of SAP for TOTVS Protheus."""

ID = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
CORRELATION_ID = "550e8400-e29b-41d4-a716-446655440000"
EXTERNAL_ID = "PARTNER-12345"

CREATE = {
    "externalId": EXTERNAL_ID,
    "sourceSystem": "SAP",
    "targetSystem": "TotvsProtheus",
    "payload": {"orderId": "ORD-2024-001", "customer": "Empresa ABC", "amount": 15000.00},
}
ACCEPTED = {
    "id": ID,
    "externalId": EXTERNAL_ID,
    "status": "Received",
    "correlationId": CORRELATION_ID,
    "createdAt": "2024-01-15T10:30:00.000Z",
}
COMPLETED = {
    "id": ID,
    "externalId": EXTERNAL_ID,
    "sourceSystem": "SAP",
    "targetSystem": "TotvsProtheus",
    "status": "Completed",
    "correlationId": CORRELATION_ID,
    "createdAt": "2024-01-15T10:30:00.000Z",
    "updatedAt": "2024-01-15T10:30:20.000Z",
    "externalResponse": {"protheusOrderId": "PRO-XYZ-789"},
    "attempts": 1,
}
HISTORY = {
    "items": [
        {"kind": "transition", "at": "2024-01-15T10:30:00.000Z", "toStatus": "Received", "actor": "acme"},
        {
            "kind": "attempt",
            "at": "2024-01-15T10:30:15.000Z",
            "fromStatus": "WaitingExternal",
            "toStatus": "WaitingExternal",
            "attempt": 1,
            "outcome": "DELIVERED",
            "durationMs": 431.2,
            "response": {"protheusOrderId": "PRO-XYZ-789"},
            "actor": "worker-1",
        },
    ]
}
DUPLICATE = {
    "type": "urn:integration-hub:problem:duplicate-external-id",
    "title": "External id is in use",
    "status": 409,
    "detail": (
        f"An integration request with externalId {EXTERNAL_ID} exists already as {ID}; "
        "read that one, or send a new externalId."
    ),
    "instance": "/api/integration-requests",
    "correlationId": CORRELATION_ID,
    "existing": {"id": ID, "status": "Completed", "href": f"/api/integration-requests/{ID}"},
}
