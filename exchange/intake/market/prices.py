"""Prices as they are, the last 24 hours, funding, open interest, the sources of an index."""

from typing import Final

from events.values import WorkingPrice
from exchange.aggregate.funding import funding_rate
from exchange.aggregate.market import Market
from exchange.aggregate.units import RATE_ONE, trunc_div
from exchange.decimals import average_price_text, format_fixed, lots_text, money_text, price_text
from exchange.intake.endpoint import Values
from exchange.intake.market.answers import (
    Constituent,
    Constituents,
    FundingInfo,
    FundingRow,
    OpenInterestAnswer,
    PremiumIndex,
    PriceTicker,
    Ticker,
)
from exchange.intake.market.candles import MS_PER_DAY
from exchange.intake.market.data import one_or_all, wall_clock_ms
from exchange.intake.market.history import span_of
from exchange.intake.market.past import Funding, MarketPast
from exchange.intake.service import Intake
from exchange.intake.trade.orders import NS_PER_MS

FUNDINGS_DEFAULT: Final = 100
S_PER_HOUR: Final = 3_600
# Percent with three digits.
PERCENT_STEPS: Final = 100_000
PERCENT_DIGITS: Final = 3


async def premium_index(intake: Intake, account_id: int, values: Values) -> PremiumIndex | list[PremiumIndex]:
    """Return mark and index prices, of one market or of all."""
    return one_or_all(intake, values, premium_of)


def premium_of(intake: Intake, market: Market) -> PremiumIndex:
    """Return a market's prices and its funding; without funding the next time is 0."""
    index = price_text(market.spec, market.index_ticks)
    return PremiumIndex(
        symbol=market.symbol,
        mark_price=price_text(market.spec, market.mark_ticks),
        index_price=index,
        estimated_settle_price=index,
        last_funding_rate=format_fixed(expected_rate(market)),
        interest_rate=format_fixed(market.spec.interest_rate),
        next_funding_time=market.next_funding_ns // NS_PER_MS,
        time=intake.now_ms,
    )


def expected_rate(market: Market) -> int:
    """Return the rate (1e-8) that would be settled if the interval ended now; the last one if none can be.

    That is what clients read as the rate of the next settlement.
    """
    if not market.premium_count:
        return market.funding_rate
    return funding_rate(market.spec, trunc_div(market.premium_sum, market.premium_count))


async def funding_rates(intake: Intake, account_id: int, values: Values) -> list[FundingRow]:
    """Return settlements of one market or of all, ascending by time."""
    start_ms, end_ms = span_of(values)
    limit = values.get("limit", FUNDINGS_DEFAULT)
    symbol = values.get("symbol")
    markets = intake.state.markets.values() if symbol is None else [intake.market(symbol)]
    found = [
        (row, market)
        for market in markets
        for row in intake.markets_past.of(market.symbol).fundings.select(
            _boundary_ms, start_ms, end_ms, limit
        )
    ]
    found.sort(key=lambda pair: (pair[0].boundary_ms, pair[1].symbol))
    found = found[-limit:] if start_ms is None else found[:limit]
    return [
        FundingRow(
            symbol=market.symbol,
            funding_rate=format_fixed(row.rate),
            funding_time=row.boundary_ms,
            mark_price=price_text(market.spec, row.mark_ticks),
        )
        for row, market in found
    ]


async def funding_info(intake: Intake, account_id: int, values: Values) -> list[FundingInfo]:
    """Return how the markets that settle funding do it; an interval below an hour is given as one."""
    return [
        FundingInfo(
            symbol=market.symbol,
            adjusted_funding_rate_cap=format_fixed(market.spec.funding_cap),
            adjusted_funding_rate_floor=format_fixed(-market.spec.funding_cap),
            funding_interval_hours=max(1, market.spec.funding_interval_s // S_PER_HOUR),
            disclaimer=False,
        )
        for market in intake.state.markets.values()
        if market.spec.funding_interval_s
    ]


async def day_ticker(intake: Intake, account_id: int, values: Values) -> Ticker | list[Ticker]:
    """Return the last 24 hours of one market or of all."""
    return one_or_all(intake, values, ticker_of)


def ticker_of(intake: Intake, market: Market) -> Ticker:
    """Return a market's last 24 hours; without trades all prices are the last one."""
    spec, past = market.spec, intake.markets_past.of(market.symbol)
    now_ms = max(intake.now_ms, wall_clock_ms())
    day = past.day.figures(now_ms)
    last_ticks = last_price(market)
    open_ticks = day.open if day else last_ticks
    change_ticks = last_ticks - open_ticks
    percent = 0 if open_ticks == 0 else trunc_div(change_ticks * PERCENT_STEPS, open_ticks)
    newest = past.trades.rows[-1] if past.trades.rows else None
    return Ticker(
        symbol=market.symbol,
        price_change=price_text(spec, change_ticks),
        price_change_percent=format_fixed(percent, PERCENT_DIGITS),
        weighted_avg_price=(
            average_price_text(spec, day.quote, day.lots) if day else price_text(spec, last_ticks)
        ),
        last_price=price_text(spec, last_ticks),
        last_qty=lots_text(spec, newest.lots if newest else 0),
        open_price=price_text(spec, open_ticks),
        high_price=price_text(spec, day.high if day else last_ticks),
        low_price=price_text(spec, day.low if day else last_ticks),
        volume=lots_text(spec, day.lots if day else 0),
        quote_volume=money_text(day.quote if day else 0),
        open_time=day.open_ms if day else now_ms - MS_PER_DAY,
        close_time=now_ms,
        first_id=day.first_id if day else 0,
        last_id=day.last_id if day else 0,
        count=day.count if day else 0,
    )


def last_price(market: Market) -> int:
    """Return the price of the last trade in ticks; until there was one, the mark stands in for it."""
    return market.working_ticks(WorkingPrice.LAST)


async def price_ticker(intake: Intake, account_id: int, values: Values) -> PriceTicker | list[PriceTicker]:
    """Return the last price of one market or of all."""
    return one_or_all(intake, values, price_of)


def price_of(intake: Intake, market: Market) -> PriceTicker:
    """Return a market's last price, and when it was."""
    rows = intake.markets_past.of(market.symbol).trades.rows
    return PriceTicker(
        symbol=market.symbol,
        price=price_text(market.spec, last_price(market)),
        time=rows[-1].time_ms if rows else intake.now_ms,
    )


async def open_interest(intake: Intake, account_id: int, values: Values) -> OpenInterestAnswer:
    """Return what all longs of a market hold together."""
    market = intake.market(values["symbol"])
    return OpenInterestAnswer(
        open_interest=lots_text(market.spec, market.open_interest_lots),
        symbol=market.symbol,
        time=intake.now_ms,
    )


async def constituents(intake: Intake, account_id: int, values: Values) -> Constituents:
    """Return the sources of a market's index; it is their median, so they weigh the same."""
    market = intake.market(values["symbol"])
    past: MarketPast = intake.markets_past.of(market.symbol)
    sources = past.last_mark.sources if past.last_mark is not None else ()
    weight = format_fixed(RATE_ONE // len(sources)) if sources else ""
    return Constituents(
        symbol=market.symbol,
        time=intake.now_ms,
        constituents=[
            Constituent(
                exchange=source.source,
                symbol=market.symbol,
                price=price_text(market.spec, source.price_ticks),
                weight=weight,
            )
            for source in sources
        ],
    )


def _boundary_ms(row: Funding) -> int:
    return row.boundary_ms
