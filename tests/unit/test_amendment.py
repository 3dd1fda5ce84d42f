"""Amending open orders: place, margin, and when the order is cancelled or trades instead."""

import pytest

from events.events import OrderAmended, OrderCancelled, TradeExecuted
from events.values import CloseReason, RejectCode
from exchange.aggregate.margin import survey
from tests.venue import Trader, Venue, every, money, only, order_id, refusal


@pytest.fixture
def venue() -> Venue:
    """A venue with BTC at 50,000 and ETH at 3,000."""
    venue = Venue()
    venue.index("BTCUSDT", "50000")
    venue.index("ETHUSDT", "3000")
    return venue


@pytest.mark.parametrize(
    ("size", "price", "yields_priority", "keeps_place"),
    [
        ("0.05", "50000", False, True),
        ("0.05", "50000", True, False),
        ("0.2", "50000", False, False),
        ("0.05", "50000.1", False, False),
    ],
)
def test_an_order_keeps_its_place_only_when_it_shrinks_at_its_price(
    venue: Venue, alice: Trader, bob: Trader, size: str, price: str, yields_priority: bool, keeps_place: bool
) -> None:
    """Growing, moving or giving it up sends the order behind those that waited."""
    amended = order_id(alice.sell("BTCUSDT", "0.1", "50000"))
    waiting = order_id(venue.account("10000").sell("BTCUSDT", "0.1", "50000"))

    events = alice.amend("BTCUSDT", amended, size, price, yields_priority=yields_priority)

    assert keeps_place is only(OrderAmended, events).keeps_place
    first = waiting if not keeps_place else amended
    assert first == only(TradeExecuted, bob.buy("BTCUSDT", "0.01")).maker_order_id


def test_an_amendment_counts_the_filled_part(alice: Trader, bob: Trader) -> None:
    """The new size is that of the whole order: what is filled stays filled."""
    amended = order_id(alice.sell("BTCUSDT", "0.1", "50000"))
    bob.buy("BTCUSDT", "0.04", "50000")

    event = only(OrderAmended, alice.amend("BTCUSDT", amended, "0.15", "50100"))

    assert (150, 110, 501_000) == (event.quantity_lots, event.open_lots, event.price_ticks)
    assert 110 == alice.position("BTCUSDT").ask_lots


@pytest.mark.parametrize("size", ["0.04", "0.03"])
def test_an_amendment_to_what_is_filled_or_less_cancels(alice: Trader, bob: Trader, size: str) -> None:
    """Nothing would be left to fill."""
    amended = order_id(alice.sell("BTCUSDT", "0.1", "50000"))
    bob.buy("BTCUSDT", "0.04", "50000")

    cancelled = only(OrderCancelled, alice.amend("BTCUSDT", amended, size, "50000"))

    assert (60, CloseReason.AMENDED) == (cancelled.open_lots, cancelled.reason)
    assert {} == alice.account.orders


def test_an_amendment_that_crosses_becomes_the_taker(alice: Trader, bob: Trader) -> None:
    """It trades at the resting order's price, and the rest waits at the new limit."""
    resting = order_id(bob.buy("BTCUSDT", "0.1", "49990"))
    amended = order_id(alice.sell("BTCUSDT", "0.3", "50010"))

    trade = only(TradeExecuted, alice.amend("BTCUSDT", amended, "0.3", "49980"))

    assert (resting, amended, 499_900) == (trade.maker_order_id, trade.taker_order_id, trade.price_ticks)
    assert (200, 499_800) == (alice.order(amended).open_lots, alice.order(amended).price_ticks)


def test_a_post_only_amendment_that_crosses_cancels(alice: Trader, bob: Trader) -> None:
    """A GTX order never takes, so it goes."""
    bob.buy("BTCUSDT", "0.1", "49990")
    amended = order_id(alice.sell("BTCUSDT", "0.3", "50010", tif="GTX"))

    events = alice.amend("BTCUSDT", amended, "0.3", "49990")

    assert CloseReason.AMENDED == only(OrderCancelled, events).reason
    assert [] == every(TradeExecuted, events)
    assert {} == alice.account.orders


