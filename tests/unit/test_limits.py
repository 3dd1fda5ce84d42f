"""Bounds that keep one command from growing without end, and what may not be taken away in the dark."""

import pytest

from events.commands import AllotInsurance, PlaceOrder
from events.events import (
    ConditionalCancelled,
    LiquidationFinished,
    OrderAccepted,
    OrderAmended,
    PositionDeleveraged,
    Rejected,
    TradeExecuted,
)
from events.values import Bracket, LiquidationResult, OrderType, RejectCode, Side
from exchange.aggregate.account import FUND_ACCOUNT_ID
from exchange.aggregate.margin import bucket_equity, survey
from exchange.aggregate.market import spec_problem
from tests.venue import Trader, Venue, every, money, only, order_id, plain, refusal, spec

BTC, ETH, PEN = "BTCUSDT", "ETHUSDT", "PENUSDT"
FREE = {"maker_fee": 0, "taker_fee": 0, "liquidation_fee": 0, "min_notional": 0}


def hold(venue: Venue, symbol: str, size: str, price: str, long: Trader, short: Trader) -> None:
    """Let one trader be long and the other short."""
    short.sell(symbol, size, price)
    only(TradeExecuted, long.buy(symbol, size, price))


# Liquidation


def test_a_short_that_is_bankrupt_below_every_price_trades_at_none() -> None:
    """A pool far below zero gives a cheap short a bankruptcy price below a tick: it is passed on instead."""
    venue = Venue(specs=(spec(ETH, **FREE), spec(PEN, band_down=100_000_000, **FREE)))
    venue.index(ETH, "3000")
    venue.index(PEN, "0.2")
    alice, bob = venue.account("3100"), venue.account("1000000")
    for trader in (alice, bob):
        trader.leverage(ETH, 10)
        trader.leverage(PEN, 10)
    hold(venue, ETH, "10", "3000", alice, bob)
    hold(venue, PEN, "500", "0.2", bob, alice)
    bob.sell(PEN, "500", "0.1")
    venue.index(ETH, "1000")
    assert "-16900" == plain(survey(alice.account).equity)

    events = venue.liquidate(alice)

    assert not every(TradeExecuted, events)
    assert every(PositionDeleveraged, events)
    assert 0 == only(LiquidationFinished, events).equity


@pytest.mark.parametrize("dust", [0, 1000])
def test_dust_in_the_way_does_not_turn_a_reduction_into_a_loss(dust: int) -> None:
    """After 1,000 orders a liquidation pauses and is asked for again; it is not passed on."""
    venue = Venue(specs=(spec(BTC, max_open_orders=1000, liquidation_fee=10_000),), fund="1000000")
    venue.checks = False
    venue.index(BTC, "50000")
    maker, alice, other = venue.account("100000000"), venue.account("22000"), venue.account("100000")
    alice.mode(BTC, "ISOLATED")
    alice.leverage(BTC, 50)
    hold(venue, BTC, "20", "50000", alice, maker)
    venue.index(BTC, "49300")
    maker.buy(BTC, "50", "49300")
    for _ in range(dust):
        other.buy(BTC, "0.001", "49300.1")

    results = [only(LiquidationFinished, venue.liquidate(alice, BTC)).result]
    if results[-1] is LiquidationResult.CONTINUES:
        results.append(only(LiquidationFinished, venue.liquidate(alice, BTC)).result)

    assert LiquidationResult.RESTORED == results[-1]
    assert (1 if dust == 0 else 2) == len(results)
    assert bucket_equity(alice.account, alice.position(BTC)) > money("5900")


