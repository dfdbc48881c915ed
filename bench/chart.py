"""A picture of completions per second, as SVG text; no library."""

from collections.abc import Sequence
from html import escape

from bench.figures import Figures, Spread

WIDTH, LABELS, RIGHT, TOP = 860, 210, 90, 56
BAR, GAP = 13, 12
COLOURS = {True: ("#0b6e4f", "#6fbf9b"), False: ("#5b6770", "#b4bcc2")}
DELAYS_MS = (0, 50)


def draw(figures: Sequence[Figures], *, machine: str) -> str:
    """Two bars for each competitor, medians, with a line from the minimum to the maximum of the repeats."""
    shown = [each for each in figures if each.completions(0) is not None]
    spreads = [spread for each in shown for delay in DELAYS_MS if (spread := each.completions(delay)) is not None]
    most = max((spread.high for spread in spreads), default=1.0)
    height = TOP + len(shown) * (2 * BAR + GAP) + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-size="12">',
        "<style>text { font-family: sans-serif }</style>",
        "<title>Completions per second of the hub and its peers</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="12" y="22" font-size="15" font-weight="bold">Completions per second: median, least to most</text>',
        '<text x="12" y="42" fill="#444">dark: external system answers in 0 ms; light: in 50 ms</text>',
    ]
    for row, each in enumerate(shown):
        top = TOP + row * (2 * BAR + GAP)
        lines.append(f'<text x="{LABELS - 8}" y="{top + BAR + 4}" text-anchor="end">{escape(each.name)}</text>')
        for number, delay in enumerate(DELAYS_MS):
            spread = each.completions(delay)
            if spread is None:
                continue
            y, colour = top + number * BAR, COLOURS[each.is_hub][number]
            end, low, high = (LABELS + value / most * (WIDTH - LABELS - RIGHT) for value in _three(spread))
            lines += [
                f'<rect x="{LABELS}" y="{y}" width="{end - LABELS:.1f}" height="{BAR - 1}" fill="{colour}"/>',
                f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y + 6}" y2="{y + 6}" stroke="#000"/>',
                f'<text x="{high + 6:.1f}" y="{y + 11}">{spread.middle:,.0f}</text>',
            ]
    lines += [f'<text x="12" y="{height - 10}" fill="#444">{escape(machine)}</text>', "</svg>"]
    return "\n".join(lines) + "\n"


def _three(spread: Spread) -> tuple[float, float, float]:
    return spread.middle, spread.low, spread.high
