"""A liquidation's report as one file for a browser: nothing is loaded from anywhere, and no script runs."""

from collections.abc import Iterable
from html import escape

from exchange.audit.chart import ChartError, inline_svg, terminal_lines
from exchange.audit.narrative import Section, sections_of
from exchange.audit.story import Story

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { font-weight: 600; } h2 { margin-top: 2rem; border-bottom: 1px solid #ccc; font-size: 1.15rem; }
pre { background: #f6f6f4; padding: .8rem; overflow-x: auto; font: 13px/1.5 ui-monospace, monospace; }
table { border-collapse: collapse; font-size: 13px; }
th, td { border: 1px solid #ddd; padding: .25rem .5rem; text-align: left; }
svg { max-width: 100%; height: auto; } .equal { color: #0a6b2d; } .unequal { color: #b00020; }
"""


def page_of(story: Story) -> str:
    """Return the report as an HTML page."""
    first, *rest = sections_of(story)
    is_equal = story.recomputed.is_equal
    verdict = "equal" if is_equal else "NOT equal"
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{escape(first.title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(first.title)}</h1>",
        f'<p class="{"equal" if is_equal else "unequal"}">Computed again from the log alone: {verdict}.</p>',
        _block(first.lines),
        "<h2>Mark and margin ratio</h2>",
        _chart(story),
        *(_section(section) for section in rest),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _chart(story: Story) -> str:
    try:
        return inline_svg(story)
    except ChartError as error:
        return _block([*terminal_lines(story), str(error)])


def _section(section: Section) -> str:
    body = _table(section) if section.head else _block(section.lines)
    return f"<h2>{escape(section.title)}</h2>\n{body}"


def _block(lines: Iterable[str]) -> str:
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def _table(section: Section) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in section.head)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in section.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table>"
