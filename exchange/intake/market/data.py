"""The time, and the books: what is asked most."""

import time
from collections.abc import Callable
from typing import TypeVar

from events.values import Side
from exchange.aggregate.market import Market
from exchange.decimals import lots_text, price_text
from exchange.intake.endpoint import Values
from exchange.intake.errors import BAD_DEPTH_LIMIT
from exchange.intake.market.answers import BookTicker, Depth, Level, Nothing, ServerTime
from exchange.intake.service import Intake
from exchange.intake.trade.orders import NS_PER_MS

DEPTH_LIMIT_DEFAULT = 500
# Weights by limit, which is one of these.
DEPTH_WEIGHTS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
RPI_DEPTH_LIMIT = 1000

A = TypeVar("A")


def wall_clock_ms() -> int:
    """Return the server's own time, by which requests are dated."""
    return time.time_ns() // NS_PER_MS


def one_or_all(intake: Intake, values: Values, answer: Callable[[Intake, Market], A]) -> A | list[A]:
    """Return what is answered about the market of `symbol`, or about each market where none is named.

    Raises:
        ApiError: -1121.
    """
    if "symbol" in values:
        return answer(intake, intake.market(values["symbol"]))
    return [answer(intake, market) for market in intake.state.markets.values()]


async def ping(intake: Intake, account_id: int, values: Values) -> Nothing:
    """Answer, to show that someone is there."""
    return Nothing()


async def server_time(intake: Intake, account_id: int, values: Values) -> ServerTime:
    """Return the server's clock."""
    return ServerTime(server_time=wall_clock_ms())


def depth_weight(values: Values) -> int:
    """Return what a book costs; a limit that is refused costs least."""
    return DEPTH_WEIGHTS.get(values.get("limit", DEPTH_LIMIT_DEFAULT), min(DEPTH_WEIGHTS.values()))


async def depth(intake: Intake, account_id: int, values: Values) -> Depth:
    """Return the best levels of a book."""
    limit = values.get("limit", DEPTH_LIMIT_DEFAULT)
    if limit not in DEPTH_WEIGHTS:
        raise BAD_DEPTH_LIMIT.error()
    return depth_of(intake, intake.market(values["symbol"]), limit)


async def rpi_depth(intake: Intake, account_id: int, values: Values) -> Depth:
    """Return the same: there are no orders here that only retail traders meet."""
    if values.get("limit", RPI_DEPTH_LIMIT) != RPI_DEPTH_LIMIT:
        raise BAD_DEPTH_LIMIT.error()
    return depth_of(intake, intake.market(values["symbol"]), RPI_DEPTH_LIMIT)


def depth_of(intake: Intake, market: Market, limit: int) -> Depth:
    """Return the best `limit` levels of each side, as of the last entry."""
    return Depth(
        last_update_id=intake.state.seq,
        event_ms=wall_clock_ms(),
        transaction_ms=intake.now_ms,
        bids=levels_of(market, Side.BUY, limit),
        asks=levels_of(market, Side.SELL, limit),
    )


async def book_ticker(intake: Intake, account_id: int, values: Values) -> BookTicker | list[BookTicker]:
    """Return the best prices of one market or of all."""
    return one_or_all(intake, values, book_ticker_of)


def book_ticker_of(intake: Intake, market: Market) -> BookTicker:
    """Return a market's best prices, as of the last entry."""
    ((bid_price, bid_qty),) = levels_of(market, Side.BUY, 1) or [_no_level(market)]
    ((ask_price, ask_qty),) = levels_of(market, Side.SELL, 1) or [_no_level(market)]
    return BookTicker(
        symbol=market.symbol,
        bid_price=bid_price,
        bid_qty=bid_qty,
        ask_price=ask_price,
        ask_qty=ask_qty,
        time=intake.now_ms,
        last_update_id=intake.state.seq,
    )


def levels_of(market: Market, side: Side, limit: int) -> list[Level]:
    """Return price and size of the best levels of a side."""
    spec = market.spec
    return [
        (price_text(spec, price_ticks), lots_text(spec, lots))
        for price_ticks, lots in market.book.depth(side, limit)
    ]


def _no_level(market: Market) -> Level:
    return price_text(market.spec, 0), lots_text(market.spec, 0)
