"""Tables in Markdown that can be read in a terminal too."""

from collections.abc import Mapping, Sequence

from bench.figures import Spread

Row = Sequence[str]


def table(headers: Row, rows: Sequence[Row]) -> str:
    """Columns as wide as their widest cell; nothing without a row."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in (headers, *rows)) for column in range(len(headers))]

    def line(cells: Row) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(headers), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)])


def cell(value: Spread | None) -> str:
    """A spread; nothing where nothing was measured."""
    return str(value) if value is not None else ""


def listed(values: Mapping[str, float]) -> str:
    """Names with whole numbers, the largest first."""
    return ", ".join(f"{name} {value:.0f}" for name, value in sorted(values.items(), key=lambda item: -item[1]))
