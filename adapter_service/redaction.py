"""What must not reach history, logs or partners is taken out of an external system's words.

By name: members and `name=value` pairs that look like credentials. By value: the target's own secrets, wherever they
stand and however JSON spells them. JSON keeps its digits: only what is masked is rewritten.
"""

import json
import re
from collections.abc import Iterable
from functools import lru_cache

import msgspec

MASK = "***"
#: Shorter ones would mask ordinary words.
SHORTEST_SECRET = 6

_NAME = r"authori[sz]ation|token|passw(?:or)?d|senha|secret|api[_-]?key|private[_-]?key|credential|cookie"
#: One of these stands in every text that the patterns below could match, or in which an escape may hide a name.
_PIECES = (
    *("\\u", "author", "token", "passw", "senha", "secret"),
    *("api", "private", "credential", "cookie", "bearer", "basic"),
)
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
# Both run over answers of any content: no repetition in them can be entered at every character.
_SCHEME_VALUE = re.compile(r"\b(bearer|basic)\s+(?=\S*[\d=])[\w.~+/=-]{6,}", re.IGNORECASE)
_PAIR = re.compile(
    rf"((?:{_NAME})[\w-]{{0,32}}\\?\"?\s{{0,4}}[:=]\s{{0,4}}\\?\"?)(?!{re.escape(MASK)})[^\s\"\\&,;<>}}]+",
    re.IGNORECASE,
)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
_ENCODER = msgspec.json.Encoder()
_MASKED = msgspec.Raw(f'"{MASK}"')


@lru_cache(maxsize=64)
def spellings(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """The secrets that are long enough to be looked for: as they are, and as JSON escapes them, slashes too (PHP)."""
    looked_for = [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]
    escaped = [json.dumps(secret, ensure_ascii=is_ascii)[1:-1] for secret in looked_for for is_ascii in (True, False)]
    return tuple(dict.fromkeys(looked_for + escaped + [text.replace("/", "\\/") for text in escaped]))


def redact_text(text: str, secrets: Iterable[str]) -> str:
    """Mask what looks like a credential in plain text, and every one of `secrets`."""
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, MASK)
    return _PAIR.sub(rf"\g<1>{MASK}", _SCHEME_VALUE.sub(rf"\g<1> {MASK}", text))


def redact_json(text: str, secrets: Iterable[str]) -> str:
    """Mask members with a credential's name, and text as in `redact_text`; `text` is valid JSON, not deep."""
    secrets = tuple(secrets)
    if not _needs_care(text, secrets):
        return text
    return _redact(text.strip().encode(), secrets).decode()


def _needs_care(text: str, secrets: tuple[str, ...]) -> bool:
    lowered = text.lower()
    for piece in _PIECES:  # a loop: any() would take twice as long, and this is for every answer
        if piece in lowered:
            return True
    return any(secret in text for secret in secrets if secret)


def _redact(value: bytes, secrets: tuple[str, ...]) -> bytes:
    match value[:1]:
        case b"{":
            members = _MEMBERS.decode(value)
            return _ENCODER.encode(
                {
                    redact_text(name, secrets): _MASKED
                    if _SECRET_NAME.search(name)
                    else msgspec.Raw(_redact(bytes(member), secrets))
                    for name, member in members.items()
                }
            )
        case b"[":
            return _ENCODER.encode([msgspec.Raw(_redact(bytes(item), secrets)) for item in _ITEMS.decode(value)])
        case b'"':
            text = _TEXT.decode(value)
            redacted = redact_text(text, secrets)
            return value if redacted == text else _ENCODER.encode(redacted)
        case _:
            return value
