"""All that is remembered about accounts besides the state, fed in one pass over each entry."""

from collections.abc import Callable
from typing import Any

from events.events import Event
from events.frame import Groups
from exchange.aggregate.state import Exchange
from exchange.intake.projection import Clock, Handlers
from exchange.intake.trade.algos import AlgoHistory
from exchange.intake.trade.ledger import Ledger
from exchange.intake.trade.orders import OrderHistory


class AccountPast:
    """Orders, conditional orders, trades and income of all accounts. A projection.

    `unit_by_symbol` gives the money one lot of a market gains per tick. What is fed may begin in the middle
    of a log; `adopt` then makes known what is open.
    """

    def __init__(self, unit_by_symbol: Callable[[str], int]) -> None:
        self.clock = Clock()
        self.orders = OrderHistory(unit_by_symbol, self.clock)
        self.algos = AlgoHistory(self.orders, self.clock)
        self.ledger = Ledger(self.orders, unit_by_symbol, self.clock)
        self._handlers: dict[type[Event], tuple[Callable[[Any], None], ...]] = {}
        for handlers in (self.orders.handlers, self.algos.handlers, self.ledger.handlers):
            self.follow(handlers)

    def feed(self, groups: Groups) -> None:
        """Take in the events of one entry."""
        self.clock.turn_to(groups)
        self.ledger.begin()
        handlers = self._handlers
        for group in groups:
            for event in group:
                for handle in handlers.get(type(event), ()):
                    handle(event)
        self.ledger.end()

    def follow(self, handlers: Handlers) -> None:
        """Let `handlers` take in each event too, behind the histories."""
        for kind, handler in handlers.items():
            self._handlers[kind] = (*self._handlers.get(kind, ()), handler)

    def adopt(self, state: Exchange) -> None:
        """Know of all that is open in `state`, behind the last entry fed, whatever was not fed."""
        self.orders.adopt(state)
        self.algos.adopt(state)
        self.ledger.adopt(state)
