"""The page of a comparison, in Markdown, for the terminal and for docs/benchmarks.md alike."""

from collections.abc import Callable, Sequence

from bench import cost_tables
from bench.comparison import Comparison
from bench.figures import Figures, Flat, Steady, ratio_by_round, spread
from bench.goals import judge
from bench.limits import Limit
from bench.markdown import cell, table
from bench.profile import ROOT

BEGIN, END = "<!-- figures: written by `make bench` -->", "<!-- end of the figures -->"
#: Of the whole machine; more of it in other hands and the figures say little.
QUIET_SHARE = 0.10
#: Of what a competitor that failed has said.
LAST_LINES = 12
NOT_MEASURED = "failed"
COUNTED = ("accepted", "completed", "received", "repeated", "refused", "broken")
STEADY_COUNTED = ("accepted", "missing", "unseen", "refused", "broken")


def page(comparison: Comparison) -> str:
    """Heading and every table."""
    return f"{_heading(comparison)}\n\n{tables(comparison)}"


def tables(comparison: Comparison) -> str:
    """Every table, the goals first and what stands in their way after them."""
    figures = comparison.figures
    parts = [
        ("Goals", _goals(figures)),
        ("Rates", _rates(figures)),
        ("How many times each peer, by round", _ratios(figures)),
        ("From the 202 to the completion, ms", _latencies(figures)),
        ("CPU per accepted request, us, external system 0 ms", cost_tables.cpu(figures)),
        ("Where the time of all cores went, external system 0 ms", cost_tables.cores(figures)),
        ("What one request makes the hub do, external system 0 ms", cost_tables.profiles(figures)),
        ("Instructions of Python for one request, on any machine", cost_tables.instructions(comparison.instructions)),
        ("The parts' limits", _limits(comparison)),
        ("Idle", cost_tables.idle(figures)),
        ("SIGKILL of everything under load, external system 50 ms", _crashes(figures)),
        ("Counted at both ends", _counts(figures)),
        ("Trouble", _trouble(comparison)),
    ]
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in parts if text)


def _heading(comparison: Comparison) -> str:
    warning = "" if is_quiet(comparison) else "**Other programs kept the machine busy.** "
    if comparison.finished_rounds < comparison.rounds:
        warning += f"**Ended early: {comparison.finished_rounds} of {comparison.rounds} rounds are complete.** "
    return (
        f"{warning}{comparison.started:%d %B %Y}, {comparison.machine}, {comparison.servers}. "
        f"`{comparison.command}`: each measurement of {comparison.seconds:g} s, repeats: {comparison.rounds}, "
        f"minutes in all: {comparison.minutes:.0f}. Cells are minimum / median / maximum of the repeats, or medians."
    )


def is_quiet(comparison: Comparison) -> bool:
    """Whether other programs left the machine alone."""
    return all(flat.others_share <= QUIET_SHARE for each in comparison.figures for flat in each.flats)


def is_sound(comparison: Comparison) -> bool:
    """Whether every competitor was measured and every count agrees; a goal that is missed is no fault of the run."""
    is_measured = not comparison.trouble and not any(each.trouble for each in comparison.figures)
    lost = sum(crash.missing for each in comparison.figures if each.is_hub for crash in each.crashes)
    return is_measured and not lost and all(each.counts_agree for each in comparison.figures)


