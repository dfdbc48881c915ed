"""What a caller's input must look like before it is stored or looked for. Pure.

A new request names every field at fault at once. No text with NUL may pass: PostgreSQL cannot store or compare it.
"""

import re
from collections.abc import Container

from chassis.errors import InvalidRequest, PayloadTooLarge, Violation
from chassis.json_text import MAX_BYTES, MalformedJson, NestingTooDeep, check_json

_NAME = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
_NAME_RULE = "must be 1 to 128 characters of A-Z a-z 0-9 . _ : / -"
MAX_FILTER = 255
MAX_PROSE = 1000


def check_new_request(
    *, external_id: str, source_system: str, target_system: str, payload_json: str, targets: Container[str]
) -> None:
    """Raises: InvalidRequest with every violation; PayloadTooLarge when the payload is over 1 MiB."""
    violations = []
    if not _NAME.fullmatch(external_id):
        violations.append(Violation(pointer="/externalId", detail=_NAME_RULE))
    if not _NAME.fullmatch(source_system):
        violations.append(Violation(pointer="/sourceSystem", detail=_NAME_RULE))
    if target_system not in targets:
        detail = "is not a target of this hub; ask its operators for the names" if target_system else "is missing"
        violations.append(Violation(pointer="/targetSystem", detail=detail))
    violations += check_payload(payload_json)
    if violations:
        fields = ", ".join(violation.pointer for violation in violations)
        raise InvalidRequest(f"The request is not valid: {fields}. Correct it and send it again.", violations)


def check_payload(payload_json: str) -> list[Violation]:
    """The violations of a payload: it must be one JSON object, strictly written.

    Raises: PayloadTooLarge when it is over 1 MiB.
    """
    payload = payload_json.encode()
    if len(payload) > MAX_BYTES:
        raise PayloadTooLarge(f"The payload is larger than {MAX_BYTES} bytes; send less.", maximum=str(MAX_BYTES))
    if not payload.lstrip(b" \t\r\n").startswith(b"{"):
        return [Violation(pointer="/payload", detail="must be a JSON object")]
    try:
        check_json(payload)
    except (MalformedJson, NestingTooDeep) as error:
        return [Violation(pointer="/payload", detail=str(error))]
    return []


def check_filter(value: str, pointer: str, *, maximum: int = MAX_FILTER) -> str:
    """Give a value to look for, or a short word to store, back. Raises: InvalidRequest when it cannot be one."""
    if len(value) > maximum or not value.isprintable():
        detail = f"must be at most {maximum} printable characters"
        raise InvalidRequest(f"{pointer} {detail}.", [Violation(pointer=pointer, detail=detail)])
    return value


def prose(text: str, *, maximum: int | None = MAX_PROSE) -> str:
    """Make text that people or external systems wrote fit to be stored."""
    return text[:maximum].replace("\x00", "\ufffd")
