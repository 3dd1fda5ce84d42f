"""Margin modes: switched while flat, switched in mid-position, and named by an order."""

import pytest

from events.commands import SetMarginMode
from events.events import MarginModeSet, OrderAccepted, Rejected
from events.values import Bracket, Leg, MarginMode, RejectCode
from exchange.aggregate.account import FEE_ACCOUNT_ID, FUND_ACCOUNT_ID
from exchange.aggregate.margin import survey
from tests.venue import Trader, Venue, money, only, order_id, plain, refusal, refused_by, spec


@pytest.fixture
def alice(venue: Venue) -> Trader:
    """A trader with 1,000 and a leverage of 10 in both markets."""
    alice = venue.account("1000")
    alice.leverage("BTCUSDT", 10)
    alice.leverage("ETHUSDT", 10)
    return alice


def hold(trader: Trader, other: Trader, symbol: str, side: str, size: str, price: str, **how: str) -> None:
    """Let `trader` open a position against `other` at a price."""
    other.place("SELL" if side == "BUY" else "BUY", symbol, size, price)
    trader.place(side, symbol, size, price, leg=how.get("leg", "BOTH"))


# To isolated


def test_to_isolated_moves_the_initial_margin(alice: Trader, bob: Trader) -> None:
    """0.1 BTC at 50,000 with leverage 10 takes 500 of 1,000 along; the event shows both sides of it.

    Maintenance is 20. The long dies where 5,000 − collateral is 99.6 % of what it is worth.
    """
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")

    done = only(MarginModeSet, alice.switch("BTCUSDT", "ISOLATED"))

    assert (True, MarginMode.ISOLATED) == (done.changed, alice.position("BTCUSDT").mode)
    assert ("1000", "500") == (plain(done.wallet_before), plain(done.wallet_after))
    (leg,) = done.legs
    assert (Leg.BOTH, 100, 0, money("500")) == (leg.leg, leg.size_lots, leg.bucket_before, leg.bucket_after)
    assert ("0.02", "0.04") == (plain(leg.ratio_before or 0), plain(leg.ratio_after or 0))
    assert "40160.64257028" == plain(leg.liquidation_price_before or 0)
    assert "45180.72289157" == plain(leg.liquidation_price_after or 0)
    assert ("500", money("500")) == (alice.wallet, alice.position("BTCUSDT").bucket)


@pytest.mark.parametrize(
    ("mark", "asked", "bucket"),
    [
        ("49000", "0", "590"),  # 490 of margin and a loss of 100
        ("51000", "0", "510"),  # a profit of 100 is no reason to move less
        ("50000", "700", "700"),
        ("50000", "300", "500"),
    ],
)
def test_to_isolated_makes_a_loss_good_and_moves_more_on_request(
    venue: Venue, alice: Trader, bob: Trader, mark: str, asked: str, bucket: str
) -> None:
    """The bucket gets the initial margin at mark and the loss, or what was asked for when that is more."""
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")
    venue.index("BTCUSDT", mark)

    alice.switch("BTCUSDT", "ISOLATED", asked)

    assert bucket == plain(alice.position("BTCUSDT").bucket)
    assert money("1000") == alice.account.wallet + alice.position("BTCUSDT").bucket


def test_to_isolated_leaves_other_positions_their_requirement(alice: Trader, bob: Trader) -> None:
    """Beside 300 required for ETH, 700 of 1,000 may go, and not one unit more."""
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")
    hold(alice, bob, "ETHUSDT", "BUY", "1", "3000")

    code, reason = refused_by(alice.switch("BTCUSDT", "ISOLATED", "700.00000001"))

    assert RejectCode.MODE_NOT_COVERED == code
    assert "needs 700.00000001 in BTCUSDT, 700 is available" in reason
    assert only(MarginModeSet, alice.switch("BTCUSDT", "ISOLATED", "700")).changed


def test_unrealised_profit_never_leaves_the_pool(venue: Venue, alice: Trader, bob: Trader) -> None:
    """BTC needs 590 after a loss of 100; ETH's profit of 200 does not help: 800 − 320 can be moved."""
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")
    hold(alice, bob, "ETHUSDT", "BUY", "1", "3000")
    alice.withdraw("200")
    venue.index("BTCUSDT", "49000")
    venue.index("ETHUSDT", "3200")

    code, reason = refused_by(alice.switch("BTCUSDT", "ISOLATED"))

    assert RejectCode.MODE_NOT_COVERED == code
    assert "needs 590 in BTCUSDT, 480 is available" in reason


