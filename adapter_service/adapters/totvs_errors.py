"""TOTVS's error envelope, and what its texts say: "the order is there already", "no licence is free".

Two envelopes are in use: {code, message, detailedMessage} in any case, and the older {errorCode, errorMessage}. Texts
come with accents lost, doubled or replaced ("já", "ja", "j?", "jÃ¡"). Texts and codes are data of TOTVS's and its
customers' services, none of them promised; where they are silent or new, nothing is taken for a success.
"""

import re

import msgspec

from adapter_service.answers import Answer, fold, repair

ALREADY_INCLUDED = "111"
#: The other faults of the published order service, 101 to 118: their texts may hold the same words.
_OTHER_FAULTS = frozenset(str(code) for code in range(101, 119)) - {ALREADY_INCLUDED}
_ALREADY = r"\bj(?=\S)a?[^a-z\s]{0,4}\s+(?:(?:foi|esta|est[^a-z\s]{1,4}|se encontra)\s+)?"
_INCLUDED = _ALREADY + r"inclu\S{1,4}d[oa]\b"
_DONE = _ALREADY + r"(?:inclu\S{1,4}d|(?:liber|cadastr|process|integr|grav|registr|import)ad)[oa]\b"
_ORDER = r"(?:(?:uma?|[oa]|est[ea]|ess[ea])\s)?(?:pedidos?|ordem|ordens|orders?)\b"
_WORD = r"d[aeo]s?|venda|compra|clientes?|parceiro|n(?:umero|[ro]?\.?)|(?=[\w/.-]{0,40}\d)[\w/.-]{1,40}(?<!\.)"
#: What may stand between the order and "já": whose it is, its number. With another noun it may be something else.
#: Each word can match in one way only: eight that could match in twenty would take years.
_WHOSE = rf"(?:\s+[(#'\"]?(?:{_WORD})[)'\"]?){{0,8}}"
#: A clause that begins with the order: "Vendedor do pedido já incluído" says nothing of the order.
_ITSELF = rf"(?:^|[.:;,!?]\s){_ORDER}{_WHOSE}\s+"
_ORDER_INCLUDED = re.compile(_ITSELF + _INCLUDED)
_ORDER_DONE = re.compile(rf"(?:^|{_ITSELF}){_DONE}|{_ITSELF}{_ALREADY}existe\b|{_ALREADY}existe\s{_ORDER}")
_ANY_INCLUDED = re.compile(_INCLUDED)
_MEMBERS_OF_ERRORS = ("detailedmessage", "errorcode")
_NUMBER = re.compile(r"protheus\W{1,4}((?=[\w-]{0,30}\d)\w[\w-]{0,29})", re.IGNORECASE | re.ASCII)
_LICENCE = re.compile(r"licen[cs]")


class ErrorEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """An error as Protheus writes it; capped and redacted."""

    code: str
    #: Its words as they may be shown.
    text: str
    #: Its words whatever is masked: what they mean is read from them, and they are not shown.
    words: str
    #: Whether it is one although the status is a success's: its code is a number, or it has a member only errors have.
    is_certain: bool

    def says_done(self, status: int) -> bool:
        """Whether the error is that the order is there already; a 409 may use other words for it."""
        if self.code in _OTHER_FAULTS or self.code == ALREADY_INCLUDED:
            return self.code == ALREADY_INCLUDED
        return (_ORDER_DONE if status == 409 else _ORDER_INCLUDED).search(fold(self.words)) is not None

    @property
    def order_number(self) -> str:
        """The existing order's number where the text names it, else ''."""
        match = _NUMBER.search(self.words)
        return match[1] if match is not None else ""


def read_envelope(answer: Answer) -> ErrorEnvelope | None:
    """Find an error envelope; {"code": "0", "message": "INCLUIDO"} is none."""
    members = answer.members
    code = _text(members, "code", "errorcode")
    if not code:
        return None
    words = _both_texts(members)
    if not words or _is_success_code(code, answer):
        return None
    return ErrorEnvelope(
        code=answer.sentence(code)[:64],
        text=answer.sentence(_both_texts(answer.shown_members)) or answer.summary,
        words=answer.sentence(words),
        is_certain=code.isdecimal() or not members.keys().isdisjoint(_MEMBERS_OF_ERRORS),
    )


def may_be_included(answer: Answer) -> bool:
    """Whether the answer says that something is included already, which may be the order."""
    envelope = read_envelope(answer)
    if envelope is not None and envelope.code in _OTHER_FAULTS:
        return False
    return _ANY_INCLUDED.search(_all_words(answer)) is not None


def speaks_of_licence(answer: Answer) -> bool:
    """Whether every connection of the licence server is in use: Protheus is saturated, not broken."""
    return _LICENCE.search(_all_words(answer)) is not None


def _all_words(answer: Answer) -> str:
    if answer.is_html:
        return ""
    words = str(answer.value) if answer.is_json else answer.text  # in JSON's own text an accent may be an escape
    return fold(words[:10_000])


def _both_texts(members: dict[str, object]) -> str:
    message = _text(members, "message", "errormessage", "msg", "mensagem")
    more = _text(members, "detailedmessage")
    return f"{message}: {more}" if message and more and message != more else message or more


def _text(members: dict[str, object], *names: str) -> str:
    for name in names:
        value = members.get(name)
        if isinstance(value, str) and value.strip():
            return repair(value.strip())
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return ""


def _is_success_code(code: str, answer: Answer) -> bool:
    """0 is what the published order service answers with; others repeat the HTTP status."""
    if answer.is_success and code == str(answer.status):
        return True
    return code.isdecimal() and (int(code[:6]) == 0 or code in ("200", "201"))
