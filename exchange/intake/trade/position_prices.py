"""The prices of a position: what it was bought or sold at, and where closing it loses and wins nothing."""

from exchange.aggregate.account import Position
from exchange.decimals import average_price_text


def entry_price_text(position: Position) -> str:
    """Return a position's average price; "0.00000000" when flat."""
    return average_price_text(position.market.spec, position.entry_cost, position.size_lots)


def break_even_text(position: Position) -> str:
    """Return the price at which closing a position nets zero since it was last flat; "0.00000000" when flat.

    break-even price = (Σ signed lots × price + fees + funding paid) / size, over its trades since then: so
    what parts of it were closed for counts too, and a large profit can bring the price to zero or below. The
    fee for closing it is not in it.

    Source: Binance, "How to Visualize the Breakeven Price of Open Positions", (total cost − total gained) /
    size. Its answers have the fees paid so far in it and not the one to come: entry 37140.0 and break-even
    37147.428 of a long opened at 0.02 %. That page leaves funding out; here it is in, as money that was paid.
    """
    return average_price_text(position.market.spec, position.break_even_cost, position.size_lots)
