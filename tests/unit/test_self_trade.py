"""Orders that meet their own account's, and orders that fill whole or not at all."""

import pytest

from events.events import OrderAccepted, OrderExpired, TradeExecuted
from events.values import CloseReason, RejectCode
from exchange.aggregate.matching import MEETINGS_PER_ORDER_MAX
from tests.venue import Trader, Venue, every, only, order_id, plain, refusal, spec


@pytest.fixture
def venue() -> Venue:
    """A venue with BTC at 50,000."""
    venue = Venue(fund="100000")
    venue.index("BTCUSDT", "50000")
    return venue


def test_without_prevention_an_account_trades_with_itself(alice: Trader) -> None:
    """The position does not change, and both fees are paid: 1 as maker, 2.5 as taker."""
    resting = order_id(alice.sell("BTCUSDT", "0.1", "50000"))

    trade = only(TradeExecuted, alice.buy("BTCUSDT", "0.1", "50000", self_trade="NONE"))

    assert (resting, alice.account_id) == (trade.maker_order_id, trade.taker_account_id)
    assert (0, "9996.5") == (alice.position("BTCUSDT").size_lots, alice.wallet)


@pytest.mark.parametrize(
    ("choice", "maker_stays", "taker_rests"),
    [
        ("EXPIRE_TAKER", True, False),
        ("EXPIRE_MAKER", False, True),
        ("EXPIRE_BOTH", False, False),
    ],
)
def test_the_arriving_orders_choice_decides_who_expires(
    alice: Trader, choice: str, maker_stays: bool, taker_rests: bool
) -> None:
    """Nothing trades; what is not expired stays in the book."""
    maker = order_id(alice.sell("BTCUSDT", "0.1", "50000", self_trade="NONE"))

    events = alice.buy("BTCUSDT", "0.1", "50000", self_trade=choice)

    taker = only(OrderAccepted, events).order_id
    stays = [order for order, is_open in ((maker, maker_stays), (taker, taker_rests)) if is_open]
    assert stays == list(alice.account.orders)
    assert {CloseReason.SELF_TRADE} == {event.reason for event in every(OrderExpired, events)}
    assert [] == every(TradeExecuted, events)


def test_others_ahead_in_the_queue_trade_first(alice: Trader, bob: Trader) -> None:
    """Prevention begins where the own order is met, not before."""
    bob.sell("BTCUSDT", "0.1", "49990")
    alice.sell("BTCUSDT", "0.1", "50000")

    events = alice.buy("BTCUSDT", "0.3", "50000", self_trade="EXPIRE_BOTH")

    assert 100 == only(TradeExecuted, events).quantity_lots
    assert [100, 200] == [event.open_lots for event in every(OrderExpired, events)]
    assert {} == alice.account.orders


def test_fok_does_not_count_a_maker_that_cannot_hold_the_fill(
    venue: Venue, alice: Trader, bob: Trader
) -> None:
    """Its order would expire at the fill, so that it fills nothing; it is left as it was."""
    poor = venue.account("600")
    poor.leverage("BTCUSDT", 100)
    resting = order_id(poor.sell("BTCUSDT", "1", "50000"))
    venue.index("BTCUSDT", "51000")
    alice.sell("BTCUSDT", "0.6", "51000")

    assert RejectCode.WOULD_NOT_FILL == refusal(bob.buy("BTCUSDT", "0.7", "51000", tif="FOK"))
    assert [resting] == list(poor.account.orders)

    events = bob.buy("BTCUSDT", "0.6", "51000", tif="FOK")
    assert 510_000 == only(TradeExecuted, events).price_ticks
    assert resting == only(OrderExpired, events).order_id


def test_fok_does_not_count_own_orders(alice: Trader, bob: Trader) -> None:
    """They would expire, not fill."""
    alice.sell("BTCUSDT", "0.1", "50000")
    bob.sell("BTCUSDT", "0.1", "50000")

    assert RejectCode.WOULD_NOT_FILL == refusal(alice.buy("BTCUSDT", "0.2", "50000", tif="FOK"))
    assert 100 == only(TradeExecuted, alice.buy("BTCUSDT", "0.1", "50000", tif="FOK")).quantity_lots