def test_orders_are_margined_anew(alice: Trader, bob: Trader) -> None:
    """A bid for another 0.1 keeps 500: first as part of the pool's requirement, then reserved beside it."""
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")
    resting = order_id(alice.buy("BTCUSDT", "0.1", "50000"))
    assert (money("1000"), 0) == (survey(alice.account).required, survey(alice.account).reserved)

    alice.switch("BTCUSDT", "ISOLATED")

    assert (0, money("500")) == (survey(alice.account).required, survey(alice.account).reserved)
    assert RejectCode.INSUFFICIENT_BALANCE == refusal(alice.withdraw("0.00000001"))
    bob.sell("BTCUSDT", "0.1", "50000")
    assert resting not in alice.account.orders
    assert ("0", "1000") == (alice.wallet, plain(alice.position("BTCUSDT").bucket))


def test_beyond_the_leverages_cap_the_bucket_is_one_unit_above_maintenance() -> None:
    """A long worth 2,000 at leverage 50 has an initial margin of 40, maintenance is 110: equality dies."""
    steps = (
        Bracket(cap=money("1000"), maintenance_rate=1_000_000, max_leverage=50),
        Bracket(cap=money("1000000"), maintenance_rate=10_000_000, max_leverage=5),
    )
    venue = Venue(specs=(spec(maker_fee=0, taker_fee=0, brackets=steps),))
    venue.index("BTCUSDT", "50000")
    alice, bob = venue.account("1000"), venue.account("100000")
    bob.leverage("BTCUSDT", 1)
    alice.leverage("BTCUSDT", 50)
    hold(alice, bob, "BTCUSDT", "BUY", "0.02", "50000")
    venue.index("BTCUSDT", "100000")

    alice.switch("BTCUSDT", "ISOLATED")

    assert "110.00000001" == plain(alice.position("BTCUSDT").bucket)


def test_each_leg_of_a_hedge_gets_its_own_bucket(venue: Venue, bob: Trader) -> None:
    """0.1 long and 0.04 short with leverage 10 take 500 and 200; in cross they had one liquidation price."""
    alice = venue.account("1000")
    alice.hedge()
    alice.leverage("BTCUSDT", 10)
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000", leg="LONG")
    hold(alice, bob, "BTCUSDT", "SELL", "0.04", "50000", leg="SHORT")

    long, short = only(MarginModeSet, alice.switch("BTCUSDT", "ISOLATED")).legs

    assert ("500", "200") == (plain(long.bucket_after), plain(short.bucket_after))
    assert long.liquidation_price_before == short.liquidation_price_before
    assert "45180.72289157" == plain(long.liquidation_price_after or 0)
    assert "54780.87649402" == plain(short.liquidation_price_after or 0)  # 2,200 / 0.04016
    assert "300" == alice.wallet


# To cross


def test_to_cross_the_bucket_joins_the_wallet(alice: Trader, bob: Trader) -> None:
    """There and back again moves 500 both ways."""
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")
    alice.switch("BTCUSDT", "ISOLATED")

    done = only(MarginModeSet, alice.switch("BTCUSDT", "CROSS"))

    assert ("500", "1000") == (plain(done.wallet_before), plain(done.wallet_after))
    assert (money("500"), 0) == (done.legs[0].bucket_before, done.legs[0].bucket_after)
    assert "40160.64257028" == plain(done.legs[0].liquidation_price_after or 0)
    assert MarginMode.CROSS is alice.position("BTCUSDT").mode


def test_to_cross_is_refused_when_the_pool_would_be_short(venue: Venue, alice: Trader, bob: Trader) -> None:
    """With an empty wallet, a bucket of 500 and a loss of 200 the pool would have 300 of 480."""
    alice.mode("BTCUSDT", "ISOLATED")
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")
    alice.withdraw("500")
    venue.index("BTCUSDT", "48000")

    code, reason = refused_by(alice.switch("BTCUSDT", "CROSS"))

    assert RejectCode.MODE_NOT_COVERED == code
    assert "CROSS needs 480 in BTCUSDT, 300 is available" in reason
    venue.index("BTCUSDT", "50000")
    assert only(MarginModeSet, alice.switch("BTCUSDT", "CROSS")).changed


# Refusals and questions


