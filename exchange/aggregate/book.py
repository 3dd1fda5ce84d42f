"""A price-time priority order book.

Each side is a dictionary of price levels and a sorted list of their prices with the best one *last*, so
that what happens near the top (nearly everything) moves next to nothing, and the walk through the levels
needs no sorting. A level is a linked list threaded through the orders themselves: joining, leaving from
anywhere and taking the first are each a handful of assignments, however long the queue is.

The list of asks holds negated prices; then "better" is "greater" on both sides.

The book knows nothing of accounts, margin or events, and can be driven alone, with integer ticks and lots:

    book: Book[BookOrder] = Book()
    for maker, lots in book.place(order):     # trades at the makers' prices; what is left joins the queue
        ...
    book.amend(order, price_ticks, lots)      # keeps its place only when it shrinks at the same price
    book.remove(order)

The aggregate decides each fill itself: it asks for `best`, and lets `fill`, `insert`, `amend` and `remove`
follow from events.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

from events.values import BUY, Side


class BookOrder:
    """What a book needs to know of an order. `key` is its price, negated for asks; `open_lots` is unfilled.

    `level`, `older` and `newer` are its place in the queue, None while it has none.
    """

    __slots__ = (
        "account_id",
        "key",
        "level",
        "newer",
        "older",
        "open_lots",
        "order_id",
        "price_ticks",
        "side",
    )

    def __init__(self, order_id: int, account_id: int, side: Side, price_ticks: int, lots: int) -> None:
        self.order_id = order_id
        self.account_id = account_id
        self.side = side
        self.price_ticks = price_ticks
        self.key: int = price_ticks if side is BUY else -price_ticks
        self.open_lots = lots
        self.level: Level | None = None
        self.older: BookOrder | None = None
        self.newer: BookOrder | None = None


O = TypeVar("O", bound=BookOrder)  # noqa: E741


class Level:
    """The orders at one price, oldest first, with their total."""

    __slots__ = ("first", "key", "last", "lots")

    def __init__(self, order: BookOrder) -> None:
        self.key = order.key
        self.lots = order.open_lots
        self.first = order
        self.last = order

    def __iter__(self) -> Iterator[BookOrder]:
        """Yield the orders, oldest first."""
        order: BookOrder | None = self.first
        while order is not None:
            yield order
            order = order.newer


class Half:
    """One side of a book: levels by key, and the keys in ascending order, the best one last."""

    __slots__ = ("best", "keys", "levels")

    def __init__(self) -> None:
        self.levels: dict[int, Level] = {}
        self.keys: list[int] = []
        self.best: Level | None = None

    def open(self, order: BookOrder, key: int) -> None:
        """Make a level of an order that is the first at its price, `key`."""
        level = order.level = self.levels[key] = Level(order)
        best = self.best
        if best is None or key > best.key:
            self.keys.append(key)
            self.best = level
        else:
            insort(self.keys, key)

    def close(self, level: Level) -> None:
        """Take out a level whose only order has left."""
        assert level.lots == 0, level.lots
        key, keys = level.key, self.keys
        del self.levels[key]
        if level is self.best:
            keys.pop()
            self.best = self.levels[keys[-1]] if keys else None
        else:
            del keys[bisect_left(keys, key)]

    def best_first(self) -> Iterator[Level]:
        """Yield the levels, the best price first."""
        for key in reversed(self.keys):
            yield self.levels[key]


class Book(Generic[O]):
    """Both sides of a market's open limit orders."""

    __slots__ = ("asks", "bids")

    def __init__(self) -> None:
        self.bids = Half()
        self.asks = Half()

    def half(self, side: Side) -> Half:
        """Return the side on which orders of `side` rest."""
        return self.bids if side is BUY else self.asks

    def insert(self, order: O) -> None:
        """Let an order join the end of the queue at its price."""
        open_lots = order.open_lots
        assert open_lots > 0, order.order_id
        half = self.bids if order.side is BUY else self.asks
        key = order.key
        level = half.levels.get(key)
        if level is None:
            half.open(order, key)
            return
        last = level.last
        last.newer = order
        order.older = last
        level.last = order
        level.lots += open_lots
        order.level = level

    def remove(self, order: O) -> None:
        """Take an order out of the queue, wherever it stands in it, and its level if it was the only one."""
        level = order.level
        assert level is not None, order.order_id
        level.lots -= order.open_lots
        order.level = None
        older, newer = order.older, order.newer
        if older is None:
            if newer is None:
                (self.bids if order.side is BUY else self.asks).close(level)
                return
            level.first = newer
            newer.older = None
            order.newer = None
            return
        older.newer = newer
        if newer is None:
            level.last = older
        else:
            newer.older = older
            order.newer = None
        order.older = None

    def fill(self, order: O, lots: int) -> None:
        """Reduce an order by `lots` without changing its place; a filled order leaves the book."""
        open_lots = order.open_lots
        assert 0 < lots <= open_lots, (order.order_id, lots)
        if lots == open_lots:
            self.remove(order)
            order.open_lots = 0
            return
        level = order.level
        assert level is not None, order.order_id
        level.lots -= lots
        order.open_lots = open_lots - lots

    def amend(self, order: O, price_ticks: int, open_lots: int, *, yields_priority: bool = False) -> None:
        """Change price and open size. The place is kept only when the order shrinks at the same price.

        The caller has made sure that the new price does not cross, or lets the order trade first.
        """
        assert open_lots > 0, order.order_id
        if price_ticks == order.price_ticks and open_lots <= order.open_lots and not yields_priority:
            assert order.level is not None, order.order_id
            order.level.lots -= order.open_lots - open_lots
            order.open_lots = open_lots
            return
        self.remove(order)
        order.price_ticks = price_ticks
        order.key = price_ticks if order.side is BUY else -price_ticks
        order.open_lots = open_lots
        self.insert(order)

    def place(self, order: O, *, rests: bool = True) -> list[tuple[BookOrder, int]]:
        """Trade an order against the other side, then let what is left rest, unless it does not.

        Returns (maker, lots) of each fill, in order; the price is the maker's.
        """
        fills: list[tuple[BookOrder, int]] = []
        other = self.asks if order.side is BUY else self.bids
        worst_key = -order.key
        best = other.best
        while best is not None and best.key >= worst_key and order.open_lots:
            maker = best.first
            lots = maker.open_lots
            if lots > order.open_lots:
                lots = order.open_lots
            self.fill(maker, lots)  # type: ignore[arg-type]
            order.open_lots -= lots
            fills.append((maker, lots))
            best = other.best
        if rests and order.open_lots:
            self.insert(order)
        return fills

    def best(self, side: Side) -> O | None:
        """Return the order of `side` that trades next, None when there is none."""
        level = (self.bids if side is BUY else self.asks).best
        return None if level is None else level.first  # type: ignore[return-value]

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