def test_equal_states_cancel_conditional_orders_alike() -> None:
    """The order in which an account came to its markets leaves no trace, so nothing may follow from it."""
    cancelled = []
    for first, second in ((BTC, ETH), (ETH, BTC)):
        venue = Venue()
        venue.index(BTC, "50000")
        venue.index(ETH, "3000")
        alice, bob = venue.account("1000"), venue.account("100000")
        alice.leverage(first, 100)
        alice.leverage(second, 100)
        hold(venue, BTC, "0.5", "50000", alice, bob)
        hold(venue, ETH, "10", "3000", alice, bob)
        for symbol in (BTC, ETH):
            alice.conditional("STOP", "SELL", symbol, "0.1", "1000", watches="MARK")
        venue.index(BTC, "48200")
        cancelled.append([event.market for event in every(ConditionalCancelled, venue.liquidate(alice))])

    assert [BTC, ETH] == cancelled[0] == cancelled[1]


# Orders


def test_reduce_only_orders_follow_their_position_once() -> None:
    """One taker that trades 999 times amends the account's 199 reduce-only orders 199 times, not 198,801."""
    venue = Venue(specs=(spec(BTC),))
    venue.checks = False
    venue.index(BTC, "50000")
    alice, bob = venue.account("10000000"), venue.account("10000000")
    hold(venue, BTC, "1", "50000", alice, bob)
    for _ in range(199):
        alice.sell(BTC, "1", "60000", reduce_only=True)
    for _ in range(5):
        buyer = venue.account("100000")
        for _ in range(200):
            buyer.buy(BTC, "0.001", "49990")

    events = alice.sell(BTC, "0.999", reduce_only=True)

    assert (999, 199) == (len(every(TradeExecuted, events)), len(every(OrderAmended, events)))
    assert {1} == {event.open_lots for event in every(OrderAmended, events)}


def test_a_stop_shrinks_with_the_position_it_protects() -> None:
    """A reduce-only stop of 1 closes the 0.9 that are left."""
    venue = Venue(specs=(spec(BTC),))
    venue.index(BTC, "50000")
    alice, bob = venue.account("100000"), venue.account("1000000")
    hold(venue, BTC, "1", "50000", alice, bob)
    alice.conditional("STOP", "SELL", BTC, "1", "49000", reduce_only=True, watches="MARK")
    bob.buy(BTC, "1", "49990")
    alice.sell(BTC, "0.1", "49990")

    events = venue.index(BTC, "48000")

    assert 900 == only(OrderAccepted, events).quantity_lots
    assert 0 == alice.position(BTC).size_lots


def test_an_amendment_that_trades_needs_what_a_new_order_needs() -> None:
    """An account short of margin may not amend its resting order into a trade."""
    venue = Venue()
    venue.index(BTC, "50000")
    venue.index(ETH, "3000")
    alice, bob = venue.account("5600"), venue.account("1000000")
    for trader in (alice, bob):
        trader.leverage(BTC, 10)
        trader.leverage(ETH, 10)
    hold(venue, ETH, "10", "3000", alice, bob)
    resting = order_id(alice.sell(BTC, "0.5", "51000"))
    bob.buy(BTC, "0.5", "50000")
    venue.index(ETH, "2900")
    assert survey(alice.account).free < 0

    assert RejectCode.INSUFFICIENT_MARGIN == refusal(alice.amend(BTC, resting, "0.5", "50000"))
    assert every(OrderAmended, alice.amend(BTC, resting, "0.5", "50500"))


def test_open_interest_cannot_be_amended_beyond_its_cap() -> None:
    """With 60 of 100 held, an amendment that would open 60 more is refused."""
    venue = Venue(specs=(spec(BTC, max_open_interest_lots=100_000),))
    venue.index(BTC, "50000")
    alice, bob, carol, dave = (venue.account("10000000") for _ in range(4))
    resting = order_id(alice.buy(BTC, "60", "49000"))
    dave.sell(BTC, "60", "50500")
    hold(venue, BTC, "60", "50000", bob, carol)

    assert RejectCode.OPEN_INTEREST_CAP == refusal(alice.amend(BTC, resting, "60", "50500"))


