"""What processes cost: CPU time and memory, read from /proc."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with all its threads, user and system."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


def thread_seconds(pid: int) -> list[tuple[str, tuple[float, float]]]:
    """CPU time in user mode and in the kernel, of a process' first thread and of its others together."""
    spent = {"first thread": [0, 0], "other threads": [0, 0]}
    for task in Path(f"/proc/{pid}/task").iterdir():
        if fields := _stat(f"{pid}/task/{task.name}"):
            mine = spent["first thread" if task.name == str(pid) else "other threads"]
            mine[0] += int(fields[11])
            mine[1] += int(fields[12])
    return [(name, (user / _TICKS, kernel / _TICKS)) for name, (user, kernel) in spent.items()]


def family(pid: int) -> list[int]:
    """A process and all that descend from it and run."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:  # grows while it is walked
        found += children.get(parent, [])
    return found


def parent(pid: int) -> int:
    """The process that started it; 0 when it does not run."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def family_cpu_seconds(pid: int) -> float:
    """CPU time of a process and its descendants, those that have ended and were waited for included."""
    return sum(sum(map(int, fields[11:15])) for each in family(pid) if (fields := _stat(each))) / _TICKS


def machine_cpu_seconds() -> float:
    """CPU time that anything at all has used on this machine, and what its host took away."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def proportional_memory_mb(pid: int) -> float:
    """Memory of a process in MB, shared pages divided among those who share them (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no Pss line for {pid}")


def families_memory_mb(pids: Sequence[int]) -> float:
    """PSS of processes and their descendants, in MB."""
    return sum(proportional_memory_mb(each) for pid in pids for each in family(pid))


def machine() -> str:
    """The machine in one line: processor, cores, kernel, and the Python that runs the hub and its peers."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, Linux {os.uname().release}, {python}"


def _stat(entry: int | str) -> list[str]:
    """The fields after the name; nothing when there is no such process or thread."""
    try:
        return Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
