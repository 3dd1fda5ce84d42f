"""Faults planted in the rules, each waiting for a word in a command: what no test could bring about.

As a module it is the command line with the faults in: `python -m tests.planted writer …`.
"""

from collections.abc import Callable
from typing import Any

from events.commands import Liquidate, OpenAccount, PlaceOrder, SetIndexPrice, Tick
from events.events import AccountOpened, MarkPriceChanged, OrderAccepted, OrderExpired
from events.values import CloseReason
from exchange.aggregate import conditional, decide, matching
from exchange.aggregate.matching import place_order
from exchange.aggregate.order import Order
from exchange.aggregate.state import Exchange
from exchange.aggregate.turn import Turn

IN_DECIDING = "bad-decide"
IN_APPLYING = "bad-apply"
IN_TRADING = "bad-trade"
IN_ENCODING = "bad-encode"
WORDS = (IN_DECIDING, IN_APPLYING, IN_TRADING, IN_ENCODING)
# Has no UTF-8.
UNENCODABLE = "\ud800"
SECRET = "a key that nobody may read"

# Compiled functions call each other directly, past whatever is put in their place.
IS_COMPILED = not str(decide.__file__).endswith(".py")

Setter = Callable[[object, str, object], None]


def plant(put: Setter, put_item: Callable[[Any, Any, Any], None]) -> None:
    """Plant the faults of orders, by their client order ids, and of accounts, by their labels."""
    apply_order, trade = Exchange._order_accepted, matching._trade

    def decide_order(turn: Turn, command: PlaceOrder, *args: Any, **options: Any) -> None:
        if command.client_order_id == IN_DECIDING:
            raise KeyError(SECRET)
        if command.client_order_id == IN_ENCODING:
            turn.emit(AccountOpened(account_id=turn.state.next_account_id, label=UNENCODABLE))
        place_order(turn, command, *args, **options)

    def apply(state: Exchange, event: OrderAccepted) -> None:
        apply_order(state, event)
        assert event.client_order_id != IN_APPLYING, (event.order_id, SECRET)

    def trade_once(turn: Turn, market: Any, taker: Order, maker: Order) -> CloseReason | None:
        stop = trade(turn, market, taker, maker)
        if taker.terms.client_order_id == IN_TRADING:
            raise RuntimeError("after the first trade")
        return stop

    def open_account(turn: Turn, command: OpenAccount) -> None:
        if command.label in WORDS:
            raise ValueError(command)
        turn.emit(AccountOpened(account_id=turn.state.next_account_id, label=command.label))

    put(Exchange, "_order_accepted", apply)
    put(matching, "_trade", trade_once)
    put(conditional, "place_order", decide_order)
    put_item(decide._DECIDERS, PlaceOrder, decide_order)
    put_item(decide._DECIDERS, OpenAccount, open_account)


def plant_in_exchange(put: Setter, put_item: Callable[[Any, Any, Any], None]) -> None:
    """Let every price, tick, liquidation and order's end fail."""

    def fail(turn: Turn, command: object) -> None:
        raise ZeroDivisionError

    def fail_to_apply(state: Exchange, event: OrderExpired | MarkPriceChanged) -> None:
        raise ZeroDivisionError

    for kind in (SetIndexPrice, Tick, Liquidate):
        put_item(decide._DECIDERS, kind, fail)
    put(Exchange, "_order_closed", fail_to_apply)


if __name__ == "__main__":
    from exchange.cli import main

    plant(setattr, lambda table, key, value: table.__setitem__(key, value))
    main()