def test_a_dying_bucket_is_not_switched(venue: Venue, alice: Trader, bob: Trader) -> None:
    """Neither may an isolated position at maintenance escape into the pool, nor one leave a dying pool."""
    alice.mode("BTCUSDT", "ISOLATED")
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")
    hold(alice, bob, "ETHUSDT", "BUY", "1", "3000")
    venue.index("BTCUSDT", "45100")

    assert RejectCode.IN_LIQUIDATION == refusal(alice.switch("BTCUSDT", "CROSS"))
    venue.index("BTCUSDT", "50000")
    venue.index("ETHUSDT", "2500")
    assert RejectCode.IN_LIQUIDATION == refusal(alice.switch("ETHUSDT", "ISOLATED"))
    assert RejectCode.IN_LIQUIDATION == refusal(alice.switch("BTCUSDT", "CROSS"))


def test_the_mode_that_is_set_already_is_no_error(alice: Trader, bob: Trader) -> None:
    """Nothing moves, whatever margin was asked for, and the event says so."""
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")
    alice.switch("BTCUSDT", "ISOLATED")

    done = only(MarginModeSet, alice.switch("BTCUSDT", "ISOLATED", "700"))

    assert (False, done.wallet_before) == (done.changed, done.wallet_after)
    assert (money("500"), money("500")) == (done.legs[0].bucket_before, done.legs[0].bucket_after)
    assert done.legs[0].ratio_before == done.legs[0].ratio_after


def test_a_preview_is_what_the_switch_does(venue: Venue, alice: Trader, bob: Trader) -> None:
    """The same event, or the same refusal; and the state is as it was."""
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")

    refused = alice.preview("BTCUSDT", "ISOLATED", "1001")
    assert isinstance(refused, Rejected)
    assert refused == only(Rejected, alice.switch("BTCUSDT", "ISOLATED", "1001"))
    planned = alice.preview("BTCUSDT", "ISOLATED", "600")
    assert isinstance(planned, MarginModeSet)
    assert planned == only(MarginModeSet, alice.switch("BTCUSDT", "ISOLATED", "600"))


@pytest.mark.parametrize("margin", ["-0.00000001", "100"])
def test_margin_goes_with_isolated_only(alice: Trader, margin: str) -> None:
    """Cross positions own none, and nobody can ask for less than nothing."""
    assert RejectCode.BAD_MARGIN == refusal(alice.switch("BTCUSDT", "CROSS", margin))


@pytest.mark.parametrize("account_id", [FUND_ACCOUNT_ID, FEE_ACCOUNT_ID])
def test_the_exchanges_own_accounts_have_no_choice(venue: Venue, account_id: int) -> None:
    """The fund is isolated for good."""
    asked = SetMarginMode(account_id=account_id, market="BTCUSDT", mode=MarginMode.CROSS, only_flat=False)

    assert RejectCode.RESERVED_ACCOUNT == refusal(venue.send(asked))


def test_binances_call_is_for_the_flat(venue: Venue, alice: Trader, bob: Trader) -> None:
    """Unchanged, with an order, a conditional order or a position it is refused; while flat it is done."""
    assert RejectCode.MODE_UNCHANGED == refusal(alice.mode("BTCUSDT", "CROSS"))
    alice.buy("BTCUSDT", "0.01", "49000")
    assert RejectCode.MODE_HAS_ORDERS == refusal(alice.mode("BTCUSDT", "ISOLATED"))
    alice.cancel_all("BTCUSDT")
    alice.conditional("STOP", "BUY", "BTCUSDT", "0.01", "51000")
    assert RejectCode.MODE_HAS_ORDERS == refusal(alice.mode("BTCUSDT", "ISOLATED"))
    alice.cancel_all_conditionals("BTCUSDT")
    hold(alice, bob, "ETHUSDT", "BUY", "0.1", "3000")
    assert RejectCode.MODE_HAS_POSITION == refusal(alice.mode("ETHUSDT", "ISOLATED"))
    assert only(MarginModeSet, alice.mode("BTCUSDT", "ISOLATED")).changed


# Mode at open


def test_an_order_may_name_its_mode(alice: Trader, bob: Trader) -> None:
    """The mode is set with the order, before it, and the fill finds its bucket."""
    bob.sell("BTCUSDT", "0.1", "50000")

    events = alice.buy("BTCUSDT", "0.1", "50000", margin_mode="ISOLATED")

    assert [MarginModeSet, OrderAccepted] == [type(event) for event in events[:2]]
    assert ("500", "500") == (alice.wallet, plain(alice.position("BTCUSDT").bucket))


