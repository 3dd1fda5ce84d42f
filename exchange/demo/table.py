"""What a demonstration shows while it runs and when it is over.

While it runs: a live table with a progress bar on stderr, or plain lines where stderr is no terminal. At the
end: the outcome on stdout.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_LINE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketView:
    """One market as text: prices in quote, open interest in base."""

    symbol: str
    mark: str
    bid: str
    ask: str
    open_interest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One look at the exchange. `done` is the fraction of the phase that is over, 0…1."""

    phase: str
    done: float
    markets: Sequence[MarketView]
    liquidations_isolated: int
    liquidations_cross: int
    fund: str
    commands: int
    commands_per_s: float
    ack_p50_ms: float
    ack_p99_ms: float


class Display(Protocol):
    """Where a running demonstration is shown. A context manager."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        ...

    def say(self, text: str) -> None:
        """Tell what begins now."""
        ...

    def show(self, view: View) -> None:
        """Show the latest look."""
        ...


class LiveDisplay:
    """A table that is drawn over itself."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Write a line above the table."""
        self._console.print(Text(text, style="dim"))

    def show(self, view: View) -> None:
        """Draw the table anew."""
        self._live.update(live_table(view), refresh=True)


class PlainDisplay:
    """Lines, at most one every few seconds, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Write a line."""
        self._print(text)

    def show(self, view: View) -> None:
        """Write a line, unless the last one is recent."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + PLAIN_LINE_EVERY_S
            self._print(plain_line(view))

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def open_display(console: Console) -> Display:
    """Return the display that suits the console."""
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


def live_table(view: View) -> RenderableType:
    """Return the live table with its progress bar."""
    markets = Table(expand=False)
    markets.add_column("market")
    for title in ("mark", "best bid", "best ask", "open interest"):
        markets.add_column(title, justify="right")
    for row in view.markets:
        markets.add_row(row.symbol, row.mark, row.bid, row.ask, row.open_interest)
    figures = Table.grid(padding=(0, 2))
    figures.add_row(
        "liquidations",
        f"[bold]{view.liquidations_isolated}[/] isolated, [bold]{view.liquidations_cross}[/] cross",
    )
    figures.add_row("insurance fund", f"{view.fund} USDT")
    figures.add_row("commands", f"{view.commands:,} ({view.commands_per_s:,.0f}/s)")
    figures.add_row("ack latency", f"p50 {view.ack_p50_ms:.1f} ms, p99 {view.ack_p99_ms:.1f} ms")
    bar = Table.grid(padding=(0, 2))
    bar.add_row(view.phase, ProgressBar(total=1.0, completed=view.done, width=40), f"{view.done:.0%}")
    return Group(markets, figures, bar)


def plain_line(view: View) -> str:
    """Return the same in one line."""
    markets = "; ".join(
        f"{row.symbol} mark {row.mark} bid {row.bid} ask {row.ask} open interest {row.open_interest}"
        for row in view.markets
    )
    return (
        f"{view.phase} {view.done:.0%} | {markets} | liquidations {view.liquidations_isolated} isolated "
        f"{view.liquidations_cross} cross | fund {view.fund} | {view.commands_per_s:,.0f} commands/s | "
        f"ack p50 {view.ack_p50_ms:.1f} ms p99 {view.ack_p99_ms:.1f} ms"
    )