def insert(page: str, text: str) -> str:
    """Put the text between the page's marks. Raises: ValueError when it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def _goals(figures: Sequence[Figures]) -> str:
    goals = judge(figures)
    text = table(("goal", "measured (medians)", ""), [(goal.goal, goal.figure, goal.verdict) for goal in goals])
    missed = sum(goal.held is False for goal in goals)
    if not missed:
        return text
    return (
        f"{text}\n\n{missed} of {len(goals)} are not held. What stands in the way is below: where the time of all "
        "cores went, what one request makes each process of the hub do, which modules execute most, and how far each "
        "part is from its limit."
    )


def _rates(figures: Sequence[Figures]) -> str:
    rates = ("accepts/s", "completions/s under load", "completions/s")
    headers = ("", "durable", *(f"{rate}, {delay} ms" for delay in (0, 50) for rate in rates))
    rows = [
        (
            each.name,
            "yes" if each.is_durable else "no",
            *(
                cell(value) or (NOT_MEASURED if each.trouble else "")
                for delay in (0, 50)
                for value in (each.accepts(delay), each.under_load(delay), each.completions(delay))
            ),
        )
        for each in figures
    ]
    return table(headers, rows)


def _ratios(figures: Sequence[Figures]) -> str:
    measures: tuple[tuple[str, int, Callable[[Flat], float]], ...] = (
        ("accepts/s", 0, lambda flat: flat.accepts_per_second),
        ("completions/s, 0 ms", 0, lambda flat: flat.completions_per_second),
        ("50 ms", 50, lambda flat: flat.completions_per_second),
    )
    hubs = [each for each in figures if each.is_hub]
    rows = [
        (peer.name, *(_times(hub, peer, delay, rate) for hub in hubs for _, delay, rate in measures))
        for peer in figures
        if not peer.is_hub
    ]
    names = [what for what, *_ in measures]
    headers = [f"{hub.name}: {what}" if what == names[0] else what for hub in hubs for what in names]
    return table(("", *headers), rows) if hubs else ""


def _times(hub: Figures, peer: Figures, delay_ms: int, rate: Callable[[Flat], float]) -> str:
    ratio = ratio_by_round(hub.flat.get(delay_ms, []), peer.flat.get(delay_ms, []), rate)
    if ratio is None:
        return ""
    return f"{ratio.low:.2f} / {ratio.middle:.2f} / {ratio.high:.2f}" if ratio.low < ratio.high else f"{ratio.low:.2f}"


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
                *(cell(spread(seen, lambda three, n=number: three[n])) for number in (0, 1)),  # type: ignore[misc]
                *_percentiles(each.half),
            )
        )
    return table(headers, rows)


def _percentiles(steadies: Sequence[Steady]) -> tuple[str, str, str]:
    return (
        cell(spread(steadies, lambda steady: steady.p50)),
        cell(spread(steadies, lambda steady: steady.p95)),
        cell(spread(steadies, lambda steady: steady.p99)),
    )


def _crashes(figures: Sequence[Figures]) -> str:
    rows = [
        (
            each.name,
            f"{len(each.crashes)}",
            f"{sum(crash.accepted for crash in each.crashes):,}",
            f"{sum(crash.missing for crash in each.crashes):,}",
            f"{sum(crash.repeated for crash in each.crashes):,}",
            f"{max(crash.seconds_until_all_ended for crash in each.crashes):.0f}",
        )
        for each in figures
        if each.crashes
    ]
    headers = ("", "crashes", "accepted", "missing", "calls repeated", "seconds after the restart, at most")
    return table(headers, rows)


def _counts(figures: Sequence[Figures]) -> str:
    rows = []
    for each in figures:
        if not each.flats:
            continue
        sums = [sum(getattr(flat, name) for flat in each.flats) for name in COUNTED]
        load, endpoint, others = (
            max(getattr(flat, name) for flat in each.flats) for name in ("load_share", "endpoint_share", "others_share")
        )
        rows.append(
            (
                each.name,
                *(f"{value:,}" for value in sums),
                *(f"{sum(getattr(steady, name) for steady in each.steadies):,}" for name in STEADY_COUNTED),
                "yes" if each.counts_agree else "NO",
                f"{load * 100:.0f} %, {endpoint * 100:.0f} %",
                f"{others * 100:.0f} %",
            )
        )
    shares = ("at most of a core: load, external system", "at most of the machine: other programs")
    steady = [f"{name}, at fixed rates" for name in STEADY_COUNTED]
    return table(("", *COUNTED, *steady, "agree", *shares), rows)


def _limits(comparison: Comparison) -> str:
    hubs = [each for each in comparison.figures if each.is_hub]
    rows = [
        (limit.stage, f"{limit.per_second:,.0f}", *(_share(hub, limit) for hub in hubs), limit.how)
        for limit in comparison.limits
    ]
    return table(("alone", "per second", *(hub.name for hub in hubs), "how"), rows)


def _share(hub: Figures, limit: Limit) -> str:
    """What the hub's completions need of it, as a share of what it can do alone."""
    rate, profile = hub.completions(0), hub.profile()
    if rate is None or limit.database not in ("", hub.name.rpartition(" ")[2]):
        return ""
    needed = profile.needed(limit.needed) if profile is not None and limit.needed else 1.0
    return f"{rate.middle:,.0f} x {needed:.1f} = {rate.middle * needed / limit.per_second * 100:.0f} %"


def _trouble(comparison: Comparison) -> str:
    """What went wrong, with the last that a competitor has said of it."""
    parts = [f"- {words}" for words in comparison.trouble]
    for each in comparison.figures:
        for words in each.trouble:
            what, _, log = words.partition("\n")
            parts.append(f"- {each.name}, {what}")
            if log.strip():
                last = log.replace(f"{ROOT}/", "").splitlines()[-LAST_LINES:]
                parts.append("\n```text\n" + "\n".join(last) + "\n```\n")
    return "\n".join(parts).strip()