def test_an_order_that_only_reduces_brings_no_margin() -> None:
    """Whatever it names: nothing could use it, and a number without bound is no amount."""
    venue = Venue(specs=(spec(BTC),))
    venue.index(BTC, "50000")
    alice, bob = venue.account("10000"), venue.account("100000")
    alice.mode(BTC, "ISOLATED")
    hold(venue, BTC, "1", "50000", alice, bob)

    for margin in (money("60000"), 1 << 63):
        order = PlaceOrder(
            account_id=alice.account_id,
            market=BTC,
            side=Side.SELL,
            order_type=OrderType.LIMIT,
            quantity_lots=1000,
            price_ticks=510_000,
            margin=margin,
        )
        assert RejectCode.BAD_MARGIN == refusal(venue.send(order))


# Collateral


def in_the_dark() -> Trader:
    """Return a trader with 10,000 who is long a BTC whose index has been silent for an hour; ETH has one."""
    venue = Venue(specs=(spec(BTC, index_age_ms_max=1000), spec(ETH)))
    venue.index(BTC, "50000")
    venue.index(ETH, "3000")
    alice, bob = venue.account("10000"), venue.account("100000")
    hold(venue, BTC, "1", "50000", alice, bob)
    venue.after(3_600_000)
    return alice


def test_nothing_leaves_a_pool_whose_mark_nobody_knows() -> None:
    """While an index is stale, nobody can liquidate: no withdrawal, no higher leverage, until it is back."""
    alice = in_the_dark()

    assert RejectCode.STALE_INDEX == refusal(alice.withdraw("100"))
    assert RejectCode.STALE_INDEX == refusal(alice.leverage(BTC, 125))
    assert not isinstance(alice.leverage(BTC, 15)[0], Rejected)


def test_an_isolated_order_takes_nothing_from_such_a_pool() -> None:
    """Its margin would leave the pool as a withdrawal does; a cross order takes nothing out."""
    alice = in_the_dark()

    assert RejectCode.STALE_INDEX == refusal(alice.buy(ETH, "0.1", "3000", margin_mode="ISOLATED"))
    assert every(OrderAccepted, alice.buy(ETH, "0.1", "3000"))


def test_a_mode_that_moves_nothing_can_be_set_meanwhile() -> None:
    """Where nothing is open no collateral leaves."""
    alice = in_the_dark()

    assert not isinstance(alice.mode(ETH, "ISOLATED")[0], Rejected)
    assert RejectCode.STALE_INDEX == refusal(alice.switch(BTC, "ISOLATED"))


def test_the_allotment_goes_back_to_a_fund_in_debt() -> None:
    """Money moves back to the wallet whatever the wallet holds; nothing is no amount."""
    venue = Venue(specs=(spec(BTC),), fund="100")
    fund = venue.state.accounts[FUND_ACCOUNT_ID]
    fund.wallet -= money("50")
    venue.state.withdrawn += money("50")

    assert not isinstance(venue.send(AllotInsurance(market=BTC, amount=-money("30")))[0], Rejected)
    assert money("-20") == fund.wallet
    assert RejectCode.INSUFFICIENT_BALANCE == refusal(venue.send(AllotInsurance(market=BTC, amount=1)))
    assert RejectCode.BAD_AMOUNT == refusal(venue.send(AllotInsurance(market=BTC, amount=0)))


# Listing


def test_funding_may_not_take_what_a_position_lives_on() -> None:
    """A settlement beyond the lowest maintenance rate would go through a bucket and into the fund."""
    assert "funding_cap" in str(spec_problem(spec(BTC, funding_cap=400_000)))
    assert spec_problem(spec(BTC, funding_cap=399_999)) is None


def test_all_markets_together_fit_what_a_message_holds() -> None:
    """A position in each at its cap and highest price is a sum of 62 bits at most."""
    bracket = Bracket(cap=1 << 62, maintenance_rate=400_000, max_leverage=125)
    wide = {"tick_size": 10**8, "lot_size": 10**8, "max_price_ticks": 10**6, "brackets": (bracket,)}
    lots = {"max_lots": 30_000, "max_position_lots": 30_000, "max_open_interest_lots": 30_000}

    venue = Venue(specs=tuple(spec(symbol, **wide, **lots, max_market_lots=30_000) for symbol in (BTC, ETH)))

    assert [BTC] == list(venue.state.markets)
