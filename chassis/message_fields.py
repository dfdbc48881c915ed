"""How many fields a message's bytes hold, found out before they are parsed.

An empty item of a batch, or a short name in a list, has two or three bytes and costs hundreds once it is read, while
the event loop waits: what a service says of too many would come too late. Texts are passed over.
"""

from collections.abc import Mapping
from functools import cache

from google.protobuf.descriptor import Descriptor

#: The largest batch has 1000 items of up to 20 fields, a create those of its partner's limits beside them; who sends
#: more names makes smaller batches.
MOST_FIELDS = 60_000
#: Of one message, those of the messages in it not counted: no list is that long.
MOST_OF_ONE = 10_000
#: A message of no more bytes need not be counted: whatever it holds is read within 50 ms.
SHORT_BYTES = 512 * 1024
_LONGEST_VARINT = 10
_DELIMITED = 2


def has_few_fields(message: bytes, descriptor: Descriptor) -> bool:
    """Whether it is well-formed, with MOST_FIELDS fields at most in all and MOST_OF_ONE in each message within.

    It ends after so many steps. What is malformed must not pass: a parser could see more fields in it.
    """
    spans = [(0, len(message), descriptor)]
    left = MOST_FIELDS
    try:
        while spans:
            at, end, kind = spans.pop()
            messages = _messages_in(kind)
            least = max(0, left - MOST_OF_ONE)
            while at < end:
                if left == least:
                    return False
                left -= 1
                tag, at = _varint(message, at)
                if tag & 7 != _DELIMITED:
                    at = _end(message, at, tag & 7)
                    continue
                length, at = _varint(message, at)
                if (within := messages.get(tag >> 3)) is not None:
                    spans.append((at, at + length, within))
                at += length
            if at > end:
                return False
    except IndexError:
        return False
    return True


def _end(message: bytes, at: int, kind: int) -> int:
    """Where a field of another kind ends. Raises: IndexError when it does not, or is of none."""
    match kind:
        case 0:
            return _varint(message, at)[1]
        case 1:
            return at + 8
        case 3 | 4:  # a group's beginning or end
            return at
        case 5:
            return at + 4
    raise IndexError


@cache
def _messages_in(kind: Descriptor) -> Mapping[int, Descriptor]:
    """The fields that are messages themselves, by number."""
    return {field.number: field.message_type for field in kind.fields if field.message_type is not None}


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number there and where it ends. Raises: IndexError when it does not end."""
    if (number := message[at]) < 0x80:
        return number, at + 1
    number = 0
    for place in range(_LONGEST_VARINT):
        byte = message[at + place]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    raise IndexError
