"""Trades and candles that were, from the read model."""

from collections.abc import Callable
from typing import Final

from events.values import MarketSpec
from exchange.aggregate.market import Market
from exchange.decimals import format_fixed, lots_text, money_text, price_text
from exchange.intake.endpoint import Values
from exchange.intake.errors import START_AFTER_END
from exchange.intake.market.answers import AggregateRow, KlineRow, TradeRow
from exchange.intake.market.candles import Candle, Candles, Interval
from exchange.intake.market.data import wall_clock_ms
from exchange.intake.market.exchange_info import PERPETUAL
from exchange.intake.market.past import Aggregate, MarketPast, Trade
from exchange.intake.service import Intake

TRADES_DEFAULT: Final = 500
CANDLES_DEFAULT: Final = 500
# What candles cost: up to and including so many, this.
_CANDLE_WEIGHTS: Final = ((99, 1), (499, 2), (1000, 5))
_CANDLE_WEIGHT_MAX: Final = 10

PriceText = Callable[[int], str]


async def trades(intake: Intake, account_id: int, values: Values) -> list[TradeRow]:
    """Return trades: the newest, or those from a number on."""
    market = intake.market(values["symbol"])
    limit = values.get("limit", TRADES_DEFAULT)
    found = intake.markets_past.of(market.symbol).trades.select(_trade_id, values.get("fromId"), None, limit)
    return [_trade_row(market, trade) for trade in found]


async def aggregate_trades(intake: Intake, account_id: int, values: Values) -> list[AggregateRow]:
    """Return aggregate trades: the newest, those from a number on, or those of a time."""
    market = intake.market(values["symbol"])
    start_ms, end_ms = span_of(values)
    limit = values.get("limit", TRADES_DEFAULT)
    past = intake.markets_past.of(market.symbol)
    if "fromId" in values:
        found = past.aggregates.select(_aggregate_id, values["fromId"], None, limit)
    else:
        found = past.aggregates.select(_aggregate_ms, start_ms, end_ms, limit)
    return [aggregate_row(market.spec, row) for row in found]


def aggregate_row(spec: MarketSpec, row: Aggregate) -> AggregateRow:
    """Return an aggregate trade as text."""
    size = lots_text(spec, row.lots)
    return AggregateRow(
        aggregate_id=row.first_id,
        price=price_text(spec, row.price_ticks),
        qty=size,
        normal_qty=size,
        first_id=row.first_id,
        last_id=row.last_id,
        time_ms=row.time_ms,
        is_buyer_maker=not row.taker_buys,
    )


def candles_weight(values: Values) -> int:
    """Return what candles cost."""
    limit = values.get("limit", CANDLES_DEFAULT)
    return next((weight for most, weight in _CANDLE_WEIGHTS if limit <= most), _CANDLE_WEIGHT_MAX)


async def klines(intake: Intake, account_id: int, values: Values) -> list[KlineRow]:
    """Return candles of the trades."""
    market = intake.market(values["symbol"])
    return _trade_klines(market, intake.markets_past.of(market.symbol), values)


async def continuous_klines(intake: Intake, account_id: int, values: Values) -> list[KlineRow]:
    """Return candles of the trades of a pair's contract; only perpetual ones exist."""
    market = intake.market(values["pair"])
    if values["contractType"] != PERPETUAL:
        return []
    return _trade_klines(market, intake.markets_past.of(market.symbol), values)


async def index_klines(intake: Intake, account_id: int, values: Values) -> list[KlineRow]:
    """Return candles of the index."""
    market = intake.market(values["pair"])
    return _price_klines(intake.markets_past.of(market.symbol).index, _ticks_text(market), values)


async def mark_klines(intake: Intake, account_id: int, values: Values) -> list[KlineRow]:
    """Return candles of the mark price."""
    market = intake.market(values["symbol"])
    return _price_klines(intake.markets_past.of(market.symbol).mark, _ticks_text(market), values)


async def premium_klines(intake: Intake, account_id: int, values: Values) -> list[KlineRow]:
    """Return candles of the premium over the index, as a fraction."""
    market = intake.market(values["symbol"])
    return _price_klines(intake.markets_past.of(market.symbol).premium, format_fixed, values)


def candles_of(past: MarketPast, interval: Interval) -> Candles:
    """Return the candles of trades that hold an interval."""
    return past.seconds if interval.length_ms and interval.length_ms < 60_000 else past.traded


def span_of(values: Values) -> tuple[int | None, int | None]:
    """Return the time asked for, in ms, None where it is open.

    Raises:
        ApiError: -1023, it ends before it starts.
    """
    start_ms, end_ms = values.get("startTime"), values.get("endTime")
    if start_ms is not None and end_ms is not None and start_ms > end_ms:
        raise START_AFTER_END.error()
    return start_ms, end_ms


def _trade_klines(market: Market, past: MarketPast, values: Values) -> list[KlineRow]:
    spec, interval = market.spec, values["interval"]
    return [
        KlineRow(
            candle.open_ms,
            price_text(spec, candle.open),
            price_text(spec, candle.high),
            price_text(spec, candle.low),
            price_text(spec, candle.close),
            lots_text(spec, candle.lots),
            interval.shift(candle.open_ms, 1) - 1,
            money_text(candle.quote),
            candle.count,
            lots_text(spec, candle.taker_lots),
            money_text(candle.taker_quote),
        )
        for candle in _select(candles_of(past, interval), values)
    ]


def _price_klines(candles: Candles, text: PriceText, values: Values) -> list[KlineRow]:
    interval = values["interval"]
    return [
        KlineRow(
            candle.open_ms,
            text(candle.open),
            text(candle.high),
            text(candle.low),
            text(candle.close),
            "0",
            interval.shift(candle.open_ms, 1) - 1,
            "0",
            candle.count,
            "0",
            "0",
        )
        for candle in _select(candles, values)
    ]


def _select(candles: Candles, values: Values) -> list[Candle]:
    start_ms, end_ms = span_of(values)
    limit = values.get("limit", CANDLES_DEFAULT)
    return candles.select(values["interval"], start_ms, end_ms, limit, wall_clock_ms())


def _ticks_text(market: Market) -> PriceText:
    spec = market.spec
    return lambda price_ticks: price_text(spec, price_ticks)


def _trade_row(market: Market, trade: Trade) -> TradeRow:
    spec = market.spec
    return TradeRow(
        id=trade.trade_id,
        price=price_text(spec, trade.price_ticks),
        qty=lots_text(spec, trade.lots),
        quote_qty=money_text(trade.price_ticks * trade.lots * market.unit),
        time=trade.time_ms,
        is_buyer_maker=not trade.taker_buys,
    )


def _trade_id(trade: Trade) -> int:
    return trade.trade_id


def _aggregate_id(row: Aggregate) -> int:
    return row.first_id


def _aggregate_ms(row: Aggregate) -> int:
    return row.time_ms
