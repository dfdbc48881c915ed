"""How many fields a message's bytes hold on their first level, found out before they are parsed.

A batch's empty item has two bytes and costs hundreds once it is read, while the event loop waits: what intake says of
a batch of too many would come too late. Lengths within an item are for what reads the item.
"""

#: The largest batch of the contract has 1000 items, and there is room beside them.
MOST_FIELDS = 2000
#: A message of no more bytes need not be counted: whatever it holds is read within 15 ms.
SHORT_BYTES = 256 * 1024
_LONGEST_VARINT = 10


def has_few_fields(message: bytes) -> bool:
    """Whether it is well-formed on its first level, with MOST_FIELDS fields at most; a group's count with the others.

    It ends after so many steps. What is malformed must not pass: a parser could see more fields in it.
    """
    at, end = 0, len(message)
    try:
        for _ in range(MOST_FIELDS):
            if at == end:
                return True
            tag, at = _varint(message, at)
            match tag & 7:
                case 0:
                    _, at = _varint(message, at)
                case 1:
                    at += 8
                case 2:
                    length, at = _varint(message, at)
                    at += length
                case 3 | 4:  # a group's beginning or end
                    pass
                case 5:
                    at += 4
                case _:
                    return False
    except IndexError:
        return False
    return at == end


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number there and where it ends. Raises: IndexError when it does not end."""
    number = 0
    for place in range(_LONGEST_VARINT):
        byte = message[at + place]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    raise IndexError
