"""Candles, the last 24 hours and bounded histories: what is kept, what is filled in, what is found."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from exchange.intake.market.candles import (
    CANDLES_KEPT,
    INTERVALS,
    LARGER,
    MINUTE,
    MS_PER_DAY,
    MS_PER_MINUTE,
    Candles,
)
from exchange.intake.market.day import Day
from exchange.intake.market.ring import Ring

NOON_MS = int(datetime(2024, 2, 29, 12, tzinfo=UTC).timestamp()) * 1000
DAY_MS = 24 * 60 * MS_PER_MINUTE


def ms(text: str) -> int:
    """Return a time in UTC as ms since 1970."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def traded(*trades: tuple[int, int, int]) -> Candles:
    """Return candles of trades: time, price, lots; takers buy, and a lot at a price of 1 is worth 1."""
    candles = Candles(MINUTE, LARGER)
    for n, (time_ms, price, lots) in enumerate(trades, 1):
        candles.at(time_ms, price).trade(price, lots, price * lots, n, taker_buys=True)
    return candles


def test_intervals_begin_where_people_expect() -> None:
    """Weeks on Mondays, months on their first day, all in UTC, whatever the length of a month."""
    assert ms("2024-02-26") == INTERVALS["1w"].start(NOON_MS)
    assert ms("2024-02-01") == INTERVALS["1M"].start(NOON_MS)
    assert ms("2024-03-01") == INTERVALS["1M"].shift(ms("2024-02-01"), 1)
    assert ms("2023-12-01") == INTERVALS["1M"].shift(ms("2024-02-01"), -2)
    assert ms("2024-02-29T12:00") == INTERVALS["4h"].start(NOON_MS + 1)
    assert ms("2024-02-29T11:55") == INTERVALS["5m"].shift(NOON_MS, -1)


def test_a_candle_holds_what_was_traded_in_it() -> None:
    """Open, high, low, close, amounts and the numbers of the trades, in every interval."""
    candles = traded((NOON_MS, 10, 1), (NOON_MS + 1, 14, 2), (NOON_MS + 2, 7, 3), (NOON_MS + 61_000, 9, 4))
    (five,) = candles.select(INTERVALS["5m"], None, None, 500, NOON_MS + 62_000)
    assert (10, 14, 7, 9) == (five.open, five.high, five.low, five.close)
    assert (10, 10 + 28 + 21 + 36, 4, 1, 4) == (
        five.lots,
        five.quote,
        five.count,
        five.first_id,
        five.last_id,
    )
    first, second = candles.select(MINUTE, None, None, 500, NOON_MS + 62_000)
    assert (10, 14, 7, 7, 6) == (first.open, first.high, first.low, first.close, first.lots)
    assert (9, 9, 9, 9, 4) == (second.open, second.high, second.low, second.close, second.lots)


def test_minutes_without_trades_are_flat() -> None:
    """At the close before, with no volume, up to the minute that it is now."""
    candles = traded((NOON_MS, 10, 1), (NOON_MS + 3 * MS_PER_MINUTE, 12, 1))
    found = candles.select(MINUTE, None, None, 500, NOON_MS + 5 * MS_PER_MINUTE)
    assert [10, 10, 10, 12, 12, 12] == [candle.close for candle in found]
    assert [1, 0, 0, 1, 0, 0] == [candle.lots for candle in found]
    assert [NOON_MS + n * MS_PER_MINUTE for n in range(6)] == [candle.open_ms for candle in found]
    assert [] == Candles(MINUTE).select(MINUTE, None, None, 500, NOON_MS)


