"""The flow of one request: claim, validate, deliver, report; retry policy and per-target capacity. No database."""
