"""One command's turn: the state it meets, the events it makes, and how it is refused.

A function that decides a command emits what becomes of it, or raises `Refused`; so does every function whose
docstring says that it refuses something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.events import Event
from events.values import RejectCode
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, Account
from exchange.aggregate.market import Market
from exchange.aggregate.state import Exchange

if TYPE_CHECKING:
    from exchange.aggregate.failing import Failures

# When a command has caused so many events, it begins nothing new: what is left waits for a later one.
EVENTS_PER_COMMAND_AIM = 10_000


class Refused(Exception):
    """The caller asked for something it may not have. Raised before anything was emitted.

    `reason` names the field and the rule.
    """

    def __init__(self, code: RejectCode, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Turn:
    """A command being decided: each event is applied as it is emitted, since later ones depend on it.

    `order_id` is the number that an order placed by this command gets. `failures` are what is known to fail
    in this frame; `wants_recount` asks for a full count of all sums behind it.
    """

    __slots__ = (
        "_handlers",
        "accounts",
        "events",
        "failures",
        "markets",
        "order_id",
        "state",
        "wants_recount",
    )

    def __init__(self, state: Exchange, failures: Failures | None = None) -> None:
        self.state = state
        self.failures = failures
        self.wants_recount = False
        self.accounts = state.accounts
        self.markets = state.markets
        self._handlers = state.handlers
        self.order_id = 0
        self.events: list[Event] = []

    def begin(self, order_id: int) -> None:
        """Turn to the next command: no events yet, and a number for the order that it may place."""
        self.order_id = order_id
        self.events = []

    def emit(self, event: Event) -> None:
        """Apply an event and keep it for the log."""
        self._handlers[type(event)](event)  # as `apply` does, without its call
        self.events.append(event)

    def ask_for_recount(self) -> None:
        """Have all sums counted behind this frame."""
        self.wants_recount = True

    def market(self, symbol: str) -> Market:
        """Return a market, or refuse."""
        market = self.markets.get(symbol)
        if market is None:
            raise Refused(RejectCode.UNKNOWN_MARKET, f"market: {symbol!r} is not listed")
        return market

    def account(self, account_id: int) -> Account:
        """Return any account, the exchange's own included, or refuse."""
        account = self.accounts.get(account_id)
        if account is None:
            raise Refused(RejectCode.UNKNOWN_ACCOUNT, f"account_id: there is no account {account_id}")
        return account

    def customer(self, account_id: int) -> Account:
        """Return a customer's account, or refuse."""
        account = self.accounts.get(account_id)
        if account is None or account_id < FIRST_USER_ACCOUNT_ID:
            account = self.account(account_id)
            raise Refused(RejectCode.RESERVED_ACCOUNT, f"account_id: {account_id} belongs to the exchange")
        return account
