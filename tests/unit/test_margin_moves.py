"""Collateral that moves: added and removed on request, brought by orders, topped up for a lower leverage."""

import pytest

from events.events import LeverageSet, MarginAdjusted, OrderAccepted, TradeExecuted
from events.values import RejectCode
from exchange.aggregate.margin import survey
from tests.venue import Trader, Venue, money, only, order_id, plain, refusal, refused_by, spec


@pytest.fixture
def alice(venue: Venue) -> Trader:
    """A trader with 2,000, isolated with leverage 10 in BTC and flat."""
    alice = venue.account("2000")
    alice.mode("BTCUSDT", "ISOLATED")
    alice.leverage("BTCUSDT", 10)
    return alice


@pytest.fixture
def long(alice: Trader, bob: Trader) -> Trader:
    """The same trader with 0.1 BTC bought at 50,000: a bucket of 500, a wallet of 1,500."""
    bob.sell("BTCUSDT", "0.1", "50000")
    alice.buy("BTCUSDT", "0.1", "50000")
    assert "500" == bucket(alice)
    return alice


def bucket(trader: Trader, leg: str = "BOTH") -> str:
    """The collateral of the BTC position."""
    return plain(trader.position("BTCUSDT", leg).bucket)


def reserved(trader: Trader) -> str:
    """What the account's isolated orders reserve in its wallet."""
    return plain(survey(trader.account).reserved)


# Adding and removing


def test_margin_is_added_from_what_is_transferable(long: Trader) -> None:
    """1,500 can be added, and not one unit more."""
    code, reason = refused_by(long.add_margin("BTCUSDT", "1500.00000001"))
    assert RejectCode.INSUFFICIENT_BALANCE == code
    assert "amount: 1500 can be added" in reason

    done = only(MarginAdjusted, long.add_margin("BTCUSDT", "1500"))

    assert (money("1500"), "2000", "0") == (done.amount, bucket(long), long.wallet)


@pytest.mark.parametrize(
    ("mark", "removable"),
    [
        ("50000", "100"),  # 600 − 500
        ("51000", "90"),  # 600 − 510: the profit of 100 does not count
        ("49000", "10"),  # 600 − 490 − the loss of 100
        ("48900", "1"),  # 600 − 489 − 110
        ("45000", "0"),
    ],
)
def test_margin_is_removed_down_to_the_initial_margin(
    venue: Venue, long: Trader, mark: str, removable: str
) -> None:
    """What stays is the initial margin at mark after a loss, whatever the profit."""
    long.add_margin("BTCUSDT", "100")
    venue.index("BTCUSDT", mark)

    code, reason = refused_by(long.remove_margin("BTCUSDT", plain(money(removable) + 1)))
    assert RejectCode.MARGIN_NOT_REMOVABLE == code
    assert f"amount: {removable} can be removed" in reason
    if removable != "0":
        only(MarginAdjusted, long.remove_margin("BTCUSDT", removable))
        assert money("600") - money(removable) == long.position("BTCUSDT").bucket
        assert money("1400") + money(removable) == long.account.wallet


def test_a_tenth_of_the_notional_stays(alice: Trader, bob: Trader) -> None:
    """At leverage 50 the initial margin is 100 of 5,000, but 500 stay."""
    alice.leverage("BTCUSDT", 50)
    bob.sell("BTCUSDT", "0.1", "50000")
    alice.buy("BTCUSDT", "0.1", "50000")
    alice.add_margin("BTCUSDT", "450")

    assert RejectCode.MARGIN_NOT_REMOVABLE == refusal(alice.remove_margin("BTCUSDT", "50.00000001"))
    only(MarginAdjusted, alice.remove_margin("BTCUSDT", "50"))


def test_a_dying_position_may_be_topped_up_but_not_reduced(venue: Venue, long: Trader) -> None:
    """At 45,100 equity is 10 and maintenance 18.04; 10 more bring it above."""
    venue.index("BTCUSDT", "45100")

    assert RejectCode.MARGIN_NOT_REMOVABLE == refusal(long.remove_margin("BTCUSDT", "0.00000001"))
    only(MarginAdjusted, long.add_margin("BTCUSDT", "10"))
    assert "equity is above maintenance" in str(venue.liquidate(long, "BTCUSDT"))


def test_margin_moves_for_open_isolated_positions_only(long: Trader, bob: Trader) -> None:
    """Not by nothing, not in cross, not while flat, not for a leg that there is not."""
    assert RejectCode.BAD_MARGIN == refusal(long.add_margin("BTCUSDT", "0"))
    assert RejectCode.NOT_ISOLATED == refusal(bob.add_margin("BTCUSDT", "1"))
    long.mode("ETHUSDT", "ISOLATED")
    assert RejectCode.NO_POSITION == refusal(long.add_margin("ETHUSDT", "1"))
    assert RejectCode.BAD_LEG == refusal(long.add_margin("BTCUSDT", "1", leg="LONG"))


# Margin with an order