def test_the_mode_that_is_set_may_be_named_again(alice: Trader, bob: Trader) -> None:
    """It changes nothing, with a position open or not."""
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")

    events = alice.buy("BTCUSDT", "0.01", "49000", margin_mode="CROSS")

    assert isinstance(events[0], OrderAccepted)


@pytest.mark.parametrize("what", ["position", "order", "conditional"])
def test_another_mode_is_a_conflict_while_something_is_open(alice: Trader, bob: Trader, what: str) -> None:
    """A position, an order or a conditional order holds the market to its mode."""
    if what == "position":
        hold(alice, bob, "BTCUSDT", "BUY", "0.01", "50000")
    elif what == "order":
        alice.buy("BTCUSDT", "0.01", "49000")
    else:
        alice.conditional("STOP", "BUY", "BTCUSDT", "0.01", "51000")

    events = alice.buy("BTCUSDT", "0.01", "49000", margin_mode="ISOLATED")

    assert RejectCode.MODE_CONFLICT == refusal(events)


@pytest.mark.parametrize(
    ("code", "size", "price", "tif"),
    [
        (RejectCode.INSUFFICIENT_MARGIN, "0.3", "50000", "GTC"),
        (RejectCode.WOULD_NOT_FILL, "0.2", "50000", "FOK"),
        (RejectCode.WOULD_TAKE, "0.1", "50000", "GTX"),
    ],
)
def test_a_refused_order_does_not_set_the_mode(
    alice: Trader, bob: Trader, code: RejectCode, size: str, price: str, tif: str
) -> None:
    """All checks come first, and are made as if the mode were set."""
    bob.sell("BTCUSDT", "0.1", "50000")

    assert code == refusal(alice.buy("BTCUSDT", size, price, tif=tif, margin_mode="ISOLATED"))
    assert MarginMode.CROSS is alice.position("BTCUSDT").mode


def test_an_isolated_order_is_not_backed_by_profit(venue: Venue, alice: Trader, bob: Trader) -> None:
    """ETH's profit of 1,000 lets a cross order through; one that names isolated is judged as isolated."""
    hold(alice, bob, "ETHUSDT", "BUY", "1", "3000")
    alice.withdraw("700")
    venue.index("ETHUSDT", "4000")

    assert RejectCode.INSUFFICIENT_MARGIN == refusal(
        alice.buy("BTCUSDT", "0.02", "50000", margin_mode="ISOLATED")
    )
    assert only(OrderAccepted, alice.buy("BTCUSDT", "0.02", "50000"))


def test_a_fill_or_kill_order_sets_its_mode(alice: Trader, bob: Trader) -> None:
    """The rehearsal is held in the mode that is to be set."""
    bob.sell("BTCUSDT", "0.2", "50000")

    alice.buy("BTCUSDT", "0.2", "50000", tif="FOK", margin_mode="ISOLATED")

    assert ("0", "1000") == (alice.wallet, plain(alice.position("BTCUSDT").bucket))


def test_a_fill_or_kill_order_is_rehearsed_in_its_mode(alice: Trader, bob: Trader) -> None:
    """Its bucket takes 950 and makes a loss of 100 good; a cross order would have had enough with 1,000."""
    bob.sell("BTCUSDT", "0.05", "50000")
    bob.sell("BTCUSDT", "0.05", "52000")

    asked = {"tif": "FOK", "margin_mode": "ISOLATED"}
    assert RejectCode.INSUFFICIENT_MARGIN == refusal(alice.buy("BTCUSDT", "0.1", margin="950", **asked))
    alice.buy("BTCUSDT", "0.1", margin="900", **asked)
    assert "0" == alice.wallet


def test_an_order_sets_the_mode_of_both_legs(venue: Venue, bob: Trader) -> None:
    """In hedge mode the legs share the mode."""
    alice = venue.account("1000")
    alice.hedge()

    alice.buy("BTCUSDT", "0.01", "49000", leg="LONG", margin_mode="ISOLATED")

    assert MarginMode.ISOLATED is alice.position("BTCUSDT", "SHORT").mode
    events = alice.sell("BTCUSDT", "0.01", "51000", leg="SHORT", margin_mode="CROSS")
    assert RejectCode.MODE_CONFLICT == refusal(events)
