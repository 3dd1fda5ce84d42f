"""The break-even price against the cash that a position has cost, kept from events alone."""

from collections.abc import Callable
from typing import Any

import pytest

from events.events import (
    Event,
    FundingSettled,
    LiquidationFeeCharged,
    OrderAccepted,
    PositionDeleveraged,
    PositionTakenOver,
    TradeExecuted,
)
from events.values import Leg
from exchange.aggregate.account import FUND_ACCOUNT_ID
from exchange.aggregate.state import Exchange
from tests.flow import market_venue, pause_ns, random_command
from tests.venue import MONEY

COMMANDS = 6_000
Key = tuple[int, str, Leg]


class Cash:
    """What each position has cost since it was last flat: (lots, money) of all that happened to it."""

    def __init__(self, state: Exchange) -> None:
        self._state = state
        self._legs: dict[int, Leg] = {}
        self.rows: dict[Key, list[tuple[int, int]]] = {}
        self.turned = 0
        self._handlers: dict[type, Callable[[Any], None]] = {
            OrderAccepted: self._accepted,
            TradeExecuted: self._traded,
            PositionTakenOver: self._taken_over,
            PositionDeleveraged: self._deleveraged,
            LiquidationFeeCharged: self._fee,
            FundingSettled: self._funded,
        }

    def follow(self, event: Event) -> None:
        """Take an event in."""
        handle = self._handlers.get(type(event))
        if handle is not None:
            handle(event)

    def size(self, key: Key) -> int:
        """Return the lots of a position."""
        return sum(lots for lots, _ in self.rows.get(key, ()))

    def _add(self, key: Key, lots: int, money: int) -> None:
        before = self.size(key)
        after = before + lots
        if after == 0:
            self.rows[key] = []
        elif before * after < 0:
            self.turned += 1
            self.rows[key] = [(after, -(-money * abs(after) // abs(lots)))]
        else:
            self.rows.setdefault(key, []).append((lots, money))

    def _accepted(self, event: OrderAccepted) -> None:
        self._legs[event.order_id] = event.leg

    def _traded(self, event: TradeExecuted) -> None:
        lots = event.taker_side * event.quantity_lots
        cost = lots * event.price_ticks * self._state.markets[event.market].unit
        maker = (event.maker_account_id, event.market, self._legs[event.maker_order_id])
        taker = (event.taker_account_id, event.market, self._legs[event.taker_order_id])
        self._add(maker, -lots, event.maker_fee - cost)
        self._add(taker, lots, event.taker_fee + cost)

    def _taken_over(self, event: PositionTakenOver) -> None:
        price = event.entry_cost + event.realised
        self._add((event.account_id, event.market, event.leg), -event.size_lots, -price)
        self._add((FUND_ACCOUNT_ID, event.market, Leg.BOTH), event.size_lots, price)

    def _deleveraged(self, event: PositionDeleveraged) -> None:
        self._add((event.account_id, event.market, event.leg), -event.size_lots, -event.value)
        sign = 1 if event.size_lots > 0 else -1
        for row in event.parties:
            self._add((row.account_id, event.market, row.leg), sign * row.quantity_lots, row.value)

    def _fee(self, event: LiquidationFeeCharged) -> None:
        key = (event.account_id, event.market, event.leg)
        if self.size(key):
            self._add(key, 0, event.amount)

    def _funded(self, event: FundingSettled) -> None:
        per_lot = event.mark_ticks * self._state.markets[event.market].unit * event.rate
        for key in [key for key in self.rows if key[1] == event.market and self.size(key)]:
            self._add(key, 0, -(-self.size(key) * per_lot // MONEY))


@pytest.mark.parametrize("seed", [0, 2])
def test_closing_at_break_even_nets_zero(seed: int) -> None:
    """Of each position, at every hundredth command: what closing must bring is the cash it has cost."""
    venue, random = market_venue(seed)
    venue.checks = False
    cash = Cash(venue.state)
    compared = 0
    for n in range(COMMANDS):
        venue.now_ns += pause_ns(random)
        venue.send(random_command(venue.state, random))
        for event in (event for group in venue.log[-1] for event in group):
            cash.follow(event)
        if n % 100:
            continue
        for account in venue.state.accounts.values():
            for position in account.positions.values():
                key = (account.account_id, position.market.symbol, position.leg)
                assert cash.size(key) == position.size_lots, key
                assert sum(money for _, money in cash.rows.get(key, ())) == position.break_even_cost, key
                compared += position.size_lots != 0
    assert compared > 100
    assert cash.turned > 10
