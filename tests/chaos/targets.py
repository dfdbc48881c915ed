"""The external systems of a run: how the hub is told to treat them, and the schema of their orders."""

import json
from pathlib import Path

#: Honours the Idempotency-Key, so a post of unknown outcome is simply repeated.
HONOURS_KEY = "HonoursKey"
#: Must be asked before anything is posted again.
MUST_BE_ASKED = "MustBeAsked"
#: Must be asked too, by the adapter for plain JSON.
PLAIN_JSON = "PlainJson"
TARGETS = (HONOURS_KEY, MUST_BE_ASKED, PLAIN_JSON)

#: Of every call, so that work is in flight whenever something dies.
LATENCY_SECONDS = 0.2
TIMEOUT_SECONDS = 3.0
#: A late system commits at most this long after it was called: before the moment at which "absent" can be a proof, at
#: the earliest 5 s after the time-out. A system that takes longer is beyond what any hub can know (docs/chaos.md).
LATEST_COMMIT_SECONDS = 5.0

_SCHEMA = {
    "type": "object",
    "required": ["orderId", "customer", "amount"],
    "properties": {"orderId": {"type": "string"}, "amount": {"type": "number", "exclusiveMinimum": 0}},
}
_FILE = """
[targets.{keyed}]
adapter = "totvs_protheus"
base_url = "{url}/t/{keyed}"
auth = {{ kind = "bearer", token = "env:PROTHEUS_TOKEN" }}
idempotent = true
timeout_seconds = {timeout}
on_timeout = "retry"
concurrency = 16
schemas = {{ SAP = "order.json" }}

[targets.{asked}]
adapter = "totvs_protheus"
base_url = "{url}/t/{asked}"
auth = {{ kind = "bearer", token = "env:PROTHEUS_TOKEN" }}
idempotent = false
timeout_seconds = {timeout}
on_timeout = "retry"
concurrency = 16
schemas = {{ SAP = "order.json" }}

[targets.{plain}]
adapter = "http_json"
base_url = "{url}/t/{plain}"
path = "/orders"
lookup = "/orders?key={{id}}"
idempotent = false
timeout_seconds = {timeout}
on_timeout = "dead_letter"
concurrency = 16
schemas = {{ SAP = "order.json" }}
"""


def write_targets(folder: Path, url: str) -> Path:
    """Write the targets file and its schema; `url` is where the external systems are."""
    (folder / "order.json").write_text(json.dumps(_SCHEMA))
    file = folder / "targets.toml"
    file.write_text(
        _FILE.format(url=url, keyed=HONOURS_KEY, asked=MUST_BE_ASKED, plain=PLAIN_JSON, timeout=TIMEOUT_SECONDS)
    )
    return file
