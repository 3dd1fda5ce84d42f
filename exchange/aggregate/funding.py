"""Index and mark price.

The mark decides who is liquidated, so it must not be one trade away from anything: it is the median of
three views of the price, clamped to a band around the index that is narrower than the lowest maintenance
rate. Nobody can be brought from initial margin to liquidation by moving this market alone.

    mark = clamp(median(index, index + average(mid − index), last trade), index ± band)

Source: Binance, "Mark Price and Price Index". The first input takes the funding rate as zero.
"""

from events.commands import SetIndexPrice
from events.events import MarkPriceChanged
from events.values import IndexSource, RejectCode
from exchange.aggregate.market import Market
from exchange.aggregate.turn import Refused, Turn
from exchange.aggregate.units import RATE_ONE, floor_div

SOURCES_MAX = 32
BASIS_SCALE = 65536
# The average forgets a basis with this time constant, counted in index updates.
BASIS_UPDATES = 30


def set_index_price(turn: Turn, command: SetIndexPrice) -> None:
    """Take new source prices for a market and derive index and mark, or refuse them."""
    market = turn.market(command.market)
    _check_sources(market, command.sources)
    index_ticks = median([source.price_ticks for source in command.sources])
    basis_average = _next_basis_average(market, index_ticks)
    basis_ticks = max(1, index_ticks + floor_div(basis_average, BASIS_SCALE))
    last_ticks = market.last_ticks or index_ticks
    width = floor_div(index_ticks * market.spec.mark_band, RATE_ONE)
    middle = median([index_ticks, basis_ticks, last_ticks])
    turn.emit(
        MarkPriceChanged(
            market=market.symbol,
            index_ticks=index_ticks,
            funding_ticks=index_ticks,
            basis_ticks=basis_ticks,
            last_ticks=last_ticks,
            mark_ticks=min(max(middle, index_ticks - width), index_ticks + width),
            basis_average=basis_average,
            sources=command.sources,
        )
    )


def median(values: list[int]) -> int:
    """Return the middle value; of an even count, the mean of the middle two, rounded down."""
    assert values, "no values"
    ordered = sorted(values)
    half = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[half]
    return floor_div(ordered[half - 1] + ordered[half], 2)


def _check_sources(market: Market, sources: tuple[IndexSource, ...]) -> None:
    spec = market.spec
    if not 1 <= len(sources) <= SOURCES_MAX:
        raise Refused(RejectCode.BAD_PRICE, f"sources: {len(sources)} given, 1…{SOURCES_MAX} allowed")
    for source in sources:
        if not spec.min_price_ticks <= source.price_ticks <= spec.max_price_ticks:
            bounds = f"{spec.min_price_ticks}…{spec.max_price_ticks}"
            raise Refused(
                RejectCode.BAD_PRICE,
                f"sources: {source.source!r} says {source.price_ticks} ticks, outside {bounds}",
            )


def _next_basis_average(market: Market, index_ticks: int) -> int:
    """Return the moving average of (mid − index) with this update's; without a mid it decays to zero."""
    bid, ask = market.book.best_bid_ticks, market.book.best_ask_ticks
    basis = (bid + ask - 2 * index_ticks) * (BASIS_SCALE // 2) if bid and ask else 0
    return market.basis_average + floor_div(basis - market.basis_average, BASIS_UPDATES)
