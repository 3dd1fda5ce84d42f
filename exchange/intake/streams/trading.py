"""Streams of what was traded: trades, aggregate trades, candles, liquidation orders. From the read model."""

from typing import Final

from exchange.aggregate.market import Market
from exchange.decimals import average_price_text, lots_text, money_text, price_text
from exchange.intake.market.candles import Candle, Interval
from exchange.intake.market.data import wall_clock_ms
from exchange.intake.market.exchange_info import PERPETUAL
from exchange.intake.market.history import aggregate_row, candles_of
from exchange.intake.market.past import TRADES_KEPT, Aggregate, ForceOrder, MarketPast, Trade
from exchange.intake.service import Intake
from exchange.intake.streams.channel import Channel

# A trade just before the end of an interval may be read a little after it.
CLOSING_GRACE_MS: Final = 500
# How many intervals that passed unseen, in a process that stood still, are closed one by one.
CLOSED_MAX: Final = 10


class MarketChannel(Channel):
    """Base of the streams about one market's past."""

    def __init__(self, intake: Intake, name: str, period_s: float, symbol: str) -> None:
        super().__init__(name, period_s)
        self.intake = intake
        self.market: Market = intake.state.markets[symbol]
        self.past: MarketPast = intake.markets_past.of(symbol)


class Trades(MarketChannel):
    """Every trade."""

    def __init__(self, intake: Intake, name: str, period_s: float, symbol: str) -> None:
        super().__init__(intake, name, period_s, symbol)
        rows = self.past.trades.rows
        self._last_id = rows[-1].trade_id if rows else 0

    def flush(self) -> None:
        """Send the trades since the last flush."""
        spec = self.market.spec
        for trade in self.past.trades.select(_trade_id, self._last_id + 1, None, TRADES_KEPT):
            self._last_id = trade.trade_id
            self.send(
                {
                    "e": "trade",
                    "E": wall_clock_ms(),
                    "T": trade.time_ms,
                    "s": self.market.symbol,
                    "t": trade.trade_id,
                    "p": price_text(spec, trade.price_ticks),
                    "q": lots_text(spec, trade.lots),
                    "X": "MARKET",
                    "m": not trade.taker_buys,
                    "st": 1,
                }
            )


class AggregateTrades(MarketChannel):
    """Every aggregate trade."""

    def __init__(self, intake: Intake, name: str, period_s: float, symbol: str) -> None:
        super().__init__(intake, name, period_s, symbol)
        rows = self.past.aggregates.rows
        self._last_id = rows[-1].first_id if rows else 0

    def flush(self) -> None:
        """Send the aggregate trades since the last flush."""
        spec = self.market.spec
        for found in self.past.aggregates.select(_aggregate_id, self._last_id + 1, None, TRADES_KEPT):
            self._last_id = found.first_id
            row = aggregate_row(spec, found)
            self.send(
                {
                    "e": "aggTrade",
                    "E": wall_clock_ms(),
                    "s": self.market.symbol,
                    "a": row.aggregate_id,
                    "p": row.price,
                    "q": row.qty,
                    "nq": row.normal_qty,
                    "f": row.first_id,
                    "l": row.last_id,
                    "T": row.time_ms,
                    "m": row.is_buyer_maker,
                    "st": 1,
                }
            )


