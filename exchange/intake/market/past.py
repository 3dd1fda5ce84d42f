"""What has happened in the markets, as far as questions are answered: trades, candles, funding, sources.

The state knows the books, the last prices and the open interest. What it forgets is folded here, from the
same entries, in integers: prices in ticks, sizes in lots, money in units of 1e-8 quote, rates in 1e-8. Text
is made when somebody asks.

Everything is bounded: of each market the newest `TRADES_KEPT` trades, `CANDLES_KEPT` candles an interval,
`FUNDINGS_KEPT` settlements, `FORCE_ORDERS_KEPT` liquidation orders, `OPEN_INTERESTS_KEPT` samples.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from events.events import (
    Event,
    FundingSettled,
    MarketListed,
    MarkPriceChanged,
    OrderAccepted,
    PositionDeleveraged,
    PositionTakenOver,
    TradeExecuted,
)
from events.frame import Groups, header_of
from events.values import BUY, SELL, Side
from exchange.aggregate.state import Exchange
from exchange.aggregate.units import round_half_even
from exchange.intake.market.candles import LARGER, MINUTE, MS_PER_MINUTE, SECOND, Candles
from exchange.intake.market.day import Day
from exchange.intake.market.ring import Ring

TRADES_KEPT: Final = 10_000
FUNDINGS_KEPT: Final = 1_000
FORCE_ORDERS_KEPT: Final = 1_000
OPEN_INTERESTS_KEPT: Final = 8_640
OPEN_INTEREST_PERIOD_MS: Final = 5 * MS_PER_MINUTE
NS_PER_MS: Final = 1_000_000


class Trade(NamedTuple):
    """One trade. `taker_buys`: the maker sold."""

    trade_id: int
    price_ticks: int
    lots: int
    time_ms: int
    taker_buys: bool


class Aggregate:
    """Trades of one taker order at one price, done in one entry: numbers `first_id` to `last_id`.

    It is known by its first trade's number, which no restart changes.
    """

    __slots__ = ("first_id", "last_id", "lots", "price_ticks", "seq", "taker_buys", "taker_id", "time_ms")

    def __init__(self, trade: Trade, taker_id: int, seq: int) -> None:
        self.first_id = self.last_id = trade.trade_id
        self.price_ticks = trade.price_ticks
        self.lots = trade.lots
        self.time_ms = trade.time_ms
        self.taker_buys = trade.taker_buys
        self.taker_id = taker_id
        self.seq = seq


class ForceOrder:
    """What a liquidation closed by one order, which is over with its entry, or outside the book.

    `number` counts those of a market. `price_ticks` is the limit, or the price of what was closed outside.
    `quote` is Σ price × lots of what was closed, in money units.
    """

    __slots__ = (
        "executed_lots",
        "last_lots",
        "lots",
        "number",
        "order_id",
        "price_ticks",
        "quote",
        "side",
        "time_ms",
    )

    def __init__(self, number: int, side: Side, price_ticks: int, lots: int, time_ms: int) -> None:
        self.number = number
        self.order_id = 0
        self.side = side
        self.price_ticks = price_ticks
        self.lots = lots
        self.executed_lots = self.last_lots = self.quote = 0
        self.time_ms = time_ms

    def fill(self, lots: int, quote: int) -> None:
        """Count what was closed."""
        self.executed_lots += lots
        self.last_lots = lots
        self.quote += quote


class Funding(NamedTuple):
    """One settlement of funding."""

    boundary_ms: int
    rate: int
    mark_ticks: int


class OpenInterest(NamedTuple):
    """The open interest at a time."""

    time_ms: int
    lots: int
    mark_ticks: int


class MarketPast:
    """The past of one market. `unit` is the money one lot gains per tick."""

    __slots__ = (
        "aggregates",
        "day",
        "force_order_count",
        "force_orders",
        "fundings",
        "index",
        "last_mark",
        "listed_ms",
        "mark",
        "open_interests",
        "premium",
        "seconds",
        "traded",
        "trades",
        "unit",
    )

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self.listed_ms = 0
        self.trades: Ring[Trade] = Ring(TRADES_KEPT)
        self.aggregates: Ring[Aggregate] = Ring(TRADES_KEPT)
        self.force_order_count = 0
        self.force_orders: Ring[ForceOrder] = Ring(FORCE_ORDERS_KEPT)
        self.fundings: Ring[Funding] = Ring(FUNDINGS_KEPT)
        self.open_interests: Ring[OpenInterest] = Ring(OPEN_INTERESTS_KEPT)
        self.traded = Candles(MINUTE, LARGER)
        self.seconds = Candles(SECOND)
        self.index = Candles(MINUTE, LARGER)
        self.mark = Candles(MINUTE, LARGER)
        self.premium = Candles(MINUTE, LARGER)
        self.day = Day()
        self.last_mark: MarkPriceChanged | None = None

    def trade(self, event: TradeExecuted, time_ms: int, seq: int) -> None:
        """Take in a trade."""
        price_ticks, lots, trade_id = event.price_ticks, event.quantity_lots, event.trade_id
        buys = event.taker_side is BUY
        trade = Trade(trade_id, price_ticks, lots, time_ms, buys)
        self.trades.add(trade)
        self._aggregate(trade, event.taker_order_id, seq)
        quote = price_ticks * lots * self.unit
        minute = self.traded.at(time_ms, price_ticks)
        minute.trade(price_ticks, lots, quote, trade_id, taker_buys=buys)
        second = self.seconds.at(time_ms, price_ticks)
        second.trade(price_ticks, lots, quote, trade_id, taker_buys=buys)
        self.day.trade(minute, price_ticks, lots, quote)
        if event.liquidation_id:
            orders = self.force_orders.rows
            if orders and orders[-1].order_id == event.taker_order_id:
                orders[-1].fill(lots, quote)

    def force(self, event: OrderAccepted, time_ms: int) -> None:
        """Take in a liquidation's order."""
        order = self._new_force_order(event.side, event.price_ticks, event.quantity_lots, time_ms)
        order.order_id = event.order_id

    def close_outside(self, size_lots: int, value: int, time_ms: int) -> None:
        """Take in what a liquidation closed outside the book: a signed size, for this signed money."""
        lots, quote = abs(size_lots), abs(value)
        price_ticks = round_half_even(quote, lots * self.unit)
        self._new_force_order(SELL if size_lots > 0 else BUY, price_ticks, lots, time_ms).fill(lots, quote)

    def _new_force_order(self, side: Side, price_ticks: int, lots: int, time_ms: int) -> ForceOrder:
        self.force_order_count += 1
        order = ForceOrder(self.force_order_count, side, price_ticks, lots, time_ms)
        self.force_orders.add(order)
        return order

    def _aggregate(self, trade: Trade, taker_id: int, seq: int) -> None:
        rows = self.aggregates.rows
        if rows:
            last = rows[-1]
            if last.seq == seq and last.taker_id == taker_id and last.price_ticks == trade.price_ticks:
                last.last_id = trade.trade_id
                last.lots += trade.lots
                return
        self.aggregates.add(Aggregate(trade, taker_id, seq))

    def price(self, event: MarkPriceChanged, time_ms: int) -> None:
        """Take in an update of index and mark."""
        self.last_mark = event
        for candles, price in (
            (self.index, event.index_ticks),
            (self.mark, event.mark_ticks),
            (self.premium, event.premium),
        ):
            candles.at(time_ms, price).move(price)

    def sample(self, lots: int, mark_ticks: int, time_ms: int) -> None:
        """Remember the open interest, once a period."""
        rows = self.open_interests.rows
        period_ms = time_ms - time_ms % OPEN_INTEREST_PERIOD_MS
        if not rows or rows[-1].time_ms < period_ms:
            self.open_interests.add(OpenInterest(period_ms, lots, mark_ticks))


