"""Candles: the first, highest, lowest and last price of each interval, and what was traded in it.

Only intervals in which something happened are kept. The base interval is folded from the events; when one of
its candles is complete it is merged into those of the larger intervals, so that an event costs the same
however many intervals there are. Of each interval the newest `CANDLES_KEPT` are remembered. What is between
them, and between the last one and now, is filled in when asked: flat at the close before, without trades.

Times are ms since 1970. A candle's prices and amounts are whatever integers it is fed with.
"""

from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from exchange.intake.market.ring import Ring

CANDLES_KEPT: Final = 1_500
MS_PER_S: Final = 1_000
MS_PER_MINUTE: Final = 60 * MS_PER_S
MS_PER_HOUR: Final = 60 * MS_PER_MINUTE
MS_PER_DAY: Final = 24 * MS_PER_HOUR
# 1970 began on a Thursday; weeks begin on Mondays.
FIRST_MONDAY_MS: Final = 4 * MS_PER_DAY
MONTHS_PER_YEAR: Final = 12


@dataclass(frozen=True, slots=True)
class Interval:
    """A length of time by which candles are cut, at whole multiples of it, shifted by `offset_ms`.

    A `length_ms` of 0 is a calendar month in UTC.
    """

    name: str
    length_ms: int
    offset_ms: int = 0

    def start(self, time_ms: int) -> int:
        """Return when the interval that holds a time began."""
        if self.length_ms:
            return time_ms - (time_ms - self.offset_ms) % self.length_ms
        return _month_start(_month_of(time_ms))

    def shift(self, start_ms: int, count: int) -> int:
        """Return when the interval begins that is `count` later (negative: earlier) than this one."""
        if self.length_ms:
            return start_ms + count * self.length_ms
        return _month_start(_month_of(start_ms) + count)


SECOND: Final = Interval("1s", MS_PER_S)
MINUTE: Final = Interval("1m", MS_PER_MINUTE)
LARGER: Final = (
    Interval("3m", 3 * MS_PER_MINUTE),
    Interval("5m", 5 * MS_PER_MINUTE),
    Interval("15m", 15 * MS_PER_MINUTE),
    Interval("30m", 30 * MS_PER_MINUTE),
    Interval("1h", MS_PER_HOUR),
    Interval("2h", 2 * MS_PER_HOUR),
    Interval("4h", 4 * MS_PER_HOUR),
    Interval("6h", 6 * MS_PER_HOUR),
    Interval("8h", 8 * MS_PER_HOUR),
    Interval("12h", 12 * MS_PER_HOUR),
    Interval("1d", MS_PER_DAY),
    Interval("3d", 3 * MS_PER_DAY),
    Interval("1w", 7 * MS_PER_DAY, FIRST_MONDAY_MS),
    Interval("1M", 0),
)
INTERVALS: Final[dict[str, Interval]] = {each.name: each for each in (MINUTE, *LARGER)}
INTERVALS_WITH_SECONDS: Final[dict[str, Interval]] = {SECOND.name: SECOND} | INTERVALS


class Candle:
    """What happened in one interval. `lots` and `quote` were traded, `taker_…` of them bought by takers.

    `count` is the number of trades, or of updates of a price; `first_id` and `last_id` are those of the
    trades, 0 without any.
    """

    __slots__ = (
        "close",
        "count",
        "first_id",
        "high",
        "last_id",
        "lots",
        "low",
        "open",
        "open_ms",
        "quote",
        "taker_lots",
        "taker_quote",
    )

    def __init__(self, open_ms: int, price: int) -> None:
        self.open_ms = open_ms
        self.open = self.high = self.low = self.close = price
        self.lots = self.quote = self.count = 0
        self.taker_lots = self.taker_quote = 0
        self.first_id = self.last_id = 0

    def move(self, price: int) -> None:
        """Take in another price."""
        self.close = price
        self.count += 1
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price

    def trade(self, price: int, lots: int, quote: int, trade_id: int, *, taker_buys: bool) -> None:
        """Take in a trade."""
        self.move(price)
        self.lots += lots
        self.quote += quote
        if taker_buys:
            self.taker_lots += lots
            self.taker_quote += quote
        if not self.first_id:
            self.first_id = trade_id
        self.last_id = trade_id

    def merged(self, open_ms: int, later: "Candle | None" = None) -> "Candle":
        """Return a candle of a larger interval: this one, and one that follows it."""
        merged = Candle(open_ms, self.open)
        merged.absorb(self)
        if later is not None:
            merged.absorb(later)
        return merged

    def absorb(self, later: "Candle") -> None:
        """Take in a candle of a smaller interval that follows what is in this one."""
        self.high = max(self.high, later.high)
        self.low = min(self.low, later.low)
        self.close = later.close
        self.lots += later.lots
        self.quote += later.quote
        self.count += later.count
        self.taker_lots += later.taker_lots
        self.taker_quote += later.taker_quote
        if not self.first_id:
            self.first_id = later.first_id
        self.last_id = later.last_id or self.last_id


