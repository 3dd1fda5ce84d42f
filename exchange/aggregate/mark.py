"""The mark price, derived at each index update.

The mark decides who is liquidated, so it must not be one trade away from anything: it is the median of
three views of the price, clamped to a band around the index that is narrower than the lowest maintenance
rate. However far this market is moved alone, the mark goes from one edge of the band to the other at most.

    mark = clamp(median(index × (1 + rate × time left / interval), index + average(mid − index), last trade),
                 index ± band)

The first view is what the price should be if the last funding rate holds: who buys now pays what is left of
it. A missing input is replaced by the index. Prices are rounded down to ticks.

Source: Binance, "Mark Price and Price Index".
"""

from events.commands import SetIndexPrice
from events.events import MarkPriceChanged
from exchange.aggregate.funding import NS_PER_S, next_boundary, premium_of, settle_funding, take_impact
from exchange.aggregate.index import index_of, median, wait_after_update
from exchange.aggregate.market import PRICE_SCALE, Market
from exchange.aggregate.turn import Turn
from exchange.aggregate.units import RATE_ONE, floor_div

# The average forgets a basis with this time constant, counted in index updates.
BASIS_UPDATES = 30


def set_index_price(turn: Turn, command: SetIndexPrice) -> None:
    """Take new source prices for a market, derive index, mark and premium, and settle funding when due.

    Sources that do not make an index are refused.
    """
    market = turn.market(command.market)
    now_ns = turn.state.now_ns
    index = index_of(market, command.sources, now_ns)
    index_ticks = index.ticks
    next_funding_ns = market.next_funding_ns or next_boundary(market.spec, now_ns)
    bid_ticks, ask_ticks = market.book.best_bid_ticks, market.book.best_ask_ticks
    basis_average = _next_basis_average(market.basis_average, index_ticks, bid_ticks, ask_ticks)
    funding_ticks = _funding_ticks(market, index_ticks, max(0, next_funding_ns - now_ns))
    basis_ticks = max(1, index_ticks + floor_div(basis_average, PRICE_SCALE))
    last_ticks = market.last_ticks or index_ticks
    width = floor_div(index_ticks * market.spec.mark_band, RATE_ONE)
    middle = median([funding_ticks, basis_ticks, last_ticks])
    impact_bid, impact_ask = take_impact(market)
    turn.emit(
        MarkPriceChanged(
            market=market.symbol,
            index_ticks=index_ticks,
            funding_ticks=funding_ticks,
            basis_ticks=basis_ticks,
            last_ticks=last_ticks,
            mark_ticks=min(max(middle, index_ticks - width), index_ticks + width),
            bid_ticks=bid_ticks,
            ask_ticks=ask_ticks,
            basis_average=basis_average,
            funding_rate=market.funding_rate,
            next_funding_ns=next_funding_ns,
            impact_bid=impact_bid,
            impact_ask=impact_ask,
            premium=premium_of(index_ticks, impact_bid, impact_ask),
            index_wait=wait_after_update(market, now_ns),
            sources=tuple(index.used),
            left_out=tuple(index.left_out),
        )
    )
    settle_funding(turn, market)


def _funding_ticks(market: Market, index_ticks: int, left_ns: int) -> int:
    """Return index × (1 + last funding rate × time left / interval), rounded down, at least one tick."""
    if market.funding_rate == 0:
        return index_ticks
    interval_ns = market.spec.funding_interval_s * NS_PER_S
    return max(
        1, index_ticks + floor_div(index_ticks * market.funding_rate * left_ns, RATE_ONE * interval_ns)
    )


def _next_basis_average(average: int, index_ticks: int, bid_ticks: int, ask_ticks: int) -> int:
    """Return the moving average of (mid − index) with this update's; without a mid it decays to zero."""
    basis = (bid_ticks + ask_ticks - 2 * index_ticks) * (PRICE_SCALE // 2) if bid_ticks and ask_ticks else 0
    return average + floor_div(basis - average, BASIS_UPDATES)
