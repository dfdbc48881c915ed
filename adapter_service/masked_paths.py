"""What an operator wants masked in a target's answers: `redact = ["$.customer.taxId", "$.items[*].price"]`.

A path is `$` and then `.name` or `[*]`, nothing more of JSONPath. Masking by name is in adapter_service.redaction.
"""

import re
from collections.abc import Iterable, Sequence

import msgspec

from adapter_service.redaction import MASK
from chassis.errors import ConfigurationError

_PATH = re.compile(r"\$(?:\.[A-Za-z0-9_-]+|\[\*\])+")
_STEP = re.compile(r"\.([A-Za-z0-9_-]+)|(\[\*\])")
_EVERY = "[*]"
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
_MASKED = msgspec.Raw(f'"{MASK}"')

Path = tuple[str, ...]


def read_paths(texts: Iterable[str], target: str) -> tuple[Path, ...]:
    """Read the paths of a target. Raises: ConfigurationError that names the one that is none."""
    paths = []
    for text in texts:
        if not _PATH.fullmatch(text):
            raise ConfigurationError(
                f"targets.{target}: redact: {text!r} is not a path such as $.customer.taxId or $.items[*].price"
            )
        paths.append(tuple(name or every for name, every in _STEP.findall(text)))
    return tuple(paths)


def mask_paths(response_json: str, paths: Sequence[Path]) -> str:
    """Mask what the paths name in a kept answer; an answer that was cut into a text is masked as a whole."""
    if not paths or not response_json:
        return response_json
    value = response_json.encode()
    if value[:1] == b'"':
        was_json = _TEXT.decode(value).lstrip()[:1] in ("{", "[")
        return f'"{MASK}"' if was_json else response_json
    for path in paths:
        value = _mask(value, path)
    return value.decode()


def _mask(value: bytes, path: Path) -> bytes:
    if not path:
        return bytes(_MASKED)
    step, rest = path[0], path[1:]
    if step == _EVERY and value[:1] == b"[":
        return msgspec.json.encode([msgspec.Raw(_mask(bytes(item), rest)) for item in _ITEMS.decode(value)])
    if step != _EVERY and value[:1] == b"{":
        members = _MEMBERS.decode(value)
        if step in members:
            members[step] = msgspec.Raw(_mask(bytes(members[step]), rest))
            return msgspec.json.encode(members)
    return value