def test_an_order_brings_its_margin(alice: Trader, bob: Trader) -> None:
    """0.1 BTC with 800: 500 are its initial margin, 300 a surplus; all of it is reserved until the fill."""
    accepted = only(OrderAccepted, alice.buy("BTCUSDT", "0.1", "50000", margin="800"))

    assert (money("800"), money("300"), "800") == (accepted.margin, accepted.extras, reserved(alice))
    assert RejectCode.INSUFFICIENT_BALANCE == refusal(alice.withdraw("1200.00000001"))

    bob.sell("BTCUSDT", "0.04", "50000")
    assert ("320", "1680", "480") == (bucket(alice), alice.wallet, reserved(alice))
    bob.sell("BTCUSDT", "0.06", "50000")
    assert ("800", "1200", "0") == (bucket(alice), alice.wallet, reserved(alice))


def test_a_taker_brings_its_margin_too(alice: Trader, bob: Trader) -> None:
    """A market order for 0.1 of which 0.05 fill moves half of 800."""
    bob.sell("BTCUSDT", "0.05", "50000")

    alice.buy("BTCUSDT", "0.1", margin="800")

    assert ("400", "0") == (bucket(alice), reserved(alice))


def test_only_the_part_that_opens_brings_margin(long: Trader, bob: Trader) -> None:
    """Selling 0.3 against a long of 0.1 opens a short of 0.2: two thirds of 1,800."""
    bob.buy("BTCUSDT", "0.3", "50000")

    long.sell("BTCUSDT", "0.3", "50000", margin="1800")

    assert ("1200", "800") == (bucket(long), long.wallet)


def test_the_fill_takes_what_is_needed_when_that_is_more(venue: Venue, alice: Trader, bob: Trader) -> None:
    """The mark rose to 60,000: 0.1 needs 600, the order brings 500."""
    alice.buy("BTCUSDT", "0.1", "50000", margin="500")
    venue.index("BTCUSDT", "60000")

    bob.sell("BTCUSDT", "0.1", "50000")

    assert "600" == bucket(alice)


def test_an_amended_order_keeps_its_margin_per_lot(alice: Trader, bob: Trader) -> None:
    """Half the size brings 400; at 51,000 the whole needs 510, with a surplus of 290 (and 100 loss)."""
    resting = order_id(alice.buy("BTCUSDT", "0.1", "50000", margin="800"))

    alice.amend("BTCUSDT", resting, "0.05", "50000")
    assert ("400", money("150")) == (reserved(alice), alice.order(resting).extras)
    alice.amend("BTCUSDT", resting, "0.1", "51000")
    assert ("900", money("390")) == (reserved(alice), alice.order(resting).extras)
    alice.amend("BTCUSDT", resting, "0.05", "50000")
    bob.sell("BTCUSDT", "0.05", "50000")
    assert ("400", "0") == (bucket(alice), reserved(alice))


def test_a_cancelled_order_frees_its_margin(alice: Trader, bob: Trader) -> None:
    """After a part of 0.03 is filled with 240, the other 560 are free again."""
    resting = order_id(alice.buy("BTCUSDT", "0.1", "50000", margin="800"))
    bob.sell("BTCUSDT", "0.03", "50000")

    alice.cancel("BTCUSDT", resting)

    assert ("240", "1760", "0") == (bucket(alice), alice.wallet, reserved(alice))


def test_margin_with_an_order_has_to_make_sense(alice: Trader, long: Trader) -> None:
    """It is at least the initial margin, belongs to an isolated position, and to an order that can open."""
    assert RejectCode.BAD_MARGIN == refusal(long.buy("BTCUSDT", "0.1", "50000", margin="499.99999999"))
    assert RejectCode.BAD_MARGIN == refusal(long.buy("BTCUSDT", "0.1", "50000", margin="-1"))
    assert RejectCode.BAD_MARGIN == refusal(long.buy("ETHUSDT", "0.1", "3000", margin="300"))
    assert RejectCode.BAD_MARGIN == refusal(
        long.sell("BTCUSDT", "0.1", "51000", margin="800", reduce_only=True)
    )
    assert RejectCode.INSUFFICIENT_MARGIN == refusal(long.buy("BTCUSDT", "0.1", "50000", margin="1501"))
    only(OrderAccepted, long.buy("BTCUSDT", "0.1", "50000", margin="1500"))


def test_mode_and_margin_come_with_the_first_order(venue: Venue, bob: Trader) -> None:
    """One command opens an isolated position with the collateral wanted."""
    carol = venue.account("1000")
    bob.sell("BTCUSDT", "0.1", "50000")

    carol.buy("BTCUSDT", "0.1", "50000", tif="IOC", margin_mode="ISOLATED", margin="700")

    assert ("700", "300") == (bucket(carol), carol.wallet)


def test_an_order_keeps_its_margin_through_another_mode(alice: Trader, bob: Trader) -> None:
    """In cross it stays reserved and moves nothing; back in isolated it goes to the bucket."""
    alice.buy("BTCUSDT", "0.1", "50000", margin="800")

    alice.switch("BTCUSDT", "CROSS")
    assert money("800") == survey(alice.account).required
    bob.sell("BTCUSDT", "0.05", "50000")
    assert (0, money("650")) == (alice.position("BTCUSDT").bucket, survey(alice.account).required)

    alice.switch("BTCUSDT", "ISOLATED")
    bob.sell("BTCUSDT", "0.05", "50000")
    assert "650" == bucket(alice)  # 250 with the switch, 400 with the fill


