"""Payloads at rest: as they are, or sealed with AES-256-GCM under a key ring (HUB_PAYLOAD_KEYS).

A sealed payload names its key, so that new ones take the ring's current key while old ones stay readable for as long
as theirs is in the ring. It is bound to its request: a payload that was moved to another row does not open. The ring
travels as an execution option of the engine, since the store's functions are given nothing but a connection.
"""

import base64
import binascii
import json
import os
from collections.abc import Mapping

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.errors import ConfigurationError, PayloadNotReadable

#: Nothing that is JSON begins so.
_PREFIX = "sealed1:"
_OPTION = "payload_keys"
_KEY_BYTES = 32
_NONCE_BYTES = 12
#: Until a reader is to come back: an operator has to put a key back first.
NOT_READABLE_SECONDS = 60.0


class PayloadKeys:
    """A key ring; one without a current key leaves payloads as they are."""

    def __init__(self, keys: Mapping[str, bytes], current: str = "") -> None:
        self._ciphers = {name: AESGCM(key) for name, key in keys.items()}
        self._current = current

    def seal(self, request_id: str, payload_json: str) -> str:
        """The text to store."""
        if not self._current:
            return payload_json
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._current].encrypt(nonce, payload_json.encode(), request_id.encode())
        return f"{_PREFIX}{self._current}:{base64.b64encode(nonce + sealed).decode()}"

    def open(self, request_id: str, stored: str) -> str:
        """The payload as it was accepted. Raises: PayloadNotReadable."""
        if not stored.startswith(_PREFIX):
            return stored
        name, _, text = stored.removeprefix(_PREFIX).partition(":")
        try:
            sealed = base64.b64decode(text)
            cipher = self._ciphers[name]
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], request_id.encode()).decode()
        except (KeyError, InvalidTag, ValueError) as error:
            raise PayloadNotReadable(
                f"The payload of {request_id} cannot be read now, all else about it can; ask the hub's operators.",
                retry_after_seconds=NOT_READABLE_SECONDS,
                id=request_id,
                key=name[:64],
            ) from error


_PLAIN = PayloadKeys({})


def read_payload_keys(text: str) -> PayloadKeys:
    """Read a ring: `{"current": "2026-01", "keys": {"2026-01": "32 bytes in base64"}}`. Raises: ConfigurationError."""
    try:
        document = json.loads(text)
        keys = {str(name): base64.b64decode(key, validate=True) for name, key in document["keys"].items()}
        current = document["current"]
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
        raise ConfigurationError(
            'HUB_PAYLOAD_KEYS must name {"current": "NAME", "keys": {"NAME": "32 bytes in base64"}}'
        ) from error
    if current not in keys or any(len(key) != _KEY_BYTES or ":" in name for name, key in keys.items()):
        raise ConfigurationError(f"HUB_PAYLOAD_KEYS: each key has {_KEY_BYTES} bytes, and `current` is one of them")
    return PayloadKeys(keys, current)


def payload_option(keys: PayloadKeys) -> dict[str, PayloadKeys]:
    """The engine's execution option that `payload_keys_of` reads."""
    return {_OPTION: keys}


def payload_keys_of(connection: sa.Connection) -> PayloadKeys:
    """The ring of the engine that a connection belongs to."""
    keys: PayloadKeys = connection.get_execution_options().get(_OPTION, _PLAIN)
    return keys


def trouble_fields(error: PayloadNotReadable) -> dict[str, str]:
    """What the log says of a payload that cannot be opened; callers are told nothing of the ring."""
    key, request_id = error.metadata["key"], error.metadata["id"]
    return {"request_id": request_id, "reason": error.reason, "key": key, "setting": "HUB_PAYLOAD_KEYS"}
