"""The checker of `make chaos` finds every loss, duplicate, untruth and gap that is planted, and nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.checker import Breach, Finding, check
from tests.chaos.ledgers import Entry, Ledgers, Order, Stored
from tests.chaos.load import Promise

TARGET = "MustBeAsked"


def promise(request_id: str = "r1", external_id: str = "e1", *, is_good: bool = True) -> Promise:
    return Promise(request_id=request_id, external_id=external_id, target=TARGET, is_good=is_good, at=1.0)


def move(before: str | None, after: str, attempt: int = 0) -> Entry:
    return Entry(kind="transition", from_status=before, to_status=after, attempt=attempt, outcome="")


def call(kind: str, attempt: int, outcome: str) -> Entry:
    return Entry(
        kind=kind, from_status="WaitingExternal", to_status="WaitingExternal", attempt=attempt, outcome=outcome
    )


def lost_lease(attempt: int, status: str = "WaitingExternal") -> Entry:
    return Entry(kind="operation", from_status=status, to_status=status, attempt=attempt, outcome="lease_lost")


ARRIVAL = (move(None, "Received"), move("Received", "Processing"), move("Processing", "WaitingExternal", 1))
SUCCESS = (*ARRIVAL, call("attempt", 1, "DELIVERED"), move("WaitingExternal", "Completed", 1))
REFUSAL = (*ARRIVAL, call("attempt", 1, "REJECTED"), move("WaitingExternal", "Failed", 1))


def completed(request_id: str = "r1", external_id: str = "e1", **changes: Any) -> Stored:
    whole = Stored(
        request_id=request_id,
        external_id=external_id,
        target=TARGET,
        status="Completed",
        failure_reason=None,
        attempts=1,
        cycle=1,
        is_due=False,
        dead_letters=0,
        history=SUCCESS,
    )
    return replace(whole, **changes)


def failed(reason: str = "external_rejected", **changes: Any) -> Stored:
    return completed(**{"status": "Failed", "failure_reason": reason, "dead_letters": 1, "history": REFUSAL, **changes})


def order(request_id: str = "r1", external_id: str = "e1", target: str = TARGET) -> Order:
    return Order(target=target, request_id=request_id, external_id=external_id)


def findings(
    stored: Sequence[Stored], orders: Sequence[Order], promises: Sequence[Promise] | None = None, **left_over: int
) -> list[Finding]:
    promised = [promise()] if promises is None else promises
    return check(Ledgers(promises=promised, stored=stored, orders=orders, left_over=left_over))


def breaches(found: Sequence[Finding]) -> list[Breach]:
    return [finding.breach for finding in found]


def gaps(*history: Entry, **changes: Any) -> list[str]:
    found = findings([completed(history=history, **changes)], [order()])
    assert set(breaches(found)) <= {Breach.GAP}
    return [finding.text for finding in found]


def test_a_whole_story_has_no_finding() -> None:
    assert findings([completed()], [order()]) == []


def test_a_request_that_is_not_on_record_is_lost() -> None:
    assert breaches(findings([], [])) == [Breach.LOST]


def test_a_request_that_has_not_ended_is_lost() -> None:
    waiting = completed(status="WaitingExternal", is_due=True, history=SUCCESS[:-1])

    assert breaches(findings([waiting], [order()])) == [Breach.LOST]


def test_a_request_that_nobody_will_look_at_again_is_named_as_such() -> None:
    forgotten = completed(status="Received", attempts=0, history=ARRIVAL[:1])

    (found,) = findings([forgotten], [])

    assert found.text == "it is still Received, and nobody will look at it again"


def test_another_order_under_the_promised_id_is_a_loss() -> None:
    assert Breach.LOST in breaches(findings([completed(external_id="e2")], [order(external_id="e2")]))


def test_completed_without_an_order_is_a_loss() -> None:
    assert breaches(findings([completed()], [])) == [Breach.LOST]


@pytest.mark.parametrize("stored", [completed(), failed("outcome_unknown")])
def test_two_orders_of_one_request_are_a_duplicate(stored: Stored) -> None:
    assert breaches(findings([stored], [order(), order()])) == [Breach.DUPLICATED]


def test_two_orders_at_two_targets_are_a_duplicate() -> None:
    assert Breach.DUPLICATED in breaches(findings([completed()], [order(), order(target="PlainJson")]))


def test_two_requests_for_one_external_id_are_a_duplicate() -> None:
    both = [completed(), completed(request_id="r2")]

    found = findings(both, [order(), order("r2")], [promise(), promise("r2")])

    assert breaches(found) == [Breach.DUPLICATED]


@pytest.mark.parametrize("reason", ["external_rejected", "external_unavailable", "timeout"])
def test_failed_as_not_applied_with_an_order_is_untrue(reason: str) -> None:
    assert breaches(findings([failed(reason)], [order()])) == [Breach.UNTRUE]


def test_failed_as_unknown_may_have_an_order() -> None:
    assert findings([failed("outcome_unknown")], [order()]) == []


def test_an_order_that_nobody_sent_is_untrue() -> None:
    assert breaches(findings([completed()], [order(), order("r9")])) == [Breach.UNTRUE]


def test_an_order_with_another_orders_payload_is_untrue() -> None:
    assert breaches(findings([completed()], [order(external_id="e2")])) == [Breach.UNTRUE]


def test_a_record_that_nobody_was_promised_is_untrue() -> None:
    assert breaches(findings([completed()], [order()], [])) == [Breach.UNTRUE]


def test_what_is_left_over_is_found() -> None:
    assert breaches(findings([completed()], [order()], outbox=3)) == [Breach.LEFT_OVER]


def test_a_history_without_its_beginning_has_a_gap() -> None:
    assert gaps(*SUCCESS[1:]) == ["transition begins in Received, after None"]


def test_a_history_that_leaves_a_move_out_has_a_gap() -> None:
    assert gaps(*ARRIVAL[:2], *SUCCESS[3:]) == ["attempt begins in WaitingExternal, after Processing"]


def test_a_history_that_ends_too_early_has_a_gap() -> None:
    found = gaps(*SUCCESS[:-1])

    assert found == ["the history ends with WaitingExternal, the request is Completed", "it ended 0 times in 1 cycles"]


def test_a_move_that_no_rule_allows_is_a_gap() -> None:
    found = gaps(move(None, "Received"), move("Received", "Completed"), attempts=0)

    assert found == ["no rule allows Received to Completed"]


def test_an_attempt_without_an_entry_is_a_gap() -> None:
    retried = (*ARRIVAL, call("attempt", 2, "DELIVERED"), move("WaitingExternal", "Completed", 2))

    assert gaps(*retried, attempts=2) == ["attempt 1 of 2 is not on record"]


def test_a_lost_lease_accounts_for_its_attempt() -> None:
    retried = (*ARRIVAL, lost_lease(1), call("attempt", 2, "DELIVERED"), move("WaitingExternal", "Completed", 2))

    assert gaps(*retried, attempts=2) == []


def test_an_attempt_that_was_not_counted_is_a_gap() -> None:
    assert gaps(*ARRIVAL, call("attempt", 1, "UNAVAILABLE"), call("attempt", 2, "DELIVERED"), SUCCESS[-1]) == [
        "attempt 2 is on record, and only 1 are counted"
    ]


def test_two_ends_in_one_cycle_are_a_gap() -> None:
    again = (*SUCCESS, move("Completed", "Completed"))

    assert "it ended 2 times in 1 cycles" in gaps(*again)


def test_two_ends_in_two_cycles_are_none() -> None:
    redriven = (*REFUSAL, move("Failed", "Received", 1), *SUCCESS[1:])

    assert gaps(*redriven, cycle=2) == []


def test_an_ended_request_that_is_still_due_is_a_gap() -> None:
    assert gaps(*SUCCESS, is_due=True) == ["it is Completed and still due"]


def test_a_failure_without_a_dead_letter_is_a_gap() -> None:
    assert breaches(findings([failed(dead_letters=0)], [])) == [Breach.GAP]


def test_only_a_payload_that_does_not_fit_is_called_invalid_and_needs_no_dead_letter() -> None:
    invalid = failed(
        "validation_failed",
        attempts=0,
        dead_letters=0,
        history=(*ARRIVAL[:2], move("Processing", "Failed")),
    )

    assert findings([invalid], [], [promise(is_good=False)]) == []
    assert breaches(findings([invalid], [])) == [Breach.UNTRUE]


def test_a_payload_that_does_not_fit_and_was_delivered_is_untrue() -> None:
    assert breaches(findings([completed()], [order()], [promise(is_good=False)])) == [Breach.UNTRUE]
