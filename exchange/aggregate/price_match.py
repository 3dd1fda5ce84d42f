"""Orders that take their limit from the book: which level it is, when the order is decided.

Whatever the order then meets, it was decided at this book, so that its limit is in its `OrderAccepted` and
nobody has to look it up again.
"""

from typing import Final

import msgspec

from events.commands import PlaceOrder
from events.values import LIMIT, PriceMatch, RejectCode, Side
from exchange.aggregate.market import Market
from exchange.aggregate.turn import Refused

# Which side's level (1: the order's own, −1: the other), and the how manieth from the best.
_LEVELS: Final[dict[PriceMatch, tuple[int, int]]] = {
    PriceMatch.OPPONENT: (-1, 1),
    PriceMatch.OPPONENT_5: (-1, 5),
    PriceMatch.OPPONENT_10: (-1, 10),
    PriceMatch.OPPONENT_20: (-1, 20),
    PriceMatch.QUEUE: (1, 1),
    PriceMatch.QUEUE_5: (1, 5),
    PriceMatch.QUEUE_10: (1, 10),
    PriceMatch.QUEUE_20: (1, 20),
}


def matched_ticks(market: Market, side: Side, match: PriceMatch) -> int:
    """Return the price of the level that `match` names for an order of `side`, in ticks.

    Raises:
        Refused: the book is not that deep.
    """
    way, depth = _LEVELS[match]
    keys = market.book.half(side if way > 0 else side.opposite).keys
    if len(keys) < depth:
        raise Refused(
            RejectCode.NO_DEPTH, f"priceMatch: {match.name} is level {depth}, the book has {len(keys)}"
        )
    return abs(keys[-depth])


def priced(market: Market, command: PlaceOrder) -> PlaceOrder:
    """Return an order with the limit that the book gives it now.

    Raises:
        Refused: it brings a limit, or can have none, or the book is not deep enough.
    """
    if command.order_type is not LIMIT:
        raise Refused(RejectCode.BAD_ORDER, "priceMatch: only a limit order takes its price from the book")
    check_brings_no_price(command.price_ticks)
    return msgspec.structs.replace(
        command, price_ticks=matched_ticks(market, command.side, command.price_match)
    )


def check_brings_no_price(price_ticks: int) -> None:
    """Refuse an order, or an amendment, that brings a price and takes one from the book as well."""
    if price_ticks:
        raise Refused(RejectCode.BAD_ORDER, "price: priceMatch gives it")
