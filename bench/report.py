"""The tables of a comparison, in Markdown, for the terminal and for docs/benchmarks.md alike."""

from collections.abc import Callable, Mapping, Sequence

from bench.comparison import Comparison
from bench.figures import Figures, Spread, Steady, spread
from bench.goals import judge
from bench.limits import Limit

BEGIN, END = "<!-- figures: written by `make bench` -->", "<!-- end of the figures -->"
#: Of the whole machine; more of it in other hands and the figures say little.
QUIET_SHARE = 0.10
Row = Sequence[str]


def tables(comparison: Comparison) -> str:
    """Every table, the goals first."""
    figures = comparison.figures
    parts = [
        ("Goals", _goals(figures)),
        ("Rates", _rates(figures)),
        ("How many times each peer", _ratios(figures)),
        ("From the 202 to the completion, ms", _latencies(figures)),
        ("CPU per accepted request, us, external system 0 ms", _cpu(figures)),
        ("Idle", _idle(figures)),
        ("SIGKILL of everything under load, external system 50 ms", _crashes(figures)),
        ("Counted at both ends", _counts(figures)),
        ("The parts' limits", _limits(comparison)),
    ]
    text = "\n\n".join(f"### {title}\n\n{table}" for title, table in parts if table)
    trouble = [f"- {each.name}: {words.splitlines()[-1]}" for each in figures for words in each.trouble]
    return text + ("\n\n### Trouble\n\n" + "\n".join(trouble) if trouble else "")


def is_quiet(comparison: Comparison) -> bool:
    """Whether other programs left the machine alone."""
    flats = [flat for each in comparison.figures for flats in each.flat.values() for flat in flats]
    return all(flat.others_share <= QUIET_SHARE for flat in flats)


def is_sound(comparison: Comparison) -> bool:
    """Whether every competitor was measured and every count agrees; a goal that is missed is no fault of the run."""
    hubs = [each for each in comparison.figures if each.is_hub]
    return all(each.counts_agree and not each.trouble for each in comparison.figures) and all(
        each.crash is None or not each.crash.missing for each in hubs
    )


