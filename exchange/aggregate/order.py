"""An order of the exchange: what the book needs of it, the terms it was accepted with, and its position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from events.events import OrderAccepted
from events.values import BUY, GTC, GTD, GTX
from exchange.aggregate.book import BookOrder
from exchange.aggregate.units import ceil_div

if TYPE_CHECKING:
    from exchange.aggregate.account import Position

RESTING: Final = (GTC, GTX, GTD)


class Order(BookOrder):
    """An order that is open, or being matched.

    `terms` are those it was accepted with; `price_ticks`, `price_match`, `quantity_lots` and `extras` may
    have been amended since. `quantity_lots` is its whole size; `extras` is the money reserved for open loss,
    taker fee and the surplus of its margin, of `extras_lots`, which is what was open when it was accepted or
    amended. `rests` tells whether an unfilled part stays in the book. `position` is what it adds to.
    """

    __slots__ = (
        "amendments",
        "extras",
        "extras_lots",
        "position",
        "price_match",
        "quantity_lots",
        "reduce_only",
        "rests",
        "terms",
    )

    def __init__(self, terms: OrderAccepted, position: Position) -> None:
        # The base's assignments, repeated: this runs for every order, and a call costs as much as they do.
        side = terms.side
        price_ticks = terms.price_ticks
        lots = terms.quantity_lots
        self.order_id = terms.order_id
        self.account_id = terms.account_id
        self.side = side
        self.price_ticks = price_ticks
        self.key = price_ticks if side is BUY else -price_ticks
        self.open_lots = lots
        self.level = None
        self.older = None
        self.newer = None
        self.terms = terms
        self.position = position
        self.quantity_lots = lots
        self.extras = terms.extras
        self.extras_lots = lots
        self.reduce_only = terms.reduce_only
        self.rests = terms.time_in_force in RESTING
        self.amendments = 0
        self.price_match = terms.price_match


def margin_of(order: Order, lots: int) -> int:
    """Return the collateral that `lots` of an order bring, rounded up; an amendment keeps it per lot."""
    return ceil_div(order.terms.margin * lots, order.terms.quantity_lots)


def extras_of(order: Order, lots: int) -> int:
    """Return the share of an order's reserve that stands for `lots` of it, rounded up."""
    return ceil_div(order.extras * lots, order.extras_lots)
