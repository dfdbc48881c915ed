"""`python -m tests.hot_paths` prints, as JSON, what one request costs on each hot path, the same on any machine.

Executed instructions of Python, where they are executed (the hub's modules, and libraries by their package), and
statements of a batch. tests/integration/test_hot_paths.py holds them against their budgets; `make bench` shows them.
"""

import asyncio
import gc
import io
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from chassis.logs import configure_logs
from chassis.testing import TestKeys, eventually
from tests.hot_paths import services
from tests.hot_paths.counting import Instructions
from tests.hot_paths.intake import Intake
from tests.hot_paths.services import BATCH
from tests.sent import statements

#: The first rounds fill caches: compiled statements, loggers, a verified token.
WARM_ROUNDS = 2
ROUNDS = 2


async def main() -> dict[str, dict[str, Any]]:
    """Count every path."""
    counted: dict[str, Counter[str]] = {}
    sent: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="hub-hot-paths-") as name:
        folder = Path(name)
        keys = TestKeys(folder)
        counted["gateway create"] = await _count(services.gateway(keys))
        counted["orchestrator process"] = await _count(services.orchestrator(keys))
        counted["adapter deliver"] = await _count(services.adapter(folder))
        intake = Intake(folder)
        await intake.relay.start()
        await eventually(intake.is_ready)
        for round_number in range(WARM_ROUNDS + 1):
            steps = (intake.create, intake.claim, intake.announce, intake.complete, intake.publish)
            for step in (*steps, intake.create, intake.claim_announced):
                with Instructions() as counter, statements(intake.database.engine) as texts:
                    await step()
                if round_number == WARM_ROUNDS:
                    counted[f"intake {step.__name__}"] = _per_request(counter, BATCH)
                    sent[f"intake {step.__name__}"] = len(texts)
        intake.database.dispose()
    return {
        "instructions": {path: by_module.total() for path, by_module in counted.items()},
        "statements": sent,
        "modules": {path: dict(by_module.most_common()) for path, by_module in counted.items()},
    }


async def _count(batch: Callable[[], Awaitable[None]]) -> Counter[str]:
    for _ in range(WARM_ROUNDS):
        await batch()
    with Instructions() as counter:
        for _ in range(ROUNDS):
            await batch()
    return _per_request(counter, ROUNDS * BATCH)


def _per_request(counter: Instructions, requests: int) -> Counter[str]:
    return Counter({module: count // requests for module, count in counter.by_module.items() if count >= requests})


if __name__ == "__main__":
    gc.disable()  # what it finalizes, and when, is not the path's
    nowhere = io.TextIOWrapper(io.BytesIO())  # no file, since the log writes its last lines at exit
    configure_logs("hot-paths", level="info", log_format="json", stream=nowhere)
    figures = asyncio.run(main())
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