def test_fok_counts_a_reduce_only_order_for_what_its_position_leaves(alice: Trader, bob: Trader) -> None:
    """Two reduce-only orders of 0.2 on a position of 0.2 fill 0.2 together."""
    bob.sell("BTCUSDT", "0.2", "50000")
    alice.buy("BTCUSDT", "0.2", "50000")
    for _ in range(2):
        alice.sell("BTCUSDT", "0.2", "50000", reduce_only=True)

    assert RejectCode.WOULD_NOT_FILL == refusal(bob.buy("BTCUSDT", "0.4", "50000", tif="FOK"))
    assert 200 == only(TradeExecuted, bob.buy("BTCUSDT", "0.2", "50000", tif="FOK")).quantity_lots


def test_fok_is_refused_when_one_order_may_not_cause_so_many_fills() -> None:
    """An order that would be stopped half-way by the bound on fills does not begin."""
    venue = Venue(specs=(spec(max_open_orders=MEETINGS_PER_ORDER_MAX + 1),))
    venue.checks = False
    venue.index("BTCUSDT", "50000")
    maker, taker = venue.account("1000000"), venue.account("1000000")
    for _ in range(MEETINGS_PER_ORDER_MAX + 1):
        maker.sell("BTCUSDT", "0.001", "50000")

    assert RejectCode.WOULD_NOT_FILL == refusal(taker.buy("BTCUSDT", "1.001", "50000", tif="FOK"))
    assert "1000000" == plain(taker.account.wallet)
    assert 1000 == len(every(TradeExecuted, taker.buy("BTCUSDT", "1", "50000", tif="FOK")))


def test_fok_may_fill_against_itself_when_asked_to(alice: Trader) -> None:
    """Without prevention own orders count: it trades whole with the own maker and pays both fees."""
    alice.sell("BTCUSDT", "0.1", "50000")

    trade = only(TradeExecuted, alice.buy("BTCUSDT", "0.1", "50000", tif="FOK", self_trade="NONE"))

    assert (alice.account_id, alice.account_id) == (trade.maker_account_id, trade.taker_account_id)
    assert (0, "9996.5") == (alice.position("BTCUSDT").size_lots, alice.wallet)


def test_fok_fills_against_itself_and_others(alice: Trader, bob: Trader) -> None:
    """0.5 with itself leave the position flat, 0.4 with bob open it; 0.1 more there are not."""
    alice.sell("BTCUSDT", "0.5", "50000")
    bob.sell("BTCUSDT", "0.4", "50000")

    assert RejectCode.WOULD_NOT_FILL == refusal(
        alice.buy("BTCUSDT", "1", "50000", tif="FOK", self_trade="NONE")
    )
    events = alice.buy("BTCUSDT", "0.9", "50000", tif="FOK", self_trade="NONE")

    assert [500, 400] == [trade.quantity_lots for trade in every(TradeExecuted, events)]
    assert 400 == alice.position("BTCUSDT").size_lots


@pytest.mark.parametrize("choice", ["EXPIRE_TAKER", "EXPIRE_BOTH"])
def test_fok_that_would_expire_on_meeting_itself_is_refused(alice: Trader, bob: Trader, choice: str) -> None:
    """It could not fill whole; behind what it needs, own orders do not matter."""
    bob.sell("BTCUSDT", "0.1", "49990")
    alice.sell("BTCUSDT", "0.1", "50000")

    assert RejectCode.WOULD_NOT_FILL == refusal(
        alice.buy("BTCUSDT", "0.2", "50000", tif="FOK", self_trade=choice)
    )
    only(TradeExecuted, alice.buy("BTCUSDT", "0.1", "50000", tif="FOK", self_trade=choice))


def test_fok_counts_the_margin_that_its_expiring_orders_free() -> None:
    """An own ask 1,000 below the mark holds 100 for its loss; without it 1,250 are enough, with it not.

    0.2 BTC at 51,000 lose 200 against the mark and need 1,000 of margin with leverage 10.
    """
    venue = Venue(specs=(spec(maker_fee=0, taker_fee=0),))
    venue.index("BTCUSDT", "50000")
    alice, bob = venue.account("1250"), venue.account("100000")
    alice.leverage("BTCUSDT", 10)
    own = order_id(alice.sell("BTCUSDT", "0.1", "49000"))
    bob.sell("BTCUSDT", "0.2", "51000")

    events = alice.buy("BTCUSDT", "0.2", tif="FOK")

    assert own == only(OrderExpired, events).order_id
    assert (200, 510_000) == (
        only(TradeExecuted, events).quantity_lots,
        only(TradeExecuted, events).price_ticks,
    )
