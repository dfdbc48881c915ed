"""The orders that a simulated system holds, and the file that keeps them over a restart.

Nothing here refuses an order: whether a second one with the same key is taken is the profile's decision.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from simulator.answers import encode, timestamp

Profile = Literal["protheus", "json"]
ID_PREFIX: dict[Profile, str] = {"protheus": "PRO", "json": "ORD"}


class Draft(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Hold an order that was accepted and is not yet stored."""

    profile: Profile
    body: str
    """Exactly as received, digit for digit."""
    key: str = ""
    integration_id: str = ""
    order_id: str = ""
    external_id: str = ""
    correlation_id: str = ""


class Order(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold a stored order; `sequence` rises over all targets."""

    id: str
    target: str
    sequence: int
    received_at: str
    draft: Draft


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Write one line of the file: an order, or the names of the targets that were reset."""

    order: Order | None = None
    reset: list[str] | None = None


class Journal:
    """Append entries to a file: a line is with the operating system (no fsync) before its order is answered."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)

    def read(self) -> Iterator[JournalEntry]:
        """Yield what the file holds; a last line that was cut off by a kill is dropped.

        Raises:
            msgspec.DecodeError: another line is damaged.
        """
        self._file.seek(0)
        content = self._file.readall()
        whole_bytes = content.rfind(b"\n") + 1
        if whole_bytes < len(content):
            self._file.truncate(whole_bytes)
        decoder = msgspec.json.Decoder(JournalEntry)
        for line in content[:whole_bytes].splitlines():
            yield decoder.decode(line)

    def append(self, entry: JournalEntry) -> None:
        """Write one line."""
        self._file.write(encode(entry) + b"\n")

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()


class OrderIndex:
    """Find orders by one of their ids, which seldom have a second order: a list for each would double the memory."""

    def __init__(self) -> None:
        self._first: dict[str, Order] = {}
        self._later: dict[str, list[Order]] = {}

    def add(self, value: str, order: Order) -> None:
        """Enter an order; an empty value is no value."""
        if value and self._first.setdefault(value, order) is not order:
            self._later.setdefault(value, []).append(order)

    def find(self, value: str) -> list[Order]:
        """Return the orders with this value, oldest first."""
        first = self._first.get(value)
        return [] if first is None else [first, *self._later.get(value, ())]


class OrderBook:
    """Keep the orders of one target, findable by each of their ids."""

    def __init__(self, target: str, next_sequence: Callable[[], int], journal: Journal | None) -> None:
        self.orders: list[Order] = []
        self._target = target
        self._next_sequence = next_sequence
        self._journal = journal
        self._stored: dict[Profile, int] = {"protheus": 0, "json": 0}
        self.by_integration_id = OrderIndex()
        self.by_key = OrderIndex()
        self.by_external_id = OrderIndex()

    def store(self, draft: Draft) -> Order:
        """Store an order, in the file too when there is one, and give it the next id of its profile."""
        order = Order(
            id=f"{ID_PREFIX[draft.profile]}-{self._stored[draft.profile] + 1:06d}",
            target=self._target,
            sequence=self._next_sequence(),
            received_at=timestamp(datetime.now(UTC)),
            draft=draft,
        )
        if self._journal is not None:
            self._journal.append(JournalEntry(order=order))
        self.restore(order)
        return order

    def restore(self, order: Order) -> None:
        """Take in an order that the file already holds."""
        draft = order.draft
        self._stored[draft.profile] += 1
        self.orders.append(order)
        self.by_integration_id.add(draft.integration_id, order)
        self.by_key.add(draft.key, order)
        self.by_external_id.add(draft.external_id, order)

    def detach(self) -> None:
        """Write to the file no more: a call that outlives a reset must not bring its order back."""
        self._journal = None

    def after(self, sequence: int) -> Iterator[Order]:
        """Yield the orders that came after a sequence number."""
        for position in range(bisect_right(self.orders, sequence, key=lambda order: order.sequence), len(self.orders)):
            yield self.orders[position]

    def held_more_than_once(self) -> dict[str, list[Order]]:
        """Group by integrationId, or by key where an order has none, and return the groups of two or more."""
        groups: dict[str, list[Order]] = {}
        for order in self.orders:
            if identity := order.draft.integration_id or order.draft.key:
                groups.setdefault(identity, []).append(order)
        return {identity: orders for identity, orders in groups.items() if len(orders) > 1}


def order_record(order: Order) -> dict[str, Any]:
    """Show a stored order to an administrator."""
    draft = order.draft
    record: dict[str, Any] = {
        "id": order.id,
        "target": order.target,
        "sequence": order.sequence,
        "profile": draft.profile,
        "key": draft.key,
        "integrationId": draft.integration_id,
        "orderId": draft.order_id,
        "externalId": draft.external_id,
        "correlationId": draft.correlation_id,
        "receivedAt": order.received_at,
        "body": draft.body,
    }
    return {"protheusOrderId": order.id, **record} if draft.profile == "protheus" else record
