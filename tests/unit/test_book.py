"""The order book, driven alone."""

from events.values import Side
from exchange.aggregate.book import Book, Order


def order(order_id: int, side: Side, price_ticks: int, lots: int) -> Order:
    """Return a resting order of account 2."""
    return Order(order_id, 2, "BTCUSDT", side, price_ticks, lots)


def test_best_price_comes_first_on_both_sides() -> None:
    """The highest bid and the lowest ask trade first, whatever the order of arrival."""
    book = Book()
    for n, price_ticks in enumerate((100, 103, 101)):
        book.insert(order(n, Side.BUY, price_ticks, 1))
        book.insert(order(10 + n, Side.SELL, price_ticks + 10, 1))

    assert (103, 110) == (book.best_bid_ticks, book.best_ask_ticks)
    assert [(103, 1), (101, 1), (100, 1)] == book.depth(Side.BUY, 10)
    assert [(110, 1), (111, 1)] == book.depth(Side.SELL, 2)


def test_first_come_first_served_within_a_level() -> None:
    """A level is a queue; leaving from its middle keeps the others' places."""
    book = Book()
    orders = [order(n, Side.BUY, 100, n + 1) for n in range(4)]
    for each in orders:
        book.insert(each)

    book.remove(orders[1])
    book.fill(orders[0], 1)

    assert orders[2] is book.best(Side.BUY)
    assert [(100, 3 + 4)] == book.depth(Side.BUY, 1)


def test_partial_fill_keeps_the_place() -> None:
    """An order that was partly filled stays first in its queue."""
    book = Book()
    first, second = order(1, Side.SELL, 100, 5), order(2, Side.SELL, 100, 5)
    book.insert(first)
    book.insert(second)

    book.fill(first, 3)

    assert first is book.best(Side.SELL)
    assert 2 == first.open_lots
    assert [(100, 7)] == book.depth(Side.SELL, 1)


def test_empty_level_disappears() -> None:
    """A level goes with its last order, at the top as in the middle."""
    book = Book()
    orders = [order(n, Side.SELL, 100 + n, 1) for n in range(3)]
    for each in orders:
        book.insert(each)

    book.remove(orders[1])
    book.fill(orders[0], 1)

    assert [(102, 1)] == book.depth(Side.SELL, 10)
    book.remove(orders[2])
    assert book.best(Side.SELL) is None
    assert 0 == book.best_ask_ticks


def test_depth_of_no_levels_is_empty() -> None:
    """Asking for zero levels gives none, not all."""
    book = Book()
    book.insert(order(1, Side.BUY, 100, 1))

    assert [] == book.depth(Side.BUY, 0)
