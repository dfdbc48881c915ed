"""Counting what is executed, without a clock: bytecode instructions."""

import asyncio
import selectors
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, Self

#: The loop's own work: how often it looks round depends on the machine, and the hub runs on another one (uvloop).
_LOOP = (str(Path(asyncio.__file__).parent), str(Path(selectors.__file__)))
_OWN = frozenset({"adapter_service", "chassis", "gateway", "intake_service", "orchestrator_service"})


class Instructions:
    """A counter; `with` counts what this thread executes inside, in the hub's code and in its libraries'."""

    def __init__(self) -> None:
        self._by_name: Counter[str] = Counter()

    @property
    def by_module(self) -> Counter[str]:
        """How many, by module of the hub; of a library by its package."""
        counted: Counter[str] = Counter()
        for name, count in self._by_name.items():
            package, _, _ = name.partition(".")
            counted[name if package in _OWN else package] += count
        return counted

    def __enter__(self) -> Self:
        """Begin."""
        sys.settrace(self._enter_frame)
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        sys.settrace(None)

    def _enter_frame(self, frame: FrameType, _: str, __: Any) -> Any:
        if frame.f_code.co_filename.startswith(_LOOP):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            self._by_name[frame.f_globals["__name__"]] += 1
        return self._step
