"""The tables of what a request costs, and of what stands in the way of more: CPU, cores, threads, counts, memory."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from bench.figures import ENDPOINT, LOAD, OTHERS, POSTGRES, Figures, Flat, Profile
from bench.markdown import listed, table

#: How many of those that execute most are named.
MODULES = 6


def cpu(figures: Sequence[Figures]) -> str:
    """CPU per accepted request."""
    rows = []
    for each in figures:
        spent = each.cpu_us()
        own = sum(us for name, us in spent.items() if name != POSTGRES)
        if spent:
            rows.append((each.name, f"{own:.0f}", f"{spent.get('postgres', 0.0):.0f}", listed(spent)))
    return table(("", "its processes", "PostgreSQL", "by process"), rows)


def idle(figures: Sequence[Figures]) -> str:
    """CPU and memory of one that has nothing to do."""
    rows = []
    for each in figures:
        spent, memory = each.idle_cpu(), each.memory()
        own_cpu = sum(percent for name, percent in spent.items() if name != POSTGRES)
        own_memory = sum(mb for name, mb in memory.items() if name != POSTGRES)
        postgres = f"{memory[POSTGRES]:.0f}" if POSTGRES in memory else ""
        if memory:
            rows.append((each.name, f"{own_cpu:.1f}", f"{own_memory:.0f}", postgres, listed(memory)))
    return table(("", "CPU, % of a core", "memory, MB (PSS)", "PostgreSQL, MB", "memory by process"), rows)


def cores(figures: Sequence[Figures]) -> str:
    """Where the time of all cores went while everything was loaded as much as it could bear."""
    rows = []
    for each in figures:
        if flats := each.flat.get(0):
            shares = [statistics.median(share) for share in zip(*map(_shares, flats), strict=True)]
            rows.append((each.name, *(f"{share * 100:.0f} %" for share in shares)))
    return table(("", "its processes", "PostgreSQL", LOAD, ENDPOINT, OTHERS, "nobody"), rows)


def _shares(flat: Flat) -> tuple[float, ...]:
    beside = [flat.machine_shares.get(name, 0.0) for name in (POSTGRES, LOAD, ENDPOINT, OTHERS)]
    total = sum(flat.machine_shares.values())
    return (total - sum(beside), *beside, max(0.0, 1.0 - total))


def profiles(figures: Sequence[Figures]) -> str:
    """What one request makes each of the hub's processes do."""
    hubs = [(each.name, profile) for each in figures if (profile := each.profile()) is not None]
    threads = sorted({name for _, profile in hubs for name in profile.threads})
    rows = []
    for name in threads:
        cells = [_thread(profile.threads.get(name)) for _, profile in hubs]
        if any(cells):
            rows.append((f"CPU of {name}", *cells))
    names = sorted({name for _, profile in hubs for name in profile.counts})
    rows += [(name, *(_count(profile, name) for _, profile in hubs)) for name in names]
    return table(("per request", *(name for name, _ in hubs)), rows)


def instructions(by_path: Mapping[str, Mapping[str, int]]) -> str:
    """Where the hub's own paths execute Python; what libraries do in C is not in it."""
    rows = [
        (path, f"{sum(modules.values()):,}", listed(dict(Counter(modules).most_common(MODULES))))
        for path, modules in by_path.items()
    ]
    return table(("path", "instructions", "most of them in"), rows)


def _thread(spent: tuple[float, float] | None) -> str:
    """In user mode and in the kernel; nothing for a thread that does nothing."""
    return f"{spent[0]:.0f} + {spent[1]:.0f} us" if spent is not None and sum(spent) >= 1 else ""


def _count(profile: Profile, name: str) -> str:
    count, items = profile.counts.get(name), profile.items.get(name)
    if count is None:
        return ""
    return f"{count:.3f}" + (f", of {items:.1f} items" if items is not None else "")
