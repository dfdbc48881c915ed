"""Capacities on a clock that the test turns, and what a worker does with them."""

from chassis.targets import Target
from orchestrator_service.capacity import Place, TargetCapacity
from orchestrator_service.retry import Outcome


class Time:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def capacity_of(
    time: Time, *, concurrency: int = 8, rate: float = 0, workers: int = 1, index: int = 0, idempotent: bool = False
) -> TargetCapacity:
    """The capacity of one worker."""
    target = Target(
        name="T",
        adapter="http_json",
        base_url="http://127.0.0.1:1",
        concurrency=concurrency,
        rate_per_second=rate,
        idempotent=idempotent,
    )
    capacity = TargetCapacity(target, time)
    capacity.set_share(workers=workers, index=index)
    return capacity


def take(capacity: TargetCapacity) -> Place:
    """Take the one place that must be there."""
    [place] = capacity.take(1)
    return place


def take_all(capacity: TargetCapacity) -> list[Place]:
    """Take as many places as there are, one by one."""
    places = []
    while taken := capacity.take(1):
        places += taken
    return places


def end(outcome: Outcome, *places: Place, retry_after: float = 0.0) -> None:
    """Have calls end like that, and leave their places."""
    for place in places:
        place.call()
        place.record(outcome, retry_after)
        place.leave()
