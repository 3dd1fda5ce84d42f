"""The contract's filters: each refusal names the one it broke."""

import pytest

from events.events import OrderAccepted
from events.values import RejectCode
from tests.venue import Trader, Venue, conditional_id, only, order_id, refused_by, spec


def venue_of(**changes: object) -> tuple[Venue, Trader]:
    """Return a venue whose BTC contract differs from the usual, at 50,000, and a rich trader."""
    venue = Venue(specs=(spec(**changes),))  # type: ignore[arg-type]
    venue.index("BTCUSDT", "50000")
    return venue, venue.account("1000000")


@pytest.mark.parametrize(
    ("side", "size", "price", "code", "name"),
    [
        ("BUY", "0.1", "1000000.1", RejectCode.BAD_PRICE, "PRICE_FILTER"),
        ("BUY", "1001", "50000", RejectCode.BAD_QUANTITY, "LOT_SIZE"),
        ("BUY", "0", "50000", RejectCode.BAD_QUANTITY, "LOT_SIZE"),
        ("BUY", "0.6", None, RejectCode.BAD_QUANTITY, "MARKET_LOT_SIZE"),
        ("BUY", "0.001", "4999.9", RejectCode.MIN_NOTIONAL, "MIN_NOTIONAL"),
        ("BUY", "0.1", "75000.1", RejectCode.PRICE_ABOVE_BAND, "PERCENT_PRICE"),
        ("SELL", "0.1", "24999.9", RejectCode.PRICE_BELOW_BAND, "PERCENT_PRICE"),
    ],
)
def test_refusals_name_their_filter(
    side: str, size: str, price: str | None, code: RejectCode, name: str
) -> None:
    """A value just outside a filter is refused with its code, and its name is in the reason."""
    _, alice = venue_of(max_market_lots=500)

    refused = refused_by(alice.place(side, "BTCUSDT", size, price))

    assert code == refused[0]
    assert name in refused[1].split()


@pytest.mark.parametrize(
    ("side", "size", "price"),
    [
        ("BUY", "0.5", None),
        ("BUY", "0.001", "5000"),
        ("BUY", "0.1", "75000"),
        ("SELL", "0.1", "25000"),
    ],
)
def test_the_bounds_themselves_are_allowed(side: str, size: str, price: str | None) -> None:
    """Filters are inclusive."""
    _, alice = venue_of(max_market_lots=500)

    assert only(OrderAccepted, alice.place(side, "BTCUSDT", size, price))


@pytest.mark.parametrize(
    ("size", "price", "reason"),
    [
        ("0.1", "1000000.1", "price: 1000000.1 is outside PRICE_FILTER 0.1…1000000"),
        ("1001", "50000", "quantity: 1001 is outside LOT_SIZE 0.001…1000"),
        ("0.001", "4999.9", "quantity: notional 4.9999 is below MIN_NOTIONAL 5"),
        ("0.1", "75000.1", "price: 75000.1 is above PERCENT_PRICE 75000"),
    ],
)
def test_refusals_count_as_people_do(size: str, price: str, reason: str) -> None:
    """In decimals of quote and base, not in ticks and lots."""
    _, alice = venue_of()

    assert reason == refused_by(alice.buy("BTCUSDT", size, price))[1]


def test_max_num_orders_counts_open_orders() -> None:
    """One order more than allowed is refused, and there is room again once one is gone."""
    _, alice = venue_of(max_open_orders=2)
    first = order_id(alice.buy("BTCUSDT", "0.1", "49000"))
    alice.buy("BTCUSDT", "0.1", "49000")

    code, reason = refused_by(alice.buy("BTCUSDT", "0.1", "49000"))
    assert RejectCode.TOO_MANY_ORDERS == code
    assert "MAX_NUM_ORDERS" in reason

    alice.cancel("BTCUSDT", first)
    assert only(OrderAccepted, alice.buy("BTCUSDT", "0.1", "49000"))


def test_max_num_orders_counts_both_legs() -> None:
    """In hedge mode the orders of both legs count together."""
    _, alice = venue_of(max_open_orders=2)
    alice.hedge()
    alice.buy("BTCUSDT", "0.1", "49000", leg="LONG")
    alice.sell("BTCUSDT", "0.1", "51000", leg="SHORT")

    assert RejectCode.TOO_MANY_ORDERS == refused_by(alice.buy("BTCUSDT", "0.1", "49000", leg="LONG"))[0]


def test_max_num_algo_orders_counts_conditional_orders() -> None:
    """Conditional orders have a limit of their own."""
    _, alice = venue_of(max_conditional_orders=1, max_open_orders=1)
    first = conditional_id(alice.conditional("STOP", "BUY", "BTCUSDT", "0.1", "51000"))
    assert only(OrderAccepted, alice.buy("BTCUSDT", "0.1", "49000"))

    code, reason = refused_by(alice.conditional("STOP", "BUY", "BTCUSDT", "0.1", "51000"))
    assert RejectCode.TOO_MANY_CONDITIONALS == code
    assert "MAX_NUM_ALGO_ORDERS" in reason

    alice.cancel_conditional("BTCUSDT", first)
    assert conditional_id(alice.conditional("STOP", "BUY", "BTCUSDT", "0.1", "51000"))


def test_max_position_counts_what_open_orders_could_add() -> None:
    """Position and open orders of one side together stay within the cap; closing is always allowed."""
    venue, alice = venue_of(max_position_lots=300)
    bob = venue.account("1000000")
    bob.sell("BTCUSDT", "0.2", "50000")
    alice.buy("BTCUSDT", "0.2", "50000")

    code, reason = refused_by(alice.buy("BTCUSDT", "0.101", "49000"))
    assert RejectCode.POSITION_CAP == code
    assert "MAX_POSITION" in reason

    assert only(OrderAccepted, alice.buy("BTCUSDT", "0.1", "49000"))
    assert RejectCode.POSITION_CAP == refused_by(alice.buy("BTCUSDT", "0.001", "49000"))[0]
    assert only(OrderAccepted, alice.sell("BTCUSDT", "0.2", "51000"))


def test_max_open_interest_bounds_what_all_hold_together() -> None:
    """At the cap nobody opens more, and everybody may still close."""
    venue, alice = venue_of(max_open_interest_lots=300)
    bob = venue.account("1000000")
    bob.sell("BTCUSDT", "0.3", "50000")
    alice.buy("BTCUSDT", "0.3", "50000")

    code, reason = refused_by(alice.buy("BTCUSDT", "0.001", "49000"))
    assert RejectCode.OPEN_INTEREST_CAP == code
    assert "MAX_OPEN_INTEREST" in reason
    assert 300 == venue.state.markets["BTCUSDT"].open_interest_lots

    alice.sell("BTCUSDT", "0.1", "50000")
    bob.buy("BTCUSDT", "0.1", "50000")
    assert 200 == venue.state.markets["BTCUSDT"].open_interest_lots