class Past:
    """The past of all markets, a projection. `state` gives the state, which may be ahead of what is fed.

    Open interest is not in the events; it is sampled from the state, so from the entries behind the snapshot
    that this process started from.
    """

    def __init__(self, state: Callable[[], Exchange]) -> None:
        self._state = state
        self._markets: dict[str, MarketPast] = {}
        self._now_ms = 0
        self._seq = 0
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            OrderAccepted: self._accepted,
            TradeExecuted: self._traded,
            MarkPriceChanged: self._mark_price,
            FundingSettled: self._funding,
            MarketListed: self._listed,
            PositionTakenOver: self._taken_over,
            PositionDeleveraged: self._deleveraged,
        }

    def feed(self, groups: Groups) -> None:
        """Take in the events of one entry."""
        header = header_of(groups)
        self._now_ms = header.now_ns // NS_PER_MS
        self._seq = header.seq
        handlers = self._handlers
        for group in groups:
            for event in group:
                handler = handlers.get(type(event))
                if handler is not None:
                    handler(event)

    def of(self, symbol: str) -> MarketPast:
        """Return the past of a listed market."""
        past = self._markets.get(symbol)
        if past is None:
            past = self._markets[symbol] = MarketPast(self._state().markets[symbol].unit)
        return past

    def keep_samples(self, other: "Past") -> None:
        """Take over what another has sampled, which this one could not while it was fed the past."""
        for symbol, past in other._markets.items():
            self.of(symbol).open_interests = past.open_interests

    def _accepted(self, event: OrderAccepted) -> None:
        if event.liquidation_id:
            self.of(event.market).force(event, self._now_ms)

    def _taken_over(self, event: PositionTakenOver) -> None:
        value = event.entry_cost + event.realised
        self.of(event.market).close_outside(event.size_lots, value, self._now_ms)

    def _deleveraged(self, event: PositionDeleveraged) -> None:
        self.of(event.market).close_outside(event.size_lots, event.value, self._now_ms)

    def _traded(self, event: TradeExecuted) -> None:
        self.of(event.market).trade(event, self._now_ms, self._seq)

    def _mark_price(self, event: MarkPriceChanged) -> None:
        past = self.of(event.market)
        past.price(event, self._now_ms)
        state = self._state()
        if state.seq == self._seq:
            past.sample(state.markets[event.market].open_interest_lots, event.mark_ticks, self._now_ms)

    def _funding(self, event: FundingSettled) -> None:
        self.of(event.market).fundings.add(
            Funding(event.boundary_ns // NS_PER_MS, event.rate, event.mark_ticks)
        )

    def _listed(self, event: MarketListed) -> None:
        self.of(event.spec.symbol).listed_ms = self._now_ms