class Candles:
    """The candles of one price, for a base interval and those made of it."""

    __slots__ = ("_base", "_larger", "_open", "_rings")

    def __init__(self, base: Interval, larger: tuple[Interval, ...] = ()) -> None:
        self._base = base
        self._larger = larger
        self._rings: dict[str, Ring[Candle]] = {each.name: Ring(CANDLES_KEPT) for each in (base, *larger)}
        self._open: Candle | None = None

    def at(self, time_ms: int, price: int) -> Candle:
        """Return the base candle that `time_ms` falls into, for its caller to feed; `price` opens a new one.

        Times never go back.
        """
        open_ms = time_ms - time_ms % self._base.length_ms
        candle = self._open
        if candle is None or candle.open_ms != open_ms:
            if candle is not None:
                self._close(candle)
            candle = self._open = Candle(open_ms, price)
        return candle

    def _close(self, candle: Candle) -> None:
        self._rings[self._base.name].add(candle)
        for interval in self._larger:
            ring = self._rings[interval.name]
            open_ms = interval.start(candle.open_ms)
            if ring.rows and ring.rows[-1].open_ms == open_ms:
                ring.rows[-1].absorb(candle)
            else:
                ring.add(candle.merged(open_ms))

    def newest(self, interval: Interval) -> Candle | None:
        """Return the last candle of an interval in which anything happened."""
        rows = self._rings[interval.name].rows
        last = rows[-1] if rows else None
        candle = self._open
        if candle is None or interval is self._base:
            return candle
        open_ms = interval.start(candle.open_ms)
        if last is not None and last.open_ms == open_ms:
            return last.merged(open_ms, candle)
        return candle.merged(open_ms)

    def one(self, interval: Interval, open_ms: int) -> Candle | None:
        """Return the candle that begins at `open_ms`, flat if nothing happened; None before the first."""
        found = self.select(interval, open_ms, open_ms, 1, open_ms)
        return found[0] if found else None

    def select(
        self, interval: Interval, start_ms: int | None, end_ms: int | None, limit: int, now_ms: int
    ) -> list[Candle]:
        """Return at most `limit` candles that begin in [`start_ms`, `end_ms`], ascending, without gaps.

        The oldest of them when there is a start, otherwise the newest, up to the one that `now_ms` is in.
        None begins before the first that is known.
        """
        newest = self.newest(interval)
        if newest is None:
            return []
        rows = self._rings[interval.name].rows
        # The newest stands for the last stored one where both begin together.
        stored = len(rows) - 1 if rows and rows[-1].open_ms == newest.open_ms else len(rows)
        begin_ms = rows[0].open_ms if stored else newest.open_ms
        last_ms = interval.start(max(now_ms, newest.open_ms))
        if end_ms is not None:
            last_ms = min(last_ms, interval.start(end_ms))
        if start_ms is None:
            first_ms = max(begin_ms, interval.shift(last_ms, 1 - limit))
        else:
            first_ms = interval.start(start_ms)
            if first_ms < start_ms:
                first_ms = interval.shift(first_ms, 1)
            first_ms = max(begin_ms, first_ms)
            last_ms = min(last_ms, interval.shift(first_ms, limit - 1))
        n = bisect_left(rows, first_ms, 0, stored, key=lambda row: row.open_ms)
        found: list[Candle] = []
        before = rows[n - 1] if n else newest
        while first_ms <= last_ms:
            if n < stored and rows[n].open_ms == first_ms:
                before = rows[n]
                n += 1
                found.append(before)
            elif newest.open_ms == first_ms:
                before = newest
                found.append(before)
            else:
                if first_ms > newest.open_ms:
                    before = newest
                found.append(Candle(first_ms, before.close))
            first_ms = interval.shift(first_ms, 1)
        return found


def _month_of(time_ms: int) -> int:
    """Return the number of months since the year 0 at a time."""
    day = datetime.fromtimestamp(time_ms // MS_PER_S, UTC)
    return day.year * MONTHS_PER_YEAR + day.month - 1


def _month_start(month: int) -> int:
    year, months = divmod(month, MONTHS_PER_YEAR)
    return int(datetime(year, months + 1, 1, tzinfo=UTC).timestamp()) * MS_PER_S