# Leverage


def test_a_lower_leverage_tops_the_bucket_up(venue: Venue, long: Trader) -> None:
    """At 49,000 leverage 5 needs 980 and makes the loss of 100 good: 580 come from the wallet."""
    venue.index("BTCUSDT", "49000")

    done = only(LeverageSet, long.leverage("BTCUSDT", 5))

    assert (money("580"), "1080", "920") == (done.margin_moved, bucket(long), long.wallet)


def test_a_lower_leverage_is_refused_when_the_wallet_lacks_the_top_up(long: Trader) -> None:
    """Leverage 5 needs 500 more, and 499.99999999 are left."""
    long.withdraw("1000.00000001")

    assert RejectCode.LEVERAGE_NOT_COVERED == refusal(long.leverage("BTCUSDT", 5))
    assert (10, "500") == (long.position("BTCUSDT").leverage, bucket(long))


def test_a_higher_leverage_releases_nothing(long: Trader) -> None:
    """The bucket stays, and can be removed by request as far as the rule for that goes."""
    long.leverage("BTCUSDT", 50)

    assert "500" == bucket(long)
    assert RejectCode.MARGIN_NOT_REMOVABLE == refusal(long.remove_margin("BTCUSDT", "0.00000001"))


def test_a_lower_leverage_counts_the_orders(long: Trader) -> None:
    """A bid for 0.1 reserves 500 more at leverage 5, the position takes 500: 1,000 of 1,000 is enough."""
    long.buy("BTCUSDT", "0.1", "50000")

    assert only(LeverageSet, long.leverage("BTCUSDT", 5)).margin_moved == money("500")

    assert ("1000", "1000", "1000") == (bucket(long), long.wallet, reserved(long))
    assert RejectCode.LEVERAGE_NOT_COVERED == refusal(long.leverage("BTCUSDT", 4))


def test_in_cross_the_pool_must_cover_a_lower_leverage(venue: Venue, bob: Trader) -> None:
    """With profit of 100 and 1,000 the pool covers 5,100 / 5 = 1,020 at leverage 5, and not 1,275 at 4."""
    carol = venue.account("1000")
    bob.sell("BTCUSDT", "0.1", "50000")
    carol.buy("BTCUSDT", "0.1", "50000")
    venue.index("BTCUSDT", "51000")

    assert RejectCode.LEVERAGE_NOT_COVERED == refusal(carol.leverage("BTCUSDT", 4))
    assert 0 == only(LeverageSet, carol.leverage("BTCUSDT", 5)).margin_moved


# Rebates


def test_no_rebate_is_paid_where_no_taker_fee_was() -> None:
    """A maker that closes against a liquidation gets none: its closed bucket is left with exactly nothing."""
    venue = Venue(specs=(spec(maker_fee=-20_000, taker_fee=50_000),), fund="100000")
    venue.index("BTCUSDT", "50000")
    alice, bob = venue.account("1000"), venue.account("1000")
    bob.buy("BTCUSDT", "0.1", "50000", margin_mode="ISOLATED")
    alice.sell("BTCUSDT", "0.1", "50000")
    venue.index("BTCUSDT", "59800")
    bob.sell("BTCUSDT", "0.1", "59900")
    assert "1001" == plain(bob.account.wallet + bob.position("BTCUSDT").bucket)  # a rebate of 1 on 5,000

    trade = only(TradeExecuted, venue.liquidate(alice))

    assert (bob.account_id, 0, 0) == (trade.maker_account_id, trade.maker_fee, trade.taker_fee)
    assert ("0", "1991") == (bucket(bob), bob.wallet)


def test_a_rebate_to_oneself_is_at_most_the_fee_that_is_left() -> None:
    """An account with an equity of 0.3 closes both legs of its hedge with itself.

    The taker fee would be 1 and the rebate 0.4; 0.3 can be paid, and 0.3 come back.
    """
    venue = Venue(specs=(spec(maker_fee=-20_000, taker_fee=50_000),))
    venue.index("BTCUSDT", "50000")
    alice, bob = venue.account("498.8"), venue.account("10000")
    alice.hedge()
    alice.buy("BTCUSDT", "0.1", "50000", leg="LONG")
    bob.sell("BTCUSDT", "0.1", "50000")
    alice.sell("BTCUSDT", "0.05", "50000", leg="SHORT")
    bob.buy("BTCUSDT", "0.05", "50000")
    venue.index("BTCUSDT", "40000")
    assert "0.3" == plain(survey(alice.account).equity)
    alice.buy("BTCUSDT", "0.05", "40000", leg="SHORT")

    trade = only(
        TradeExecuted, alice.sell("BTCUSDT", "0.05", "40000", leg="LONG", tif="IOC", self_trade="NONE")
    )

    assert ("-0.3", "0.3") == (plain(trade.maker_fee), plain(trade.taker_fee))
    assert "0.3" == plain(survey(alice.account).equity)