@pytest.mark.parametrize(
    ("size", "price", "side", "code"),
    [
        ("0.1", "51000", "SELL", RejectCode.NOTHING_TO_AMEND),
        ("0.2", "51000", "BUY", RejectCode.BAD_AMENDMENT),
        ("0", "51000", "SELL", RejectCode.BAD_QUANTITY),
        ("1001", "51000", "SELL", RejectCode.BAD_QUANTITY),
        ("0.1", "1000000.1", "SELL", RejectCode.BAD_PRICE),
        ("0.1", "20000", "SELL", RejectCode.PRICE_BELOW_BAND),
        ("10", "51000", "SELL", RejectCode.INSUFFICIENT_MARGIN),
    ],
)
def test_a_refused_amendment_leaves_the_order_as_it_was(
    alice: Trader, size: str, price: str, side: str, code: RejectCode
) -> None:
    """Each rule refuses with its own code; the order still stands, at its price and size."""
    amended = order_id(alice.sell("BTCUSDT", "0.1", "51000"))

    assert code == refusal(alice.amend("BTCUSDT", amended, size, price, side=side))

    order = alice.order(amended)
    assert (100, 510_000, 0) == (order.open_lots, order.price_ticks, order.amendments)


def test_an_amendment_needs_the_margin_of_the_change(venue: Venue) -> None:
    """0.1 at 20× needs 250 and a fee of 2.5: 260 are enough to move the order, not to enlarge it."""
    poor = venue.account("260")
    amended = order_id(poor.buy("BTCUSDT", "0.1", "50000"))

    assert RejectCode.INSUFFICIENT_MARGIN == refusal(poor.amend("BTCUSDT", amended, "0.11", "50000"))
    assert only(OrderAmended, poor.amend("BTCUSDT", amended, "0.1", "49000"))
    assert money("260") - money("245") - money("2.45") == survey(poor.account).free


def test_shrinking_frees_margin(venue: Venue) -> None:
    """What the amended order no longer needs is available at once."""
    poor = venue.account("260")
    amended = order_id(poor.buy("BTCUSDT", "0.1", "50000"))

    poor.amend("BTCUSDT", amended, "0.02", "50000")

    assert money("260") - money("50") - money("0.5") == survey(poor.account).free


def test_a_reduce_only_order_cannot_outgrow_its_position(alice: Trader, bob: Trader) -> None:
    """An amendment is cut to the position as a new order is; what then changes nothing is refused."""
    alice.sell("BTCUSDT", "0.2", "50000")
    bob.buy("BTCUSDT", "0.2", "50000")
    reducer = order_id(bob.sell("BTCUSDT", "0.1", "50010", reduce_only=True))

    amended = only(OrderAmended, bob.amend("BTCUSDT", reducer, "0.201", "50010"))
    assert (200, 200) == (amended.quantity_lots, amended.open_lots)
    assert RejectCode.NOTHING_TO_AMEND == refusal(bob.amend("BTCUSDT", reducer, "0.3", "50010"))


def test_orders_are_amended_by_client_id_too(alice: Trader, bob: Trader) -> None:
    """The client's id names its own order only."""
    alice.sell("BTCUSDT", "0.1", "51000", client_id="mine")

    amended = only(OrderAmended, alice.amend("BTCUSDT", 0, "0.1", "52000", client_id="mine"))
    assert 520_000 == amended.price_ticks
    assert RejectCode.UNKNOWN_ORDER == refusal(bob.amend("BTCUSDT", 0, "0.1", "52000", client_id="mine"))
    assert RejectCode.UNKNOWN_ORDER == refusal(bob.amend("BTCUSDT", amended.order_id, "0.1", "52000"))
