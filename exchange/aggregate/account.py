"""Accounts: the wallet, the positions, and what open orders could add to them.

A *bucket* is what a loss can reach. In cross it is the wallet, shared by the account's cross positions and
signed, since a realised loss may exceed it while other positions' profit covers it. In isolated each
position owns one. Account 0 is the insurance fund: its position in a market is isolated, and that
position's bucket is the market's allotment. Account 1 collects fees.

In one-way mode an account has one position a market (leg BOTH), in hedge mode two, LONG and SHORT, that are
margined separately. What is set per market, margin mode and leverage, is the same on both legs.
"""

from typing import Final

from events.events import ApiKeyAdded, ConditionalAccepted
from events.values import BUY, CROSS, ISOLATED, SELL, Leg, MarginMode, Side
from exchange.aggregate.market import Market
from exchange.aggregate.order import Order, extras_of

FUND_ACCOUNT_ID = 0
FEE_ACCOUNT_ID = 1
FIRST_USER_ACCOUNT_ID = 2
LEVERAGE_DEFAULT = 20
BOTH: Final = Leg.BOTH
ONE_WAY_LEGS: Final = (Leg.BOTH,)
HEDGE_LEGS: Final = (Leg.LONG, Leg.SHORT)


class Standing:
    """What a position amounts to at a mark, in money units: profit, maintenance, worst-side exposure and
    what it and its orders require of the wallet.

    Computed by `margin.standing` and kept until the mark, the position (`mark_ticks` −1) or its orders
    (`required` −1) change; it is no state of its own.
    """

    __slots__ = ("exposure", "maintenance", "mark_ticks", "required", "unrealised")

    def __init__(self) -> None:
        self.mark_ticks = -1
        self.exposure = 0
        self.unrealised = 0
        self.maintenance = 0
        self.required = -1


class Position:
    """What an account holds and has on order in one market and leg, with its margin mode and leverage.

    `size_lots` is signed; `entry_cost` is the exact signed money paid for it (not an average price).
    `break_even_cost` is the signed money that closing it has to bring for all of it to have cost nothing:
    everything traded since it was last flat, fees, funding. It decides nothing.
    `bucket` is its own collateral (always 0 in cross). `bid_lots` and `ask_lots` count all resting orders.
    `bid_value` and `ask_value` are Σ price × open lots in ticks × lots of those that can open something,
    `extras` the money reserved for their open loss and fees. `reducers` are the resting reduce-only orders.
    `standing` says what all this amounts to, when asked through `margin.standing`.
    """

    __slots__ = (
        "ask_lots",
        "ask_value",
        "bid_lots",
        "bid_value",
        "break_even_cost",
        "bucket",
        "conditional_count",
        "entry_cost",
        "extras",
        "leg",
        "leverage",
        "market",
        "mode",
        "order_count",
        "reducers",
        "size_lots",
        "standing",
    )

    def __init__(self, market: Market, leg: Leg, mode: MarginMode, leverage: int) -> None:
        self.market = market
        self.leg = leg
        self.mode = mode
        self.leverage = leverage
        self.size_lots = 0
        self.entry_cost = 0
        self.break_even_cost = 0
        self.bucket = 0
        self.bid_lots = 0
        self.ask_lots = 0
        self.bid_value = 0
        self.ask_value = 0
        self.extras = 0
        self.order_count = 0
        self.conditional_count = 0
        self.reducers: dict[int, Order] = {}
        self.standing = Standing()

    def add_order(self, order: Order) -> None:
        """Count a resting order."""
        lots = order.open_lots
        value = lots * order.price_ticks
        if order.reduce_only:
            self.reducers[order.order_id] = order
            value = 0
        if order.side is BUY:
            self.bid_lots += lots
            self.bid_value += value
        else:
            self.ask_lots += lots
            self.ask_value += value
        if order.extras:
            self.extras += order.extras if lots == order.extras_lots else extras_of(order, lots)
        self.order_count += 1
        self.standing.required = -1

    def shrink_order(self, order: Order, lots: int) -> None:
        """Count `lots` less of a resting order, before the order itself shrinks."""
        left = order.open_lots - lots
        value = 0 if order.reduce_only else lots * order.price_ticks
        if order.side is BUY:
            self.bid_lots -= lots
            self.bid_value -= value
        else:
            self.ask_lots -= lots
            self.ask_value -= value
        if order.extras:
            if lots == order.extras_lots:
                self.extras -= order.extras
            else:
                self.extras -= extras_of(order, order.open_lots) - extras_of(order, left)
        if left == 0:
            self.order_count -= 1
            if order.reduce_only:
                del self.reducers[order.order_id]
        self.standing.required = -1
        assert self.order_count >= 0, self.order_count
        assert self.extras >= 0, self.extras

    def open_lots(self, side: Side) -> int:
        """Return how many lots of the account's orders rest on a side."""
        return self.bid_lots if side is BUY else self.ask_lots

    def reducible_lots(self, side: Side) -> int:
        """Return how many lots an order of `side` can trade before it opens anything."""
        size_lots = self.size_lots
        if side is BUY:
            return -size_lots if size_lots < 0 else 0
        return size_lots if size_lots > 0 else 0


