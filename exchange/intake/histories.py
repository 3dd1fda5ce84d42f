"""All that the intake remembers besides the state, fed in one pass over each entry."""

from collections.abc import Callable

from events.events import LiquidationStarted
from events.frame import Groups
from events.values import MarginMode
from exchange.aggregate.state import Exchange
from exchange.intake.market.past import Past
from exchange.intake.trade.past import AccountPast


class Histories:
    """The past of all accounts and markets, and how many liquidations there were in each mode.

    `state` gives the state, of which only what never changes is read while feeding.
    """

    def __init__(self, state: Callable[[], Exchange]) -> None:
        self._state = state
        self.accounts = AccountPast(lambda symbol: state().markets[symbol].unit)
        self.markets = Past(state)
        self.liquidations: dict[MarginMode, int] = {MarginMode.ISOLATED: 0, MarginMode.CROSS: 0}

    def feed(self, groups: Groups) -> None:
        """Take in the events of one entry."""
        self.accounts.feed(groups)
        self.markets.feed(groups)
        for group in groups:
            for event in group:
                if type(event) is LiquidationStarted:
                    self.liquidations[event.mode] += 1

    def adopt(self) -> None:
        """Know of all that is open in the state, which stands behind the last entry fed."""
        self.accounts.adopt(self._state())

    def replace(self, other: "Histories") -> None:
        """Go on in place of what saw only the entries behind a snapshot; they were fed here as well."""
        self.adopt()
        self.markets.keep_samples(other.markets)
