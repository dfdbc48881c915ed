"""The simulated systems: each name is an independent one, with its own orders, faults and settings."""

from collections.abc import Iterator
from enum import Enum
from itertools import count
from typing import Annotated, Literal

import msgspec

from simulator.faults import FaultQueue
from simulator.orders import Journal, JournalEntry, Order, OrderBook
from simulator.tokens import Tokens

DEFAULT = "default"


class TargetSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Say how a target behaves while no fault waits."""

    latency_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Time that every call takes."""
    idempotency: bool = False
    """True: a key already held gets the first answer again; 422 with another body, 409 while the first runs."""
    duplicates: Literal["store", "refuse"] = "store"
    """`refuse`: fault 111 for an integrationId already held. Looked up when the call arrives and not again at the
    commit, as Protheus does it: two calls at once both pass, and so does a retry that overtakes a slow first call."""
    lookup: Literal["on", "off", "down"] = "on"
    """`off`: 404, `down`: 503."""
    token_seconds: int | float = 3600
    """Life of the tokens issued from now on."""
    concurrency: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """More calls in flight than this get 503 "no licence"; None = no limit."""


class KeyConflict(Enum):
    """Say why a second call with a key is not answered as the first (draft-ietf-httpapi-idempotency-key-header)."""

    IN_PROGRESS = "The first call with this key still runs"
    OTHER_BODY = "This key was used with another body"


class Target:
    """Hold the state of one simulated system."""

    __slots__ = ("faults", "in_flight", "keys_in_progress", "name", "orders", "settings", "tokens")

    def __init__(self, name: str, orders: OrderBook, tokens: Tokens) -> None:
        self.name = name
        self.orders = orders
        self.tokens = tokens
        self.faults = FaultQueue()
        self.settings = TargetSettings()
        self.in_flight = 0
        self.keys_in_progress: set[str] = set()

    def earlier_call(self, key: str, body: str) -> Order | KeyConflict | None:
        """Find what became of an earlier call with this idempotency key; None where keys are not honoured."""
        if not self.settings.idempotency or not key:
            return None
        if key in self.keys_in_progress:
            return KeyConflict.IN_PROGRESS
        for order in self.orders.by_key.find(key):
            return order if order.draft.body == body else KeyConflict.OTHER_BODY
        return None


class Targets:
    """Find or make targets by name."""

    def __init__(self, journal: Journal | None, tokens: Tokens) -> None:
        self.fault_ids = count(1)
        self._journal = journal
        self._tokens = tokens
        self._last_sequence = 0
        self._targets: dict[str, Target] = {}
        if journal is not None:
            self._restore(journal)

    def get(self, name: str) -> Target:
        """Return the target of this name; it is made at its first use."""
        target = self._targets.get(name)
        if target is None:
            book = OrderBook(name, self._next_sequence, self._journal)
            target = self._targets[name] = Target(name, book, self._tokens)
        return target

    def selected(self, name: str | None) -> Iterator[Target]:
        """Yield the one target of this name, or all."""
        return iter(list(self._targets.values()) if name is None else [self.get(name)])

    def reset(self, name: str | None) -> None:
        """Start one target, or all, afresh; calls still running end in the old one, unseen."""
        names = [target.name for target in self.selected(name)]
        for reset_name in names:
            self._targets.pop(reset_name).orders.detach()
        if self._journal is not None:
            self._journal.append(JournalEntry(reset=names))

    def _next_sequence(self) -> int:
        self._last_sequence += 1
        return self._last_sequence

    def _restore(self, journal: Journal) -> None:
        for entry in journal.read():
            if entry.order is not None:
                self.get(entry.order.target).orders.restore(entry.order)
                self._last_sequence = entry.order.sequence
            for name in entry.reset or ():
                self._targets.pop(name, None)