class Klines(MarketChannel):
    """The candle of the present interval whenever it changes, and each once more when it is complete."""

    def __init__(
        self,
        intake: Intake,
        name: str,
        period_s: float,
        symbol: str,
        interval: Interval,
        *,
        is_continuous: bool = False,
    ) -> None:
        super().__init__(intake, name, period_s, symbol)
        self._interval = interval
        self._candles = candles_of(self.past, interval)
        self._is_continuous = is_continuous
        self._open_ms = 0
        self._sent_count = 0

    def flush(self) -> None:
        """Send complete candles, and the present one if it changed or somebody is new."""
        interval = self._interval
        now_ms = max(self.intake.now_ms, wall_clock_ms() - CLOSING_GRACE_MS)
        open_ms = interval.start(now_ms)
        is_next = open_ms > self._open_ms
        if self._open_ms:
            self._open_ms = max(self._open_ms, interval.shift(open_ms, -CLOSED_MAX))
            while self._open_ms < open_ms:
                self._send(self._open_ms, is_complete=True)
                self._open_ms = interval.shift(self._open_ms, 1)
        self._open_ms = open_ms
        candle = self._candles.one(interval, open_ms)
        if candle is not None and (is_next or self.is_fresh or candle.count != self._sent_count):
            self._sent_count = candle.count
            self._send(open_ms, is_complete=False)

    def _send(self, open_ms: int, *, is_complete: bool) -> None:
        candle = self._candles.one(self._interval, open_ms)
        if candle is None:
            return
        symbol = self.market.symbol
        head: dict[str, object] = {"e": "kline", "E": wall_clock_ms(), "s": symbol}
        named: dict[str, object] = {"s": symbol}
        if self._is_continuous:
            head = {"e": "continuous_kline", "E": wall_clock_ms(), "ps": symbol, "ct": PERPETUAL}
            named = {}
        self.send(head | {"k": self._candle(candle, named, is_complete=is_complete), "st": 1})

    def _candle(self, candle: Candle, named: dict[str, object], *, is_complete: bool) -> dict[str, object]:
        spec, interval = self.market.spec, self._interval
        return {
            "t": candle.open_ms,
            "T": interval.shift(candle.open_ms, 1) - 1,
            **named,
            "i": interval.name,
            "f": candle.first_id,
            "L": candle.last_id,
            "o": price_text(spec, candle.open),
            "c": price_text(spec, candle.close),
            "h": price_text(spec, candle.high),
            "l": price_text(spec, candle.low),
            "v": lots_text(spec, candle.lots),
            "n": candle.count,
            "x": is_complete,
            "q": money_text(candle.quote),
            "V": lots_text(spec, candle.taker_lots),
            "Q": money_text(candle.taker_quote),
            "B": "0",
        }


class ForceOrders(Channel):
    """Of each market the largest liquidation order of a period; `symbol` None: of all markets."""

    def __init__(self, intake: Intake, name: str, period_s: float, symbol: str | None = None) -> None:
        super().__init__(name, period_s)
        self._intake = intake
        self._symbol = symbol
        self._last_numbers = {
            market.symbol: intake.markets_past.of(market.symbol).force_order_count
            for market in self._markets()
        }

    def flush(self) -> None:
        """Send the largest of the liquidation orders since the last flush."""
        for market in self._markets():
            orders = self._intake.markets_past.of(market.symbol).force_orders
            after = self._last_numbers.get(market.symbol, 0)
            found = orders.select(_number, after + 1, None, TRADES_KEPT)
            if found:
                self._last_numbers[market.symbol] = found[-1].number
                self.send(_force_order(market, max(found, key=lambda order: order.lots)))

    def _markets(self) -> tuple[Market, ...]:
        markets = self._intake.state.markets
        return (markets[self._symbol],) if self._symbol else tuple(markets.values())


def _force_order(market: Market, order: ForceOrder) -> dict[str, object]:
    spec = market.spec
    return {
        "e": "forceOrder",
        "E": wall_clock_ms(),
        "o": {
            "s": market.symbol,
            "S": order.side.name,
            "o": "LIMIT",
            "f": "IOC",
            "q": lots_text(spec, order.lots),
            "p": price_text(spec, order.price_ticks),
            "ap": average_price_text(spec, order.quote, order.executed_lots),
            "X": "FILLED" if order.executed_lots == order.lots else "EXPIRED",
            "l": lots_text(spec, order.last_lots),
            "z": lots_text(spec, order.executed_lots),
            "T": order.time_ms,
        },
        "ps": market.symbol,
        "st": 1,
    }


def _trade_id(trade: Trade) -> int:
    return trade.trade_id


def _aggregate_id(row: Aggregate) -> int:
    return row.first_id


def _number(order: ForceOrder) -> int:
    return order.number
