"""What the supervisor is to run, as plain data in a file.

`hub up` writes it and then becomes the supervisor, which reads it: so the process that stays needs neither settings
nor gRPC in its memory. There are no secrets in it; those travel in the environment.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildPlan:
    """One process to keep running."""

    name: str
    command: tuple[str, ...]
    #: Where its health is asked for; see console.probes for the forms.
    probe: str
    #: Seconds from SIGTERM to SIGKILL.
    grace_seconds: float
    #: Keep its lines off the terminal; its log file has them.
    hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything the supervisor needs to know."""

    #: In the order of start; they stop in the reverse order.
    children: tuple[ChildPlan, ...]
    state_dir: str
    #: The one line on stdout once all are healthy.
    ready_line: str
    #: What people read at that moment, on stderr.
    summary: str
    #: HUB_LOG_FORMAT: auto, json or console.
    log_format: str
    #: What draws on the terminal once all are healthy; nothing when empty.
    watcher: tuple[str, ...] = ()

    @property
    def logs(self) -> Path:
        """The folder of the log files."""
        return Path(self.state_dir) / "logs"


def write_plan(plan: Plan, path: Path) -> None:
    """Write `plan` as JSON."""
    path.write_text(json.dumps(dataclasses.asdict(plan), indent=2) + "\n")


def read_plan(path: Path) -> Plan:
    """Read what `write_plan` wrote."""
    document = json.loads(path.read_text())
    children = tuple(ChildPlan(**{**child, "command": tuple(child["command"])}) for child in document["children"])
    return Plan(**{**document, "children": children, "watcher": tuple(document["watcher"])})
