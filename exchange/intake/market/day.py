"""The last 24 hours of a market's trades, kept as sums: asking costs the same however much was traded.

The window moves by whole minutes: a minute leaves it when its beginning is 24 hours ago.
"""

from collections import deque
from dataclasses import dataclass

from exchange.intake.market.candles import MS_PER_DAY, Candle


@dataclass(frozen=True, slots=True)
class DayFigures:
    """What was traded since `open_ms`: prices in ticks, sizes in lots, `quote` in money units."""

    open_ms: int
    open: int
    high: int
    low: int
    close: int
    lots: int
    quote: int
    count: int
    first_id: int
    last_id: int


class Day:
    """The candles of the minutes of the last 24 hours in which there was a trade, and their sums."""

    __slots__ = ("_count", "_high", "_lots", "_low", "_minutes", "_quote")

    def __init__(self) -> None:
        self._minutes: deque[Candle] = deque()
        self._lots = self._quote = self._count = 0
        self._high = self._low = 0

    def trade(self, minute: Candle, price: int, lots: int, quote: int) -> None:
        """Take in a trade that the candle of its minute holds already."""
        minutes = self._minutes
        if not minutes or minutes[-1] is not minute:
            self._expire(minute.open_ms)
            if not minutes:
                self._high = self._low = price
            minutes.append(minute)
        self._lots += lots
        self._quote += quote
        self._count += 1
        if price > self._high:
            self._high = price
        elif price < self._low:
            self._low = price

    def figures(self, now_ms: int) -> DayFigures | None:
        """Return the sums of the 24 hours before `now_ms`, None if nothing was traded."""
        self._expire(now_ms)
        minutes = self._minutes
        if not minutes:
            return None
        first, last = minutes[0], minutes[-1]
        return DayFigures(
            open_ms=first.open_ms,
            open=first.open,
            high=self._high,
            low=self._low,
            close=last.close,
            lots=self._lots,
            quote=self._quote,
            count=self._count,
            first_id=first.first_id,
            last_id=last.last_id,
        )

    def _expire(self, now_ms: int) -> None:
        minutes = self._minutes
        is_bound_gone = False
        while minutes and minutes[0].open_ms <= now_ms - MS_PER_DAY:
            gone = minutes.popleft()
            self._lots -= gone.lots
            self._quote -= gone.quote
            self._count -= gone.count
            is_bound_gone |= gone.high == self._high or gone.low == self._low
        if is_bound_gone and minutes:
            self._high = max(minute.high for minute in minutes)
            self._low = min(minute.low for minute in minutes)
