"""Which faults a run has, drawn from its seed. Pure: what they do is done in injector.py.

A run goes in rounds. Each begins with one SIGKILL while everything else is well, so that the recovery from it can be
told from other trouble, and goes on with a burst of faults that overlap as they please.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.targets import LATEST_COMMIT_SECONDS, TARGETS

BURST = 17
MEAN_GAP_SECONDS = 0.9
#: Every so many rounds of a run on SQLite the clock jumps.
CLOCK_EVERY = 3


class Action(StrEnum):
    """What a fault does, in the words of the table."""

    KILL = "SIGKILL"
    KILL_ALL = "SIGKILL of the whole hub"
    PAUSE = "SIGSTOP, short"
    PAUSE_LONG = "SIGSTOP past the lease"
    FLUSH = "FLUSHALL"
    KILL_VALKEY = "Valkey killed"
    LOSE_VALKEY = "Valkey killed, files deleted"
    PAUSE_VALKEY = "Valkey frozen"
    KILL_DATABASE = "PostgreSQL killed"
    LOCK_DATABASE = "SQLite locked"
    JUMP_CLOCK = "clock jump"
    DUPLICATES = "duplicate stream entries"
    REORDER = "reordered stream entries"
    JUNK = "junk stream entries"
    EXTERNAL_DOWN = "external: down"
    LOOKUP_DOWN = "external: lookup down"
    UNAVAILABLE = "external: 503 storm"
    THROTTLED = "external: 429"
    REJECTED = "external: 422"
    BAD_GATEWAY = "external: 502 after the commit"
    SLOW = "external: slow"
    RESET_BEFORE = "external: reset before"
    RESET_AFTER = "external: reset after the commit"
    COMMIT_LATER = "external: reset, committed later"
    HANG = "external: hangs"
    HANG_AFTER = "external: hangs after the commit"
    BROKEN_JSON = "external: broken JSON"
    CUT_BODY = "external: cut body"
    LOST_THEN_REFUSED = "external: answer lost, then 503s"


#: After these the external system commits later than the hub was told. Where the clock jumps ahead meanwhile, no clock
#: can say whether an order that is absent will stay so: the two are kept apart.
LATE = (Action.SLOW, Action.COMMIT_LATER)
#: Faults of calls to a target, with how many calls they hit and how long each takes.
CALLS: Mapping[Action, tuple[tuple[int, int], tuple[float, float]]] = {
    Action.UNAVAILABLE: ((4, 60), (0, 0)),
    Action.THROTTLED: ((1, 4), (1, 3)),
    Action.REJECTED: ((1, 4), (0, 0)),
    Action.BAD_GATEWAY: ((2, 8), (0, 0)),
    Action.SLOW: ((2, 8), (0.5, LATEST_COMMIT_SECONDS)),
    Action.RESET_BEFORE: ((2, 9), (0, 0)),
    Action.RESET_AFTER: ((2, 9), (0, 0)),
    Action.COMMIT_LATER: ((2, 8), (0.5, LATEST_COMMIT_SECONDS)),
    Action.HANG: ((1, 6), (0, 0)),
    Action.HANG_AFTER: ((1, 6), (0, 0)),
    Action.BROKEN_JSON: ((2, 8), (0, 0)),
    Action.CUT_BODY: ((2, 8), (0, 0)),
}
_WEIGHTS: Mapping[Action, float] = {
    Action.KILL: 18,
    Action.KILL_ALL: 2,
    Action.PAUSE: 6,
    Action.PAUSE_LONG: 4,
    Action.FLUSH: 3,
    Action.KILL_VALKEY: 2,
    Action.LOSE_VALKEY: 3,
    Action.PAUSE_VALKEY: 2,
    Action.KILL_DATABASE: 3,
    Action.LOCK_DATABASE: 3,
    Action.JUMP_CLOCK: 15,
    Action.DUPLICATES: 3,
    Action.REORDER: 3,
    Action.JUNK: 2,
    Action.EXTERNAL_DOWN: 2,
    Action.LOOKUP_DOWN: 2,
    Action.LOST_THEN_REFUSED: 3,
    **dict.fromkeys(CALLS, 2.0),
}
#: Seconds that what was ended stays away, or that what is stopped stays stopped.
_SECONDS: Mapping[Action, tuple[float, float]] = {
    Action.KILL: (0.1, 1.5),
    Action.KILL_ALL: (0.1, 1.0),
    Action.PAUSE: (0.3, 4.0),
    Action.PAUSE_LONG: (16.0, 20.0),
    Action.KILL_VALKEY: (0.1, 2.0),
    Action.LOSE_VALKEY: (0.1, 2.0),
    Action.PAUSE_VALKEY: (0.3, 4.0),
    Action.KILL_DATABASE: (0.1, 2.0),
    Action.LOCK_DATABASE: (0.5, 6.0),
    Action.JUMP_CLOCK: (-40.0, 120.0),
    Action.EXTERNAL_DOWN: (0.2, 3.0),
    Action.LOOKUP_DOWN: (1.0, 4.0),
}
_MANY = (Action.DUPLICATES, Action.REORDER, Action.JUNK)
_ON_SQLITE_ONLY = (Action.LOCK_DATABASE, Action.JUMP_CLOCK)
_ON_POSTGRESQL_ONLY = (Action.KILL_DATABASE,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: `victim` is a process or a target, empty where there is but one."""

    action: Action
    victim: str = ""
    #: How long it lasts, or by how much the clock jumps.
    seconds: float = 0.0
    #: How many calls or entries it hits.
    times: int = 0
    #: Since the fault before it.
    after_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A SIGKILL while all is well, and a burst of anything."""

    alone: Fault
    burst: tuple[Fault, ...]


def draw_rounds(seed: int, *, on_postgresql: bool, processes: Sequence[str], faults: int) -> list[Round]:
    """Draw so many faults; the same seed gives the same faults."""
    chance = random.Random(seed)  # noqa: S311 - it must be repeatable
    kills = _kills_in_turn(chance, processes, on_postgresql=on_postgresql)
    rounds: list[Round] = []
    while faults > 0:
        alone = kills[len(rounds) % len(kills)]
        size = min(BURST, faults - 1)
        jumps = not on_postgresql and len(rounds) % CLOCK_EVERY == CLOCK_EVERY - 1
        actions = _actions(on_postgresql=on_postgresql, jumps=jumps)
        weights = [_WEIGHTS[action] for action in actions]
        drawn = [_draw(chance, action, processes) for action in chance.choices(actions, weights, k=size)]
        rounds.append(Round(alone=alone, burst=tuple(drawn)))
        faults -= 1 + size
    return rounds


def _kills_in_turn(chance: random.Random, processes: Sequence[str], *, on_postgresql: bool) -> list[Fault]:
    """Each process first once, the ones that hold leases more often, in an order of the seed's."""
    victims = [*processes, *(name for name in processes if name.startswith("orchestrator"))]
    kills = [Fault(action=Action.KILL, victim=name, seconds=chance.uniform(*_SECONDS[Action.KILL])) for name in victims]
    others = [Action.KILL_ALL, Action.KILL_VALKEY, *([Action.KILL_DATABASE] if on_postgresql else [])]
    kills += [Fault(action=action, seconds=chance.uniform(*_SECONDS[action])) for action in others]
    chance.shuffle(kills)
    return kills


