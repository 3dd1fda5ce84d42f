"""The path of mark and margin ratio: in the terminal, and as SVG or PNG.

Files are drawn by Matplotlib, which is not needed for anything else and so is an extra (`pip install
"foldex[audit]"`). Figures to look at are floats here; nothing is decided with them.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from exchange.audit.story import Sample, Story
from exchange.decimals import price_text

FORMATS = ("svg", "png")
# A ratio far above 1 says no more than one that is above: the rest of the path would be a flat line.
RATIO_SHOWN_MAX = 1.5
_WIDTH = 72
_HEIGHT = 8
# Matplotlib names parts of a drawing at random unless told otherwise.
_HASH_SALT = "foldex"


class ChartError(Exception):
    """No chart can be drawn; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Values in order, and what they are."""

    name: str
    values: list[float]


def series_of(story: Story) -> tuple[list[Series], Series]:
    """Return the marks of the bucket's markets (of several, as parts of their first ones), and the ratio."""
    path = story.path
    symbols = list(dict.fromkeys(symbol for sample in path for symbol in sample.marks))
    marks = []
    for symbol in symbols:
        values = _marks(path, symbol)
        if len(symbols) == 1:
            scale, name = story.specs[symbol].tick_size / 1e8, f"mark {symbol}"
        else:
            scale, name = (
                1 / values[0],
                f"mark {symbol} / {price_text(story.specs[symbol], round(values[0]))}",
            )
        marks.append(Series(name=name, values=[value * scale for value in values]))
    ratios = [min(RATIO_SHOWN_MAX, ratio_of(sample)) for sample in path]
    return marks, Series(name=f"margin ratio, up to {RATIO_SHOWN_MAX}", values=ratios)


def ratio_of(sample: Sample) -> float:
    """Return maintenance / equity, `RATIO_SHOWN_MAX` without equity."""
    return sample.maintenance / sample.equity if sample.equity > 0 else RATIO_SHOWN_MAX


def _marks(path: Sequence[Sample], symbol: str) -> list[float]:
    """Return a market's mark in ticks at each sample; before and after its position, the nearest known."""
    first = next(sample.marks[symbol] for sample in path if symbol in sample.marks)
    values, last = [], first
    for sample in path:
        last = sample.marks.get(symbol, last)
        values.append(float(last))
    return values


def terminal_lines(story: Story, width: int = _WIDTH, height: int = _HEIGHT) -> list[str]:
    """Return the path as lines of text, a small chart for each mark and one for the ratio."""
    if not story.path:
        return ["it was opened and liquidated in one entry: there is no path"]
    marks, ratio = series_of(story)
    lines: list[str] = []
    for series in (*marks, ratio):
        lines += [series.name, *_plot(series.values, width, height)]
    first, last = story.path[0], story.path[-1]
    lines.append(f"{'':>12}  from entry {first.seq} to {last.seq}, {len(story.path)} changes")
    return lines


def _plot(values: list[float], width: int, height: int) -> list[str]:
    """Draw values in columns; a column shows all from its lowest to its highest."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    count = min(width, len(values))
    rows = [[" "] * count for _ in range(height)]
    for column in range(count):
        part = values[column * len(values) // count : (column + 1) * len(values) // count]
        top = round((max(part) - low) / span * (height - 1))
        bottom = round((min(part) - low) / span * (height - 1))
        for level in range(bottom, top + 1):
            rows[height - 1 - level][column] = "┃" if top > bottom else "━"
    labels = [""] * height
    labels[0], labels[-1] = f"{high:.8g}", f"{low:.8g}"
    return [f"{label:>12} ┤{''.join(row)}" for label, row in zip(labels, rows, strict=True)]


def draw(story: Story, file_format: str) -> bytes:
    """Return the path as an SVG or PNG file.

    Raises:
        ChartError: Matplotlib is not installed, or there is no path.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ChartError('charts need Matplotlib: pip install "foldex[audit]"') from None
    if not story.path:
        raise ChartError("the bucket was opened and liquidated in one entry: there is no path to draw")
    times: Any = [datetime.fromtimestamp(sample.time_ns / 1e9, UTC) for sample in story.path]
    marks, ratio = series_of(story)
    with matplotlib.rc_context({"svg.hashsalt": _HASH_SALT, "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 5), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        for series in marks:
            upper.step(times, series.values, where="post", label=series.name, linewidth=1)
        lower.step(times, ratio.values, where="post", color="tab:red", label=ratio.name, linewidth=1)
        lower.axhline(1.0, color="black", linestyle="--", linewidth=0.8, label="liquidation")
        begun = datetime.fromtimestamp(story.case.time_ns / 1e9, UTC)
        for axes in (upper, lower):
            axes.axvline(begun, color="grey", linestyle=":", linewidth=0.8)
            for text in axes.legend(loc="best", fontsize=8).get_texts():
                text.set_parse_math(False)
            axes.grid(visible=True, linewidth=0.3)
        out = io.BytesIO()
        metadata = (
            {"Date": None, "Creator": None, "Format": None, "Type": None} if file_format == "svg" else {}
        )
        figure.savefig(out, format=file_format, metadata=metadata)
    return out.getvalue()


def inline_svg(story: Story) -> str:
    """Return the path as an SVG element to stand in a page.

    Raises:
        ChartError: see `draw`.
    """
    text = draw(story, "svg").decode()
    element = text[text.index("<svg") :]
    # The page needs no prologue and no description of the file.
    return re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
