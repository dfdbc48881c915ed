"""What a run says on stderr while it goes on: which part it is at, and how long the rest will take."""

import statistics
import sys
import time
from collections.abc import Sequence


class Progress:
    """Lines on stderr, each with the time since the start."""

    def __init__(self, *, rounds: int) -> None:
        self._rounds = rounds
        self._started = self._began = time.monotonic()
        self._took: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Print one line."""
        elapsed = time.monotonic() - self._started
        print(f"[{elapsed // 60:3.0f}:{elapsed % 60:02.0f}] {text}", file=sys.stderr, flush=True)

    def begin(self, round_number: int, names: Sequence[str], place: int) -> None:
        """Say which competitor of which round is next; `names` have their turns in this order."""
        self._began = time.monotonic()
        seconds = seconds_left(names, self._took, place=place, rounds_after=self._rounds - round_number - 1)
        left = f", about {seconds / 60:.0f} min left" if seconds is not None else ""
        self.say(f"round {round_number + 1} of {self._rounds}: {names[place]} ({place + 1} of {len(names)}){left}")

    def end(self, name: str) -> None:
        """Note how long it took."""
        self._took[name] = time.monotonic() - self._began


def seconds_left(names: Sequence[str], took: dict[str, float], *, place: int, rounds_after: int) -> float | None:
    """By what each took the last time; one that has not had its turn counts as the others' mean. None: no idea yet."""
    if not took:
        return None
    mean = statistics.mean(took.values())
    expected = [took.get(name, mean) for name in names]
    return sum(expected[place:]) + rounds_after * sum(expected)
