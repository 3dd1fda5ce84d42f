"""A price-time priority order book.

Each side is a dictionary of price levels and a sorted list of their prices with the best one *last*, so
that what happens near the top (nearly everything) moves next to nothing, and the walk through the levels
needs no sorting. A level is a linked list threaded through the orders themselves: joining, leaving from
anywhere and taking the first are each a handful of assignments, however long the queue is.

The list of asks holds negated prices; then "better" is "greater" on both sides.

The book knows nothing of accounts, margin or events; it can be driven alone:

    book = Book()
    book.insert(order)                 # joins the end of its price level
    book.best(BUY)                # the first order of the best bid, or None
    book.fill(order, lots)             # part or all of an order is gone; a filled one leaves
    book.remove(order)
"""

from bisect import bisect_left
from collections.abc import Iterator

from events.values import BUY, GTC, GTX, LIMIT, OrderType, Side, TimeInForce


class Order:
    """An order that is open, or being matched. `key` is its price, negated for asks; `rests` tells whether
    an unfilled rest stays in the book.

    `quantity_lots` is the original size, `open_lots` what is unfilled. `extras` is the open loss and fee
    reserved for the whole quantity, in money units. `market` is the symbol.
    """

    __slots__ = (
        "account_id",
        "client_order_id",
        "extras",
        "key",
        "level",
        "liquidation_id",
        "market",
        "newer",
        "older",
        "open_lots",
        "order_id",
        "order_type",
        "price_ticks",
        "quantity_lots",
        "reduce_only",
        "rests",
        "side",
        "time_in_force",
    )

    def __init__(
        self,
        order_id: int,
        account_id: int,
        market: str,
        side: Side,
        price_ticks: int,
        quantity_lots: int,
        *,
        order_type: OrderType = LIMIT,
        time_in_force: TimeInForce = GTC,
        reduce_only: bool = False,
        client_order_id: str = "",
        extras: int = 0,
        liquidation_id: int = 0,
    ) -> None:
        self.order_id = order_id
        self.account_id = account_id
        self.market = market
        self.side = side
        self.price_ticks = price_ticks
        self.key: int = price_ticks if side is BUY else -price_ticks
        self.quantity_lots = quantity_lots
        self.open_lots = quantity_lots
        self.order_type = order_type
        self.time_in_force = time_in_force
        self.reduce_only = reduce_only
        self.client_order_id = client_order_id
        self.extras = extras
        self.liquidation_id = liquidation_id
        self.rests: bool = time_in_force is GTC or time_in_force is GTX
        self.level: Level | None = None
        self.older: Order | None = None
        self.newer: Order | None = None


class Level:
    """The orders at one price, oldest first, with their total."""

    __slots__ = ("first", "key", "last", "lots")

    def __init__(self, key: int) -> None:
        self.key = key
        self.lots = 0
        self.first: Order | None = None
        self.last: Order | None = None

    def __iter__(self) -> Iterator[Order]:
        """Yield the orders, oldest first."""
        order = self.first
        while order is not None:
            yield order
            order = order.newer


class Half:
    """One side of a book: levels by key, and the keys in ascending order, the best one last."""

    __slots__ = ("keys", "levels")

    def __init__(self) -> None:
        self.levels: dict[int, Level] = {}
        self.keys: list[int] = []

    def insert(self, order: Order) -> None:
        """Put an order at the end of its level."""
        key = order.key
        level = self.levels.get(key)
        if level is None:
            level = self.levels[key] = Level(key)
            keys = self.keys
            if not keys or key > keys[-1]:
                keys.append(key)
            else:
                keys.insert(bisect_left(keys, key), key)
        last = level.last
        if last is None:
            level.first = order
        else:
            last.newer = order
            order.older = last
        level.last = order
        level.lots += order.open_lots
        order.level = level

    def remove(self, order: Order) -> None:
        """Take an order out, and its level with it when it was the only one."""
        level = order.level
        assert level is not None, order.order_id
        level.lots -= order.open_lots
        older, newer = order.older, order.newer
        if older is None:
            level.first = newer
        else:
            older.newer = newer
        if newer is None:
            level.last = older
        else:
            newer.older = older
        order.level = order.older = order.newer = None
        if level.first is None:
            assert level.lots == 0, level.lots
            del self.levels[level.key]
            keys = self.keys
            if keys[-1] == level.key:
                keys.pop()
            else:
                del keys[bisect_left(keys, level.key)]

    def best_first(self) -> Iterator[Level]:
        """Yield the levels, the best price first."""
        for key in reversed(self.keys):
            yield self.levels[key]


class Book:
    """Both sides of a market's open limit orders."""

    __slots__ = ("asks", "bids")

    def __init__(self) -> None:
        self.bids = Half()
        self.asks = Half()

    def half(self, side: Side) -> Half:
        """Return the side on which orders of `side` rest."""
        return self.bids if side is BUY else self.asks

    def insert(self, order: Order) -> None:
        """Let an order join the end of the queue at its price."""
        assert order.open_lots > 0, order.order_id
        (self.bids if order.side is BUY else self.asks).insert(order)

    def remove(self, order: Order) -> None:
        """Take an order out of the queue, wherever it stands in it."""
        (self.bids if order.side is BUY else self.asks).remove(order)

    def fill(self, order: Order, lots: int) -> None:
        """Reduce an order by `lots` without changing its place; a filled order leaves the book."""
        assert 0 < lots <= order.open_lots, (order.order_id, lots)
        if lots == order.open_lots:
            self.remove(order)
            order.open_lots = 0
            return
        assert order.level is not None, order.order_id
        order.level.lots -= lots
        order.open_lots -= lots

    def best(self, side: Side) -> Order | None:
        """Return the order of `side` that trades next, None when there is none."""
        half = self.bids if side is BUY else self.asks
        return half.levels[half.keys[-1]].first if half.keys else None

    @property
    def best_bid_ticks(self) -> int:
        """The highest bid, 0 when there is none."""
        return self.bids.keys[-1] if self.bids.keys else 0

    @property
    def best_ask_ticks(self) -> int:
        """The lowest ask, 0 when there is none."""
        return -self.asks.keys[-1] if self.asks.keys else 0

    def depth(self, side: Side, levels_max: int) -> list[tuple[int, int]]:
        """Return (price ticks, lots) of up to `levels_max` levels, the best first."""
        half = self.half(side)
        best = half.keys[-levels_max:] if levels_max else []
        return [(abs(key), half.levels[key].lots) for key in reversed(best)]