def _actions(*, on_postgresql: bool, jumps: bool) -> list[Action]:
    left_out = {*(_ON_SQLITE_ONLY if on_postgresql else _ON_POSTGRESQL_ONLY)}
    left_out |= set(LATE) if jumps else {Action.JUMP_CLOCK}
    return [action for action in _WEIGHTS if action not in left_out]


def _draw(chance: random.Random, action: Action, processes: Sequence[str]) -> Fault:
    after = chance.expovariate(1 / MEAN_GAP_SECONDS)
    if action in CALLS:
        times, seconds = CALLS[action]
        return Fault(
            action=action,
            victim=chance.choice(TARGETS),
            seconds=chance.uniform(*seconds),
            times=chance.randint(*times),
            after_seconds=after,
        )
    victim = ""
    if action in (Action.KILL, Action.PAUSE, Action.PAUSE_LONG):
        victim = chance.choice(processes)
    elif action in (*_MANY, Action.LOOKUP_DOWN, Action.LOST_THEN_REFUSED):
        victim = chance.choice(TARGETS)
    return Fault(
        action=action,
        victim=victim,
        seconds=chance.uniform(*_SECONDS[action]) if action in _SECONDS else 0.0,
        times=chance.randint(10, 60) if action in _MANY else 0,
        after_seconds=after,
    )
