"""Checking payloads against the JSON Schema of their (target, source system). Pure; schemas are compiled once.

A finding names its field in the schema's own words, never in the partner's, because it becomes a metric label and
a log field; its text holds no value of the payload.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec

#: A finding that cannot be laid at a field that the schema knows.
WHOLE_PAYLOAD = "payload"
MAX_FINDINGS = 20

#: A partner chooses the text that a pattern is run on.
LINEAR_PATTERNS = jsonschema_rs.RegexOptions()

_DECODE = msgspec.json.Decoder().decode
#: The library's text for these quotes keys of the payload, which are the partner's words.
_OWN_TEXTS = {
    "additionalProperties": "has a property that the schema does not know",
    "unevaluatedProperties": "has a property that the schema does not know",
    "propertyNames": "has a property whose name the schema does not allow",
}


class BadSchema(ValueError):
    """A schema that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with a payload."""

    field: str
    detail: str


class PayloadSchema:
    """One compiled schema."""

    def __init__(self, document: Any) -> None:
        """Compile. Formats are checked; nothing is ever fetched; patterns run in time linear to the text.

        Raises: BadSchema when it is no JSON Schema, names a format that is unknown, refers to another document, or has
        a pattern that looks around or back, which cannot be had in linear time.
        """
        try:
            self._validator = jsonschema_rs.validator_for(
                document,
                validate_formats=True,
                ignore_unknown_formats=False,
                mask="the value",
                offline=True,
                pattern_options=LINEAR_PATTERNS,
            )
        except (ValueError, TypeError) as error:
            raise BadSchema(str(error).partition("\n")[0]) from error
        self._names = frozenset(_property_names(document))
        #: The fields that every payload must have.
        self.required = frozenset(document.get("required", ()) if isinstance(document, Mapping) else ())

    def check(self, payload_json: str) -> list[Finding]:
        """Say what is wrong with a payload, up to MAX_FINDINGS; nothing means that it is valid."""
        try:
            payload = _DECODE(payload_json)
        except msgspec.DecodeError:
            return [Finding(field=WHOLE_PAYLOAD, detail="is not JSON")]
        if self._validator.is_valid(payload):
            return []
        return [self._finding(error) for error in islice(self._validator.iter_errors(payload), MAX_FINDINGS)]

    def _finding(self, error: jsonschema_rs.ValidationError) -> Finding:
        path = list(self._known_path(error))
        if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
            path.append(str(error.kind.property))
        detail = _OWN_TEXTS.get(error.kind.name, error.message)
        return Finding(field=".".join(path) or WHOLE_PAYLOAD, detail=detail)

    def _known_path(self, error: jsonschema_rs.ValidationError) -> Iterator[str]:
        """The path to the value, without positions in lists, up to the first key that the schema does not name."""
        for part in error.instance_path:
            if isinstance(part, int):
                continue
            if part not in self._names:
                return
            yield part


def _property_names(schema: object) -> Iterator[str]:
    """Every name that stands under `properties` or in `required`, anywhere in a schema."""
    if isinstance(schema, list):
        for part in schema:
            yield from _property_names(part)
    if not isinstance(schema, Mapping):
        return
    for keyword, value in schema.items():
        if keyword == "properties" and isinstance(value, Mapping):
            yield from value
        if keyword == "required" and isinstance(value, list):
            yield from (name for name in value if isinstance(name, str))
        yield from _property_names(value)
