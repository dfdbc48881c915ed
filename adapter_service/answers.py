"""An external system's answer made readable: text whatever its encoding, JSON where it is JSON, capped and masked.

What an answer means is each adapter's knowledge; nothing is classified here.
"""

import html
import re
import time
import unicodedata
from collections.abc import Iterable, Sequence

import msgspec

from adapter_service.masked_paths import Path, mask_paths
from adapter_service.outcome import parse_retry_after
from adapter_service.redaction import redact_json, redact_text, spellings
from chassis.http_client import HttpAnswer
from chassis.json_text import MAX_NESTING, MalformedJson, NestingTooDeep, check_json

MAX_RESPONSE_BYTES = 64 * 1024
MAX_DETAIL_CHARACTERS = 500
#: What is redacted beyond a cut, so that no secret is cut in two and missed.
MARGIN_CHARACTERS = 4096
_DECODER = msgspec.json.Decoder()
_TEXT = msgspec.json.Decoder(str)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODER = msgspec.json.Encoder()
_TITLE = re.compile(r"<(title|h1)\b[^>]{0,200}>([^<]{1,200})", re.IGNORECASE)
_LENGTHS = ("Content-Length", "Transfer-Encoding")
_NOT_PRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class NotJson:
    """The type of NOT_JSON: the answer is empty, cut, deeper than 64 levels or no JSON at all."""


NOT_JSON = NotJson()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, ready to be classified and kept."""

    status: int
    retry_after_seconds: float | None
    #: The body as text; '' when there is none. It, `value` and `members` tell what it means; they are not masked.
    text: str
    #: Whether an empty body is known to be whole: it came with its length, not with the end of the connection.
    is_empty: bool
    #: The body's JSON value, or NOT_JSON.
    value: object
    #: The value's members by their names in lower case; none when it is no object.
    members: dict[str, object]
    is_html: bool
    #: What may be kept of it: JSON text, capped, redacted and masked; '' when the body is empty.
    response_json: str
    #: As they may be spelled.
    secrets: tuple[str, ...]
    masked_paths: Sequence[Path]

    @property
    def is_json(self) -> bool:
        """Whether the body is one whole JSON text."""
        return self.value is not NOT_JSON

    @property
    def is_success(self) -> bool:
        """Whether the status says so; the body may say otherwise."""
        return 200 <= self.status < 300

    def keepable(self, part: str) -> str:
        """Cap, redact and mask a JSON text that is a part of the answer; masked paths begin at that part."""
        return mask_paths(_keep_json(part, is_object=part.startswith("{"), secrets=self.secrets), self.masked_paths)

    def sentence(self, text: str) -> str:
        """Make a sentence for people of the system's words: one line, capped, redacted; masked as `text` is."""
        return make_sentence(text, self.secrets)

    @property
    def summary(self) -> str:
        """The answer in one line: its status and what is kept of it."""
        if not self.text:
            return f"HTTP {self.status} without a body"
        kept = _TEXT.decode(self.response_json) if self.response_json.startswith('"') else self.response_json
        return self.sentence(f"HTTP {self.status}: {kept}")

    @property
    def shown_members(self) -> dict[str, object]:
        """The members with what may be shown of each."""
        if self.response_json == self.text:
            return self.members
        return _members(_DECODER.decode(self.response_json))


def read_answer(answer: HttpAnswer, secrets: Iterable[str] = (), masked_paths: Sequence[Path] = ()) -> Answer:
    """Decode, parse, cap, redact and mask what came over HTTP."""
    secrets = spellings(tuple(secrets))
    text = _decode(answer.body)
    value = _parse(text) if answer.is_complete else NOT_JSON
    is_html = value is NOT_JSON and _is_html(answer.headers.get("Content-Type", ""), text)
    kept = _keepable(text, value, is_html, secrets)
    return Answer(
        status=answer.status,
        retry_after_seconds=parse_retry_after(answer.headers.get("Retry-After"), now=time.time()),
        text=text,
        is_empty=not text and not answer.headers.keys().isdisjoint(_LENGTHS),
        value=value,
        members=_members(value),
        is_html=is_html,
        response_json=mask_paths(kept, masked_paths) if masked_paths else kept,
        secrets=secrets,
        masked_paths=masked_paths,
    )


