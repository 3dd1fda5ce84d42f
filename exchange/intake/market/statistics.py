"""The statistics under /futures/data: open interest, takers' volumes and the basis, by period."""

from typing import Final

from exchange.aggregate.market import Market
from exchange.aggregate.units import RATE_ONE, trunc_div
from exchange.decimals import format_fixed, lots_text, money_text, price_text
from exchange.intake.endpoint import Values
from exchange.intake.market.answers import BasisRow, OpenInterestRow, TakerRatioRow
from exchange.intake.market.candles import INTERVALS, Interval
from exchange.intake.market.data import wall_clock_ms
from exchange.intake.market.exchange_info import PERPETUAL
from exchange.intake.market.history import span_of
from exchange.intake.market.past import OpenInterest
from exchange.intake.service import Intake

ROWS_DEFAULT: Final = 30
RATIO_DIGITS: Final = 4
_RATIO_ONE: Final = 10**RATIO_DIGITS
PERIODS: Final[dict[str, Interval]] = {
    name: INTERVALS[name] for name in ("5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d")
}


async def open_interest_history(intake: Intake, account_id: int, values: Values) -> list[OpenInterestRow]:
    """Return the open interest at the first sample of each period."""
    market = intake.market(values["symbol"])
    start_ms, end_ms = span_of(values)
    limit, period = values.get("limit", ROWS_DEFAULT), values["period"]
    samples = intake.markets_past.of(market.symbol).open_interests
    first_of: dict[int, OpenInterest] = {}
    for sample in samples.rows:
        first_of.setdefault(period.start(sample.time_ms), sample)
    found = [
        (time_ms, sample)
        for time_ms, sample in first_of.items()
        if (start_ms is None or time_ms >= start_ms) and (end_ms is None or time_ms <= end_ms)
    ]
    found = found[-limit:] if start_ms is None else found[:limit]
    return [
        OpenInterestRow(
            symbol=market.symbol,
            open_interest=lots_text(market.spec, sample.lots),
            open_interest_value=money_text(sample.lots * sample.mark_ticks * market.unit),
            timestamp=time_ms,
        )
        for time_ms, sample in found
    ]


async def taker_ratio(intake: Intake, account_id: int, values: Values) -> list[TakerRatioRow]:
    """Return what takers bought and sold in each period."""
    market = intake.market(values["symbol"])
    start_ms, end_ms = span_of(values)
    candles = intake.markets_past.of(market.symbol).traded.select(
        values["period"], start_ms, end_ms, values.get("limit", ROWS_DEFAULT), wall_clock_ms()
    )
    return [
        TakerRatioRow(
            buy_sell_ratio=_ratio(candle.taker_lots, candle.lots - candle.taker_lots),
            buy_vol=lots_text(market.spec, candle.taker_lots),
            sell_vol=lots_text(market.spec, candle.lots - candle.taker_lots),
            timestamp=candle.open_ms,
        )
        for candle in candles
    ]


async def basis(intake: Intake, account_id: int, values: Values) -> list[BasisRow]:
    """Return how far the last price was from the index at the end of each period."""
    market = intake.market(values["pair"])
    start_ms, end_ms = span_of(values)
    if values["contractType"] != PERPETUAL:
        return []
    past, limit = intake.markets_past.of(market.symbol), values.get("limit", ROWS_DEFAULT)
    period, now_ms = values["period"], wall_clock_ms()
    index = {
        candle.open_ms: candle.close for candle in past.index.select(period, start_ms, end_ms, limit, now_ms)
    }
    return [
        _basis_row(market, candle.open_ms, candle.close, index[candle.open_ms])
        for candle in past.traded.select(period, start_ms, end_ms, limit, now_ms)
        if index.get(candle.open_ms)
    ]


def _basis_row(market: Market, time_ms: int, price_ticks: int, index_ticks: int) -> BasisRow:
    away = price_ticks - index_ticks
    return BasisRow(
        pair=market.symbol,
        contract_type=PERPETUAL,
        futures_price=price_text(market.spec, price_ticks),
        index_price=price_text(market.spec, index_ticks),
        basis=price_text(market.spec, away),
        basis_rate=format_fixed(trunc_div(away * RATE_ONE, index_ticks)),
        annualized_basis_rate="",
        timestamp=time_ms,
    )


def _ratio(bought: int, sold: int) -> str:
    return format_fixed(bought * _RATIO_ONE // sold if sold else 0, RATIO_DIGITS)