class Account:
    """A customer's wallet, positions and orders.

    `positions` is keyed by `position_key`. `orders` holds the open ones by id in the order of acceptance,
    `client_ids` finds them by the client's own id; `conditionals` and `conditional_client_ids` do the same
    for conditional orders. `countdowns` maps a market to the time (ns) at which its orders are cancelled.
    `api_keys` maps a key to the event that added it. `failures` counts its commands that the exchange could
    not carry out, since it was last unblocked.
    """

    __slots__ = (
        "account_id",
        "api_keys",
        "client_ids",
        "conditional_client_ids",
        "conditionals",
        "countdowns",
        "failures",
        "hedge",
        "label",
        "orders",
        "positions",
        "wallet",
    )

    def __init__(self, account_id: int, label: str) -> None:
        self.account_id = account_id
        self.label = label
        self.hedge = False
        self.failures = 0
        self.wallet = 0
        self.positions: dict[str, Position] = {}
        self.orders: dict[int, Order] = {}
        self.client_ids: dict[str, int] = {}
        self.conditionals: dict[int, ConditionalAccepted] = {}
        self.conditional_client_ids: dict[str, int] = {}
        self.countdowns: dict[str, int] = {}
        self.api_keys: dict[str, ApiKeyAdded] = {}

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The legs of each market in the account's position mode."""
        return HEDGE_LEGS if self.hedge else ONE_WAY_LEGS

    def position(self, market: Market, leg: Leg = Leg.BOTH) -> Position:
        """Return the account's record in a market and leg, a fresh one if it has none.

        The fresh one is not stored: only events change the state.
        """
        position = self.positions.get(market.symbol if leg is BOTH else position_key(market.symbol, leg))
        return position if position is not None else self._fresh_position(market, leg)

    def stored_position(self, market: Market, leg: Leg = Leg.BOTH) -> Position:
        """Return the account's record in a market and leg, creating it. For `apply` alone."""
        key = market.symbol if leg is BOTH else position_key(market.symbol, leg)
        position = self.positions.get(key)
        if position is None:
            position = self.positions[key] = self._fresh_position(market, leg)
        return position

    def positions_in(self, market: Market) -> list[Position]:
        """Return the account's records in a market, one per leg of its position mode."""
        return [self.position(market, leg) for leg in self.legs]

    def cross_positions(self) -> list[Position]:
        """Return the account's records whose margin is the wallet."""
        return [position for position in self.positions.values() if position.mode is CROSS]

    def _fresh_position(self, market: Market, leg: Leg) -> Position:
        """Return a record without position or orders: set as its other leg is, else with the defaults."""
        if self.account_id == FUND_ACCOUNT_ID:
            return Position(market, leg, ISOLATED, 1)
        for other in (Leg.BOTH, Leg.LONG, Leg.SHORT):
            known = self.positions.get(position_key(market.symbol, other))
            if known is not None:
                return Position(market, leg, known.mode, known.leverage)
        leverage = min(LEVERAGE_DEFAULT, market.brackets.leverages[0])
        return Position(market, leg, MarginMode.CROSS, leverage)


def position_key(symbol: str, leg: Leg) -> str:
    """Return the key of a position among an account's."""
    return symbol if leg is BOTH else f"{symbol}:{leg.name}"


def reducing_side(leg: Leg) -> Side | None:
    """Return the side on which orders of a hedge leg only ever reduce it; None in one-way mode."""
    if leg is BOTH:
        return None
    return SELL if leg is Leg.LONG else BUY