def make_sentence(text: str, secrets: Iterable[str] = ()) -> str:
    """One line for people, of at most MAX_DETAIL_CHARACTERS, without control characters and secrets."""
    cut = text[: MAX_DETAIL_CHARACTERS + MARGIN_CHARACTERS]
    line = " ".join(_NOT_PRINTABLE.sub(" ", redact_text(repair(cut), secrets)).split())
    return line if len(line) <= MAX_DETAIL_CHARACTERS else line[: MAX_DETAIL_CHARACTERS - 1] + "…"


def repair(text: str) -> str:
    """Undo UTF-8 that was read as Windows-1252 ("nÃ£o"), as Protheus sends it; other text stays."""
    if "Ã" not in text and "Â" not in text:
        return text
    for charset in ("cp1252", "latin-1"):
        try:
            return text.encode(charset).decode()
        except UnicodeError:
            continue
    return text


def fold(text: str) -> str:
    """Lower-case letters without accents, for comparing words."""
    decomposed = unicodedata.normalize("NFKD", repair(text))
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter)).casefold()


def page_title(page: str) -> str:
    """What an HTML page is called; never the page itself."""
    match = _TITLE.search(page[:MARGIN_CHARACTERS])
    return f"an HTML page, {html.unescape(match[2]).strip()}" if match else "an HTML page"


def _decode(body: bytes) -> str:
    try:
        return body.decode().removeprefix("\ufeff").strip()
    except UnicodeDecodeError:
        pass
    try:
        return body.decode("cp1252").strip()
    except UnicodeDecodeError:
        return body.decode("latin-1").strip()


def _parse(text: str) -> object:
    if not text:
        return NOT_JSON
    try:
        value: object = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return NOT_JSON
    return NOT_JSON if _is_deep(text) else value


def _members(value: object) -> dict[str, object]:
    return {name.lower(): member for name, member in value.items()} if isinstance(value, dict) else {}


def _is_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return False
    try:
        check_json(text.encode())
    except NestingTooDeep:
        return True
    except MalformedJson:
        return False  # JSON all the same: that check is stricter than RFC 8259, on duplicate keys
    return False


def _is_html(content_type: str, text: str) -> bool:
    return content_type.lower().startswith("text/html") or text[:64].lower().startswith(("<!doctype html", "<html"))


def _keepable(text: str, value: object, is_html: bool, secrets: tuple[str, ...]) -> str:
    if not text:
        return ""
    if is_html:
        return _as_string(make_sentence(page_title(text), secrets))
    if value is NOT_JSON:
        return _as_string(_NOT_PRINTABLE.sub(" ", redact_text(text[: MAX_RESPONSE_BYTES + MARGIN_CHARACTERS], secrets)))
    return _keep_json(text, is_object=isinstance(value, dict), secrets=secrets)


def _keep_json(text: str, *, is_object: bool, secrets: tuple[str, ...]) -> str:
    if len(text) <= MAX_RESPONSE_BYTES:
        kept = redact_json(text, secrets)
        if len(kept.encode()) <= MAX_RESPONSE_BYTES:
            return kept
    if is_object:
        return redact_json(_with_members_that_fit(text), secrets)
    return _as_string(redact_text(text[: MAX_RESPONSE_BYTES + MARGIN_CHARACTERS], secrets))


def _with_members_that_fit(text: str) -> str:
    """Keep the small members of a big object: the order's number is among them, its attachments are not."""
    kept: dict[str, msgspec.Raw] = {}
    room = MAX_RESPONSE_BYTES // 2  # names grow when they are escaped
    for name, member in _MEMBERS.decode(text).items():
        size = len(name.encode()) + len(bytes(member)) + 4
        if size <= room:
            kept[name] = member
            room -= size
    return _ENCODER.encode(kept).decode()


def _as_string(text: str) -> str:
    """A JSON string of at most MAX_RESPONSE_BYTES; one character takes six bytes at worst."""
    encoded = _ENCODER.encode(text)
    if len(encoded) > MAX_RESPONSE_BYTES:
        encoded = _ENCODER.encode(text[: MAX_RESPONSE_BYTES // 6])
    return encoded.decode()
