"""Every read of the hub's public and operators' doors: who asks, which rows, which page."""

import base64
import binascii
import hashlib
from dataclasses import fields
from typing import Any

import orjson
import sqlalchemy as sa

from chassis.access import Owner
from chassis.database import Store
from chassis.errors import (
    DeadLetterNotFound,
    IntegrationRequestNotFound,
    InvalidRequest,
    PayloadNotReadable,
    Violation,
)
from chassis.ids import parse_id
from chassis.logs import get_logger
from intake_service.store import dead_letters, reads
from intake_service.store.dead_letters import Selection
from intake_service.store.payloads import trouble_fields
from intake_service.store.reads import Filter, Position
from intake_service.store.rows import StoredRequest

log = get_logger()

DEFAULT_PAGE = 50
MAX_PAGE = 250


class Queries:
    """The reads. Isolation is in every query: it carries the partner, and the systems, that the token names."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, owner: Owner, *, request_id: str, with_payload: bool = True) -> StoredRequest:
        """One request, with its payload or without.

        Raises: IntegrationRequestNotFound, also for another partner's; PayloadNotReadable.
        """
        found = await self._find(owner, request_id, with_payload=with_payload)
        if found is None:
            raise IntegrationRequestNotFound(request_id)
        return found

    async def list_page(self, wanted: Filter, *, page_size: int, page_token: str) -> tuple[list[StoredRequest], str]:
        """A page, newest first, and the token of the next. Raises: InvalidRequest."""
        limit = _limit(page_size)
        after = _decode(page_token, wanted) if page_token else None
        found = await self._store.read(reads.list_requests(wanted, after, limit + 1))
        page = found[:limit]
        token = _encode(Position(created_at=page[-1].created_at, id=page[-1].id), wanted) if len(found) > limit else ""
        return page, token

    async def history(self, owner: Owner, *, request_id: str) -> list[sa.Row[Any]]:
        """The story of one request. Raises: IntegrationRequestNotFound."""
        story = await self._store.read(reads.list_history(request_id, owner))
        if story is None:
            raise IntegrationRequestNotFound(request_id)
        return story

    async def list_dead_letters(
        self, wanted: Selection, *, page_size: int, page_token: str
    ) -> tuple[list[sa.Row[Any]], str]:
        """A page of dead letters, newest first. Raises: InvalidRequest."""
        limit = _limit(page_size)
        before_id = _decode_dead_letter(page_token) if page_token else ""
        query = dead_letters.select_dead_letters(wanted, before_id=before_id, limit=limit + 1, with_request=True)
        found = await self._store.read(query)
        page = found[:limit]
        return page, page[-1].id if len(found) > limit else ""

    async def select_dead_letters(self, wanted: Selection, *, with_request: bool) -> list[sa.Row[Any]]:
        """Every dead letter of a selection, newest first."""
        return await self._store.read(dead_letters.select_dead_letters(wanted, with_request=with_request))

    async def get_dead_letter(self, dead_letter_id: str) -> tuple[sa.Row[Any], StoredRequest, list[sa.Row[Any]]]:
        """A dead letter (by its id or its request's newest), the request and its story.

        A payload that cannot be opened is left out. Raises: DeadLetterNotFound.
        """
        found = await self._store.read(dead_letters.select_dead_letters(Selection(ids=(dead_letter_id,)), limit=1))
        if not found:
            raise DeadLetterNotFound(dead_letter_id)
        letter = found[0]
        owner = Owner(partner_id=letter.partner_id)
        try:
            request = await self._find(owner, letter.request_id, with_payload=True)
        except PayloadNotReadable:
            request = await self._find(owner, letter.request_id, with_payload=False)
        story = await self._store.read(reads.list_history(letter.request_id, None))
        if request is None or story is None:
            raise DeadLetterNotFound(dead_letter_id)
        return letter, request, story

    async def _find(self, owner: Owner, request_id: str, *, with_payload: bool) -> StoredRequest | None:
        try:
            return await self._store.read(reads.get_request(request_id, owner, with_payload=with_payload))
        except PayloadNotReadable as error:
            log.error("Payload not readable", **trouble_fields(error))
            raise


def _limit(page_size: int) -> int:
    if not 0 <= page_size <= MAX_PAGE:
        raise InvalidRequest(
            f"The page size must be 1 to {MAX_PAGE}.",
            [Violation(pointer="/limit", detail=f"must be 1 to {MAX_PAGE}")],
        )
    return page_size or DEFAULT_PAGE


def _fingerprint(wanted: Filter) -> str:
    owner, *filters = (getattr(wanted, field.name) for field in fields(wanted))
    shown = [owner.partner_id, owner.limits.sources, owner.limits.targets, *filters]
    return hashlib.sha256(orjson.dumps(shown, default=sorted)).hexdigest()[:16]


def _encode(position: Position, wanted: Filter) -> str:
    token = orjson.dumps([position.created_at, position.id, _fingerprint(wanted)])
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


def _decode(token: str, wanted: Filter) -> Position:
    """Read a token back; it holds only a place in the order, so a forged one shows no foreign row."""
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        created_at, request_id, fingerprint = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if not isinstance(created_at, int) or not isinstance(request_id, str) or fingerprint != _fingerprint(wanted):
            raise ValueError("another filter's token")
        if not -(2**63) <= created_at < 2**63:
            raise ValueError("out of range")
        return Position(created_at=created_at, id=parse_id(request_id))
    except (ValueError, TypeError, binascii.Error) as error:
        raise _bad_cursor() from error


def _decode_dead_letter(token: str) -> str:
    try:
        return parse_id(token)
    except ValueError as error:
        raise _bad_cursor() from error


def _bad_cursor() -> InvalidRequest:
    return InvalidRequest(
        "The cursor is not one of this list; begin without it.",
        [Violation(pointer="/cursor", detail="is not a cursor of this list with this filter")],
    )