def insert(page: str, text: str) -> str:
    """Put the text between the page's marks. Raises: ValueError when it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def _goals(figures: Sequence[Figures]) -> str:
    return _table(
        ("goal", "measured (medians)", ""), [(goal.goal, goal.figure, goal.verdict) for goal in judge(figures)]
    )


def _rates(figures: Sequence[Figures]) -> str:
    headers = ("", "durable", "accepts/s, 0 ms", "completions/s, 0 ms", "accepts/s, 50 ms", "completions/s, 50 ms")
    rows = [
        (
            each.name,
            "yes" if each.is_durable else "no",
            *(_text(value) for delay in (0, 50) for value in (each.accepts(delay), each.completions(delay))),
        )
        for each in figures
    ]
    return _table(headers, rows)


def _ratios(figures: Sequence[Figures]) -> str:
    measures: tuple[tuple[str, Callable[[Figures], Spread | None]], ...] = (
        ("accepts/s", lambda each: each.accepts(0)),
        ("completions/s, 0 ms", lambda each: each.completions(0)),
        ("50 ms", lambda each: each.completions(50)),
    )
    hubs = [each for each in figures if each.is_hub]
    rows = [
        (peer.name, *(_ratio(measure(hub), measure(peer)) for hub in hubs for _, measure in measures))
        for peer in figures
        if not peer.is_hub
    ]
    headers = ("", *(f"{hub.name}: {what}" if what == measures[0][0] else what for hub in hubs for what, _ in measures))
    return _table(headers, rows) if hubs and rows else ""


def _latencies(figures: Sequence[Figures]) -> str:
    half = next((f"{steady.per_second:.0f}/s" for each in figures for steady in each.half), "half of the hub's most")
    headers = ("", "50/s p50", "p95", "p99", "until its event is read: p50", "p95", f"{half} p50", "p95", "p99")
    rows = []
    for each in figures:
        seen = [low.seen for low in each.low if low.seen is not None]
        rows.append(
            (
                each.name,
                *_percentiles(each.low),
                *(_text(spread(seen, lambda three, n=number: three[n])) for number in (0, 1)),  # type: ignore[misc]
                *_percentiles(each.half),
            )
        )
    return _table(headers, rows)


def _percentiles(steadies: Sequence[Steady]) -> tuple[str, str, str]:
    return (
        _text(spread(steadies, lambda steady: steady.p50)),
        _text(spread(steadies, lambda steady: steady.p95)),
        _text(spread(steadies, lambda steady: steady.p99)),
    )


def _cpu(figures: Sequence[Figures]) -> str:
    rows = []
    for each in figures:
        cpu = each.cpu_us()
        own = sum(us for name, us in cpu.items() if name != "postgres")
        rows.append((each.name, f"{own:.0f}", f"{cpu.get('postgres', 0.0):.0f}", _by_process(cpu)))
    return _table(("", "its processes", "PostgreSQL", "by process"), rows)


def _idle(figures: Sequence[Figures]) -> str:
    rows = []
    for each in figures:
        cpu, memory = each.idle_cpu(), each.memory()
        own_cpu = sum(percent for name, percent in cpu.items() if name != "postgres")
        own_memory = sum(mb for name, mb in memory.items() if name != "postgres")
        postgres = f"{memory['postgres']:.0f}" if "postgres" in memory else ""
        rows.append((each.name, f"{own_cpu:.1f}", f"{own_memory:.0f}", postgres, _by_process(memory)))
    return _table(("", "CPU, % of a core", "memory, MB (PSS)", "PostgreSQL, MB", "memory by process"), rows)


def _crashes(figures: Sequence[Figures]) -> str:
    rows = [
        (
            each.name,
            f"{each.crash.accepted:,}",
            f"{each.crash.missing:,}",
            f"{each.crash.repeated:,}",
            f"{each.crash.seconds_until_all_ended:.0f}",
        )
        for each in figures
        if each.crash is not None
    ]
    return _table(("", "accepted", "missing", "calls repeated", "seconds after the restart"), rows) if rows else ""


def _counts(figures: Sequence[Figures]) -> str:
    rows = []
    for each in figures:
        flats = [flat for flats in each.flat.values() for flat in flats]
        sums = [
            sum(getattr(flat, name) for flat in flats) for name in ("accepted", "completed", "received", "repeated")
        ]
        refused = sum(flat.refused for flat in flats)
        load = max((flat.load_share for flat in flats), default=0.0)
        endpoint = max((flat.endpoint_share for flat in flats), default=0.0)
        others = max((flat.others_share for flat in flats), default=0.0)
        rows.append(
            (
                each.name,
                *(f"{value:,}" for value in sums),
                f"{refused:,}",
                "yes" if each.counts_agree else "NO",
                f"{load * 100:.0f} %, {endpoint * 100:.0f} %",
                f"{others * 100:.0f} %",
            )
        )
    load_header, others_header = "of a core: load, external system", "of the machine: other programs"
    headers = ("", "accepted", "completed", "received", "repeated", "refused", "agree", load_header, others_header)
    return _table(headers, rows)


def _limits(comparison: Comparison) -> str:
    hubs = [each for each in comparison.figures if each.is_hub]
    rows = [
        (limit.stage, f"{limit.per_second:,.0f}", *(_shares(hub, limit) for hub in hubs), limit.how)
        for limit in comparison.limits
    ]
    return _table(("alone", "per second", *(f"{hub.name} accepts, completes" for hub in hubs), "how"), rows)


def _shares(hub: Figures, limit: Limit) -> str:
    if limit.database not in ("", hub.name.rpartition(" ")[2]):
        return ""
    rates = (hub.accepts(0), hub.completions(0))
    return ", ".join(f"{rate.middle / limit.per_second * 100:.0f} %" for rate in rates if rate is not None)


def _by_process(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f}" for name, value in sorted(values.items(), key=lambda item: -item[1]))


def _ratio(own: Spread | None, other: Spread | None) -> str:
    return f"{own.middle / other.middle:.2f}" if own is not None and other is not None else ""


def _text(value: Spread | None) -> str:
    return str(value) if value is not None else ""


def _table(headers: Row, rows: Sequence[Row]) -> str:
    widths = [max(len(row[column]) for row in (headers, *rows)) for column in range(len(headers))]

    def line(cells: Row) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(headers), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)])