def test_a_span_selects_by_opening_time() -> None:
    """From a start the oldest, to an end the newest, both ends included; nothing before the first trade."""
    candles = traded(*((NOON_MS + n * MS_PER_MINUTE, 10 + n, 1) for n in range(10)))
    now_ms = NOON_MS + 10 * MS_PER_MINUTE

    def closes(start: int | None, end: int | None, limit: int = 500) -> list[int]:
        found = candles.select(
            MINUTE,
            None if start is None else NOON_MS + start,
            None if end is None else NOON_MS + end,
            limit,
            now_ms,
        )
        return [candle.close for candle in found]

    assert [12, 13, 14] == closes(2 * MS_PER_MINUTE, 4 * MS_PER_MINUTE)
    assert [13, 14] == closes(2 * MS_PER_MINUTE + 1, 4 * MS_PER_MINUTE + 59_999)
    assert [12, 13] == closes(2 * MS_PER_MINUTE, None, 2)
    assert [13, 14] == closes(None, 4 * MS_PER_MINUTE, 2)
    assert [19, 19] == closes(None, None, 2)
    assert [10, 11] == closes(-(10**11), None, 2)
    assert [] == closes(None, -1)
    assert [] == closes(11 * MS_PER_MINUTE, None)


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 50), st.integers(1, 9)), min_size=1, max_size=60),
    st.sampled_from(sorted(INTERVALS)),
)
def test_larger_candles_are_made_of_their_trades(moves: list[tuple[int, int, int]], name: str) -> None:
    """Whatever comes when, each candle of each interval says what its own trades say."""
    time_ms = NOON_MS
    trades: list[tuple[int, int, int]] = []
    for minutes, price, lots in moves:
        time_ms += minutes * MS_PER_MINUTE
        trades.append((time_ms, price, lots))
    interval = INTERVALS[name]
    limit = 30_000 if interval.length_ms else 100
    found = traded(*trades).select(interval, None, None, limit, time_ms)
    for candle in found:
        end_ms = interval.shift(candle.open_ms, 1)
        inside = [trade for trade in trades if candle.open_ms <= trade[0] < end_ms]
        assert len(inside) == candle.count
        assert sum(lots for _, _, lots in inside) == candle.lots
        assert sum(price * lots for _, price, lots in inside) == candle.quote == candle.taker_quote
        if inside:
            prices = [price for _, price, _ in inside]
            assert (prices[0], max(prices), min(prices), prices[-1]) == (
                candle.open,
                candle.high,
                candle.low,
                candle.close,
            )
    assert len(trades) == sum(candle.count for candle in found)


def test_old_candles_are_forgotten() -> None:
    """The newest of each interval stay, and never twice as many."""
    minutes = 4 * CANDLES_KEPT
    candles = traded(*((NOON_MS + n * MS_PER_MINUTE, 10, 1) for n in range(minutes)))
    found = candles.select(MINUTE, 0, None, 10**6, NOON_MS + minutes * MS_PER_MINUTE)
    assert CANDLES_KEPT <= len(found) <= 2 * CANDLES_KEPT + 1
    hours = candles.select(INTERVALS["1h"], 0, None, 10**6, NOON_MS + (minutes - 1) * MS_PER_MINUTE)
    assert minutes == sum(candle.count for candle in hours)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 50), st.integers(1, 9)), max_size=60))
def test_the_last_24_hours_are_the_sum_of_their_minutes(moves: list[tuple[int, int, int]]) -> None:
    """Prices, amounts and count are those of the trades of the minutes that began within a day."""
    candles, day, time_ms, trades = Candles(MINUTE), Day(), NOON_MS, []
    for n, (minutes, price, lots) in enumerate(moves, 1):
        time_ms += minutes * MS_PER_MINUTE
        minute = candles.at(time_ms, price)
        minute.trade(price, lots, price * lots, n, taker_buys=False)
        day.trade(minute, price, lots, price * lots)
        trades.append((time_ms, price, lots))
    for now_ms in (time_ms, time_ms + DAY_MS // 2, time_ms + 2 * DAY_MS):
        inside = [trade for trade in trades if trade[0] > now_ms - MS_PER_DAY]
        figures = day.figures(now_ms)
        assert (figures is None) == (not inside)
        if figures is not None:
            prices = [price for _, price, _ in inside]
            assert (prices[0], max(prices), min(prices), prices[-1]) == (
                figures.open,
                figures.high,
                figures.low,
                figures.close,
            )
            assert len(inside) == figures.count
            assert sum(lots for _, _, lots in inside) == figures.lots
            assert sum(price * lots for _, price, lots in inside) == figures.quote


def test_a_ring_keeps_the_newest_and_finds_by_key() -> None:
    """From a first key the oldest rows, otherwise the newest, never more than asked for."""
    ring: Ring[int] = Ring(10)
    for n in range(1_000):
        ring.add(n)
        assert len(ring.rows) < 20
    newest = ring.rows[-10:]
    assert list(range(990, 1_000)) == newest

    def same(row: int) -> int:
        return row

    assert [997, 998, 999] == ring.select(same, None, None, 3)
    assert [995, 996] == ring.select(same, 995, None, 2)
    assert [995, 996] == ring.select(same, None, 996, 2)
    assert [] == ring.select(same, 1_000, None, 5)
