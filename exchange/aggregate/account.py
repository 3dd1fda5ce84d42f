"""Accounts: the wallet, the positions, and what open orders could add to them.

A *bucket* is what a loss can reach. In cross it is the wallet, shared by the account's cross positions and
signed, since a realised loss may exceed it while other positions' profit covers it. In isolated each
position owns one. Account 0 is the insurance fund: its position in a market is isolated, and that
position's bucket is the market's allotment. Account 1 collects fees.
"""

from events.values import BUY, CROSS, ISOLATED, Leg, Side
from exchange.aggregate.book import Order
from exchange.aggregate.market import Market
from exchange.aggregate.units import ceil_div

FUND_ACCOUNT_ID = 0
FEE_ACCOUNT_ID = 1
FIRST_USER_ACCOUNT_ID = 2
LEVERAGE_DEFAULT = 20


class Standing:
    """What a position amounts to at a mark, in money units: profit, maintenance, worst-side exposure and
    what it and its orders require of the wallet.

    Computed by `margin.standing` and kept until the mark, the position or its orders change; it is no
    state of its own.
    """

    __slots__ = ("exposure", "maintenance", "mark_ticks", "required", "unrealised")

    def __init__(
        self, mark_ticks: int, exposure: int, unrealised: int, maintenance: int, required: int
    ) -> None:
        self.mark_ticks = mark_ticks
        self.exposure = exposure
        self.unrealised = unrealised
        self.maintenance = maintenance
        self.required = required


class Position:
    """What an account holds and has on order in one market, with its margin mode and leverage.

    `size_lots` is signed; `entry_cost` is the exact signed money paid for it (not an average price);
    `bucket` its own collateral (always 0 in cross). `bid_value` and `ask_value` are Σ price × open lots of
    resting orders in ticks × lots, `extras` the money reserved for their open loss and fees. `standing` is
    None whenever something it was computed from has changed.
    """

    __slots__ = (
        "ask_lots",
        "ask_value",
        "bid_lots",
        "bid_value",
        "bucket",
        "entry_cost",
        "extras",
        "leg",
        "leverage",
        "market",
        "mode",
        "order_count",
        "size_lots",
        "standing",
    )

    def __init__(self, market: Market) -> None:
        self.market = market
        self.leg = Leg.BOTH
        self.mode = CROSS
        self.leverage = min(LEVERAGE_DEFAULT, market.brackets.leverages[0])
        self.size_lots = 0
        self.entry_cost = 0
        self.bucket = 0
        self.bid_lots = 0
        self.ask_lots = 0
        self.bid_value = 0
        self.ask_value = 0
        self.extras = 0
        self.order_count = 0
        self.standing: Standing | None = None

    def add_order(self, order: Order) -> None:
        """Count a resting order into the exposure."""
        if order.side is BUY:
            self.bid_lots += order.open_lots
            self.bid_value += order.open_lots * order.price_ticks
        else:
            self.ask_lots += order.open_lots
            self.ask_value += order.open_lots * order.price_ticks
        if order.extras:
            self.extras += extras_of(order, order.open_lots)
        self.order_count += 1
        self.standing = None

    def shrink_order(self, order: Order, lots: int) -> None:
        """Take `lots` of a resting order out of the exposure, before the order itself shrinks."""
        if order.side is BUY:
            self.bid_lots -= lots
            self.bid_value -= lots * order.price_ticks
        else:
            self.ask_lots -= lots
            self.ask_value -= lots * order.price_ticks
        left = order.open_lots - lots
        if order.extras:
            self.extras -= extras_of(order, order.open_lots) - extras_of(order, left)
        if left == 0:
            self.order_count -= 1
        self.standing = None
        assert self.order_count >= 0, self.order_count
        assert self.extras >= 0, self.extras

    def open_lots(self, side: Side) -> int:
        """Return how many lots of the account's orders rest on a side."""
        return self.bid_lots if side is BUY else self.ask_lots

    def reducible_lots(self, side: Side) -> int:
        """Return how many lots an order of `side` can trade before it opens anything."""
        return max(0, -self.size_lots * side)


class Account:
    """A customer's wallet, positions and open orders.

    `orders` holds the open ones by id, in the order of acceptance, `client_ids` finds them by the client's
    own id. `api_keys` maps a key to its sealed secret.
    """

    __slots__ = ("account_id", "api_keys", "client_ids", "label", "orders", "positions", "wallet")

    def __init__(self, account_id: int, label: str) -> None:
        self.account_id = account_id
        self.label = label
        self.wallet = 0
        self.positions: dict[str, Position] = {}
        self.orders: dict[int, Order] = {}
        self.client_ids: dict[str, int] = {}
        self.api_keys: dict[str, bytes] = {}

    def position(self, market: Market) -> Position:
        """Return the account's record in a market, a fresh one with the defaults if it has none.

        The fresh one is not stored: only events change the state.
        """
        return self.positions.get(market.symbol) or fresh_position(self.account_id, market)

    def stored_position(self, market: Market) -> Position:
        """Return the account's record in a market, creating it. For `apply` alone."""
        position = self.positions.get(market.symbol)
        if position is None:
            position = self.positions[market.symbol] = fresh_position(self.account_id, market)
        return position


def fresh_position(account_id: int, market: Market) -> Position:
    """Return the record of an account that never did anything in a market."""
    position = Position(market)
    if account_id == FUND_ACCOUNT_ID:
        position.mode = ISOLATED
    return position


def extras_of(order: Order, lots: int) -> int:
    """Return the share of an order's reserve that stands for `lots` of it, rounded up."""
    return ceil_div(order.extras * lots, order.quantity_lots)
