"""The order book, driven alone."""

import pytest

from bench.book import run_calls, run_place, run_reference
from bench.flow_gen import SCENARIOS, Scenario, messages
from events.values import Side
from exchange.aggregate.book import Book, BookOrder


def order(order_id: int, side: Side, price_ticks: int, lots: int) -> BookOrder:
    """Return an order of account 2."""
    return BookOrder(order_id, 2, side, price_ticks, lots)


def book_of(*orders: BookOrder) -> Book[BookOrder]:
    """Return a book in which orders rest, the first one longest."""
    book: Book[BookOrder] = Book()
    for each in orders:
        book.insert(each)
    return book


def ids(book: Book[BookOrder], side: Side) -> list[int]:
    """Return the ids of a side's orders in the order in which they trade."""
    return [each.order_id for level in book.half(side).best_first() for each in level]


def test_best_price_comes_first_on_both_sides() -> None:
    """The highest bid and the lowest ask trade first, whatever the order of arrival."""
    book = book_of()
    for n, price_ticks in enumerate((100, 103, 101)):
        book.insert(order(n, Side.BUY, price_ticks, 1))
        book.insert(order(10 + n, Side.SELL, price_ticks + 10, 1))

    assert (103, 110) == (book.best_bid_ticks, book.best_ask_ticks)
    assert [(103, 1), (101, 1), (100, 1)] == book.depth(Side.BUY, 10)
    assert [(110, 1), (111, 1)] == book.depth(Side.SELL, 2)


def test_first_come_first_served_within_a_level() -> None:
    """A level is a queue; leaving from its middle keeps the others' places."""
    orders = [order(n, Side.BUY, 100, n + 1) for n in range(4)]
    book = book_of(*orders)

    book.remove(orders[1])
    book.fill(orders[0], 1)

    assert orders[2] is book.best(Side.BUY)
    assert [(100, 3 + 4)] == book.depth(Side.BUY, 1)


@pytest.mark.parametrize("leaving", [0, 1, 2])
def test_an_order_leaves_from_anywhere_and_may_come_back(leaving: int) -> None:
    """Whoever leaves a queue, first, between or last, rejoins it at the end."""
    orders = [order(n, Side.SELL, 100, 1) for n in range(3)]
    book = book_of(*orders)

    book.remove(orders[leaving])
    book.insert(orders[leaving])

    assert [n for n in range(3) if n != leaving] + [leaving] == ids(book, Side.SELL)
    assert [(100, 3)] == book.depth(Side.SELL, 1)


def test_partial_fill_keeps_the_place() -> None:
    """An order that was partly filled stays first in its queue."""
    first, second = order(1, Side.SELL, 100, 5), order(2, Side.SELL, 100, 5)
    book = book_of(first, second)

    book.fill(first, 3)

    assert first is book.best(Side.SELL)
    assert 2 == first.open_lots
    assert [(100, 7)] == book.depth(Side.SELL, 1)


def test_empty_level_disappears() -> None:
    """A level goes with its last order, at the top as in the middle."""
    orders = [order(n, Side.SELL, 100 + n, 1) for n in range(3)]
    book = book_of(*orders)

    book.remove(orders[1])
    book.fill(orders[0], 1)

    assert orders[2] is book.best(Side.SELL)
    assert [(102, 1)] == book.depth(Side.SELL, 10)
    book.remove(orders[2])
    assert book.best(Side.SELL) is None
    assert 0 == book.best_ask_ticks


def test_a_level_comes_back_where_it_was() -> None:
    """A price that was left takes its place again, below the best as at the top."""
    orders = [order(n, Side.BUY, 100 + n, 1) for n in range(3)]
    book = book_of(*orders)

    for each in (orders[1], orders[2]):
        book.remove(each)
        book.insert(each)

    assert orders[2] is book.best(Side.BUY)
    assert [2, 1, 0] == ids(book, Side.BUY)


def test_depth_of_no_levels_is_empty() -> None:
    """Asking for zero levels gives none, not all."""
    book = book_of(order(1, Side.BUY, 100, 1))

    assert [] == book.depth(Side.BUY, 0)


def test_place_trades_by_price_then_age_up_to_its_limit() -> None:
    """The cheapest asks go first, at one price the oldest; what is left rests at the limit."""
    dear, old, young, beyond = (order(n, Side.SELL, p, 2) for n, p in enumerate((102, 101, 101, 104)))
    book = book_of(dear, old, young, beyond)
    taker = order(9, Side.BUY, 103, 7)

    assert [(old, 2), (young, 2), (dear, 2)] == book.place(taker)
    assert 1 == taker.open_lots
    assert [(103, 1)] == book.depth(Side.BUY, 9)
    assert [(104, 2)] == book.depth(Side.SELL, 9)


def test_place_leaves_the_rest_of_a_maker_first_in_its_queue() -> None:
    """A taker smaller than the first maker takes only from it, and does not rest."""
    first, second = order(1, Side.BUY, 100, 5), order(2, Side.BUY, 100, 5)
    book = book_of(first, second)

    assert [(first, 4)] == book.place(order(3, Side.SELL, 99, 4))
    assert [1, 2] == ids(book, Side.BUY)
    assert [(100, 6)] == book.depth(Side.BUY, 1)
    assert [] == book.depth(Side.SELL, 1)


def test_place_without_rest_leaves_nothing_behind() -> None:
    """An order that does not rest trades what it can and is gone."""
    book = book_of(order(1, Side.SELL, 100, 1))
    taker = order(2, Side.BUY, 100, 3)

    assert 1 == len(book.place(taker, rests=False))
    assert 2 == taker.open_lots
    assert taker.level is None
    assert (0, 0) == (book.best_bid_ticks, book.best_ask_ticks)


def test_amend_to_less_at_the_same_price_keeps_the_place() -> None:
    """An order that only shrinks stays where it stands."""
    orders = [order(n, Side.BUY, 100, 5) for n in range(3)]
    book = book_of(*orders)

    book.amend(orders[0], 100, 2)

    assert [0, 1, 2] == ids(book, Side.BUY)
    assert [(100, 12)] == book.depth(Side.BUY, 1)


def test_amend_to_more_or_with_priority_yielded_goes_to_the_end() -> None:
    """An order that grows queues again; so does one that shrinks and gives up its place."""
    orders = [order(n, Side.BUY, 100, 5) for n in range(3)]
    book = book_of(*orders)

    book.amend(orders[0], 100, 6)
    assert [1, 2, 0] == ids(book, Side.BUY)

    book.amend(orders[1], 100, 4, yields_priority=True)
    assert [2, 0, 1] == ids(book, Side.BUY)
    assert [(100, 15)] == book.depth(Side.BUY, 1)


def test_amend_to_another_price_moves_between_levels() -> None:
    """An order joins the end of the queue at its new price, and its old level goes if it was alone."""
    alone, other = order(1, Side.SELL, 100, 5), order(2, Side.SELL, 101, 5)
    book = book_of(alone, other)

    book.amend(alone, 101, 3)

    assert [2, 1] == ids(book, Side.SELL)
    assert [(101, 8)] == book.depth(Side.SELL, 9)
    assert 101 == book.best_ask_ticks


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_flows_trade_as_in_the_reference(scenario: Scenario) -> None:
    """Both ways to drive the book make the reference's trades and leave its orders, in the same places."""
    flow = messages(scenario, 20_000)

    trades, resting, _ = run_reference(flow)

    assert (trades, resting) == run_calls(flow)[:2]
    assert (trades, resting) == run_place(flow)[:2]
